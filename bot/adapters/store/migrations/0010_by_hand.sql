-- Steps that a person does by hand are questions, too: done, or stop.

ALTER TABLE opsbot.approvals DROP CONSTRAINT approvals_kind_check;
ALTER TABLE opsbot.approvals ADD CONSTRAINT approvals_kind_check CHECK (kind IN ('plan', 'doubt', 'hand'));

CREATE OR REPLACE FUNCTION opsbot.keep_approval() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    verdicts text[] := CASE new.kind WHEN 'plan' THEN '{approve,decline,expire,cancel}'::text[]
                                     WHEN 'hand' THEN '{done,stop,expire,cancel}'::text[]
                                     ELSE '{done,again,stop,expire,cancel}'::text[] END;
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF new.state <> 'open' OR new.voters <> '{}' OR new.message IS NOT NULL THEN
            RAISE EXCEPTION 'an approval begins open and undecided' USING ERRCODE = 'OB003';
        END IF;
        RETURN new;
    END IF;
    IF old.state <> 'open' THEN
        RAISE EXCEPTION 'approval % is closed (%)', old.id, old.state USING ERRCODE = 'OB003';
    END IF;
    IF (old.id, old.run_id, old.no, old.kind, old.digest, old.needs, old.expires_at, old.title, old.text, old.rule,
        old.nonce, old.requester_team, old.requester_user, old.requester_via, old.created_at)
       IS DISTINCT FROM
       (new.id, new.run_id, new.no, new.kind, new.digest, new.needs, new.expires_at, new.title, new.text, new.rule,
        new.nonce, new.requester_team, new.requester_user, new.requester_via, new.created_at) THEN
        RAISE EXCEPTION 'approval % stays the question that was put', old.id USING ERRCODE = 'OB003';
    END IF;
    IF new.state NOT IN ('open') AND new.state <> ALL (verdicts) THEN
        RAISE EXCEPTION 'approval % is a %, it cannot become %', old.id, old.kind, new.state USING ERRCODE = 'OB003';
    END IF;
    IF new.state = 'approve' AND cardinality(new.voters) < new.needs THEN
        RAISE EXCEPTION 'approval % needs % people', old.id, old.needs USING ERRCODE = 'OB003';
    END IF;
    IF new.state IN ('done', 'again', 'stop') AND cardinality(new.voters) = 0 THEN
        RAISE EXCEPTION 'approval % is answered by people', old.id USING ERRCODE = 'OB003';
    END IF;
    IF new.state = 'expire' AND new.expires_at > clock_timestamp() THEN
        RAISE EXCEPTION 'approval % has not expired', old.id USING ERRCODE = 'OB003';
    END IF;
    IF old.message IS NOT NULL AND (old.channel, old.message) IS DISTINCT FROM (new.channel, new.message) THEN
        RAISE EXCEPTION 'approval % is bound to another message', old.id USING ERRCODE = 'OB003';
    END IF;
    RETURN new;
END $$;
