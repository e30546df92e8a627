-- Who may what: questions to people, their answers, changes, locks.

CREATE TABLE opsbot.approvals (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id          bigint NOT NULL REFERENCES opsbot.runs,
    no              integer NOT NULL,
    kind            text NOT NULL CHECK (kind IN ('plan', 'doubt')),
    digest          text NOT NULL,
    needs           integer NOT NULL CHECK (needs >= 1),
    expires_at      timestamptz NOT NULL,
    title           text NOT NULL,
    text            text NOT NULL,
    rule            text NOT NULL,
    nonce           text NOT NULL UNIQUE,
    requester_team  text NOT NULL,
    requester_user  text NOT NULL,
    requester_via   text NOT NULL,
    state           text NOT NULL DEFAULT 'open',
    voters          text[] NOT NULL DEFAULT '{}',    -- team/user of each decision that counted
    channel         text,                            -- where the message stands that the first valid click bound
    thread          text,
    message         text,
    reason          text NOT NULL DEFAULT '',
    decided_at      timestamptz,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (run_id, no),
    CHECK ((state = 'open') = (decided_at IS NULL)),
    CHECK (kind <> 'plan' OR requester_team || '/' || requester_user <> ALL (voters))    -- four eyes
);

CREATE INDEX approvals_open ON opsbot.approvals (expires_at) WHERE state = 'open';

-- An approval is born open, changes by a verdict that fits its kind, and is then closed for good.
CREATE FUNCTION opsbot.keep_approval() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    verdicts text[] := CASE new.kind WHEN 'plan' THEN '{approve,decline,expire,cancel}'::text[]
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

CREATE TRIGGER keep_approval BEFORE INSERT OR UPDATE ON opsbot.approvals
    FOR EACH ROW EXECUTE FUNCTION opsbot.keep_approval();
CREATE TRIGGER keep_approvals BEFORE DELETE OR TRUNCATE ON opsbot.approvals
    FOR EACH STATEMENT EXECUTE FUNCTION opsbot.refuse();

CREATE TABLE opsbot.decisions (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    approval_id  bigint NOT NULL REFERENCES opsbot.approvals,
    team         text NOT NULL,
    "user"       text NOT NULL,
    via          text NOT NULL,
    verdict      text NOT NULL CHECK (verdict IN ('approve', 'decline', 'done', 'again', 'stop')),
    reason       text NOT NULL,
    members      text[] NOT NULL,       -- the approvers as they were seen when this was decided
    at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (approval_id, team, "user")  -- two approvers are two people
);

-- Four eyes once more, on the row that says who: the requester never counts for a plan, by any route.
CREATE FUNCTION opsbot.keep_decision() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM opsbot.approvals a
      WHERE a.id = new.approval_id AND a.kind = 'plan'
        AND a.requester_team = new.team AND a.requester_user = new."user";
    IF FOUND THEN
        RAISE EXCEPTION 'who asked for approval % cannot decide it', new.approval_id USING ERRCODE = 'OB003';
    END IF;
    RETURN new;
END $$;

CREATE TRIGGER keep_decision BEFORE INSERT ON opsbot.decisions
    FOR EACH ROW EXECUTE FUNCTION opsbot.keep_decision();
CREATE TRIGGER keep_decisions BEFORE UPDATE OR DELETE OR TRUNCATE ON opsbot.decisions
    FOR EACH STATEMENT EXECUTE FUNCTION opsbot.refuse();

-- A row stands before its change is sent. Without a result, nobody knows how it ended.
CREATE TABLE opsbot.changes (
    run_id      bigint NOT NULL REFERENCES opsbot.runs,
    change_no   integer NOT NULL,
    ask_no      integer NOT NULL,
    attempt     integer NOT NULL,
    shown       text NOT NULL,
    intent_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    result      jsonb,
    settled_at  timestamptz,
    PRIMARY KEY (run_id, change_no, ask_no),
    CHECK ((result IS NULL) = (settled_at IS NULL))
);

CREATE FUNCTION opsbot.keep_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF old.result IS NOT NULL THEN
        RAISE EXCEPTION 'change % of run % has its result', old.change_no, old.run_id USING ERRCODE = 'OB004';
    END IF;
    IF (old.run_id, old.change_no, old.ask_no, old.attempt, old.shown, old.intent_at)
       IS DISTINCT FROM (new.run_id, new.change_no, new.ask_no, new.attempt, new.shown, new.intent_at) THEN
        RAISE EXCEPTION 'change % of run % stays as it was intended', old.change_no, old.run_id
            USING ERRCODE = 'OB004';
    END IF;
    RETURN new;
END $$;

CREATE TRIGGER keep_change BEFORE UPDATE ON opsbot.changes FOR EACH ROW EXECUTE FUNCTION opsbot.keep_change();
CREATE TRIGGER keep_changes BEFORE DELETE OR TRUNCATE ON opsbot.changes
    FOR EACH STATEMENT EXECUTE FUNCTION opsbot.refuse();

CREATE TABLE opsbot.locks (
    key     text PRIMARY KEY,           -- one run holds it, or none
    run_id  bigint NOT NULL REFERENCES opsbot.runs,
    at      timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX locks_of_run ON opsbot.locks (run_id);

CREATE TABLE opsbot.lock_waiters (
    key     text NOT NULL,
    run_id  bigint NOT NULL REFERENCES opsbot.runs,
    PRIMARY KEY (key, run_id)
);

CREATE INDEX lock_waiters_of_run ON opsbot.lock_waiters (run_id);
