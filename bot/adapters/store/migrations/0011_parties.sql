-- Who had a part in a run orders no change in it, by any route.

-- Who was really at the keyboard where somebody acted as another person (`--as`): one person who plays two is one.
CREATE TABLE opsbot.parties (
    run_id  bigint NOT NULL REFERENCES opsbot.runs,
    team    text NOT NULL,
    "user"  text NOT NULL,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run_id, team, "user")
);

CREATE TRIGGER keep_parties BEFORE UPDATE OR DELETE OR TRUNCATE ON opsbot.parties
    FOR EACH STATEMENT EXECUTE FUNCTION opsbot.refuse();

-- Four eyes, on the row that says who: `again` sends a change, as `approve` does.
CREATE OR REPLACE FUNCTION opsbot.keep_decision() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM opsbot.approvals a LEFT JOIN opsbot.parties p ON p.run_id = a.run_id
      WHERE a.id = new.approval_id AND new.verdict IN ('approve', 'decline', 'again')
        AND (new.team, new."user") IN ((a.requester_team, a.requester_user), (p.team, p."user"));
    IF FOUND THEN
        RAISE EXCEPTION 'who had a part in approval % cannot decide it', new.approval_id USING ERRCODE = 'OB003';
    END IF;
    RETURN new;
END $$;
