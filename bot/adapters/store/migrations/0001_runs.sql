-- What was asked for, and what came of it. Rules that no bug may break stand here rather than in Python.

CREATE TABLE opsbot.requests (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key     text NOT NULL UNIQUE,       -- trigger_id or event_id: Slack delivers more than once
    kind    text NOT NULL,
    body    json NOT NULL,              -- json, not jsonb: foreign text may hold what jsonb refuses
    team    text NOT NULL,
    "user"  text NOT NULL,
    via     text NOT NULL,
    tries   integer NOT NULL DEFAULT 0,
    at      timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX requests_by_age ON opsbot.requests (at);

CREATE TABLE opsbot.runs (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    verb            text NOT NULL CHECK (verb IN ('diagnose', 'act', 'job')),
    subject         text NOT NULL,
    site            text NOT NULL,
    targets         text[] NOT NULL,
    because         text NOT NULL,
    team            text NOT NULL,
    "user"          text NOT NULL,
    via             text NOT NULL,
    channel         text,
    thread          text,               -- known at once when asked in a thread, else when the status message is out
    look_only       boolean NOT NULL,
    task            uuid UNIQUE,        -- one durable task carries one run
    state           text NOT NULL DEFAULT 'new',
    tries           integer NOT NULL DEFAULT 0,
    told            integer NOT NULL DEFAULT 0,   -- the number of the newest event
    cancelled_team  text,
    cancelled_user  text,
    cancelled_via   text,
    cancelled_at    timestamptz,
    outcome         text CHECK (outcome IN (
                        'HEALTHY', 'FIXED', 'DONE', 'PARTLY_FIXED', 'UNFIXED', 'FOUND', 'FAILED', 'COULD_NOT_LOOK',
                        'DECLINED', 'EXPIRED', 'CANCELLED', 'IN_DOUBT', 'REFUSED')),
    summary         text NOT NULL DEFAULT '',
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at     timestamptz,
    CHECK ((outcome IS NULL) = (finished_at IS NULL)),
    CHECK (channel IS NOT NULL OR thread IS NULL)
);

CREATE INDEX runs_open ON opsbot.runs (id) WHERE outcome IS NULL;

-- A finished run never reopens: only its thread may still become known, and a late sentence be told.
CREATE FUNCTION opsbot.keep_run() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    allowed opsbot.runs := new;
BEGIN
    allowed.thread := old.thread;
    allowed.told := old.told;
    IF old.outcome IS NOT NULL AND allowed IS DISTINCT FROM old THEN
        RAISE EXCEPTION 'run % has ended (%) and never reopens', old.id, old.outcome USING ERRCODE = 'OB001';
    END IF;
    IF old.task IS NOT NULL AND new.task IS DISTINCT FROM old.task THEN
        RAISE EXCEPTION 'run % is carried by another task already', old.id USING ERRCODE = 'OB001';
    END IF;
    IF old.thread IS NOT NULL AND new.thread IS DISTINCT FROM old.thread THEN
        RAISE EXCEPTION 'run % has a thread already', old.id USING ERRCODE = 'OB001';
    END IF;
    RETURN new;
END $$;

CREATE TRIGGER keep_run BEFORE UPDATE ON opsbot.runs FOR EACH ROW EXECUTE FUNCTION opsbot.keep_run();

-- For tables that are only ever added to.
CREATE FUNCTION opsbot.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% on opsbot.% is refused: its rows stand as they were written', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'OB002';
END $$;

CREATE TRIGGER keep_runs BEFORE DELETE OR TRUNCATE ON opsbot.runs FOR EACH STATEMENT EXECUTE FUNCTION opsbot.refuse();

CREATE TABLE opsbot.events (
    run_id  bigint NOT NULL REFERENCES opsbot.runs,
    no      integer NOT NULL CHECK (no > 0),
    kind    text NOT NULL,
    data    jsonb NOT NULL,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run_id, no)
);

CREATE TRIGGER keep_events BEFORE UPDATE OR DELETE OR TRUNCATE ON opsbot.events
    FOR EACH STATEMENT EXECUTE FUNCTION opsbot.refuse();

CREATE TABLE opsbot.evidence (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id  bigint NOT NULL REFERENCES opsbot.runs,
    target  text NOT NULL,
    asks    text NOT NULL,
    text    text NOT NULL,
    at      timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX evidence_of_run ON opsbot.evidence (run_id, id);

CREATE TABLE opsbot.findings (
    run_id  bigint NOT NULL REFERENCES opsbot.runs,
    look    integer NOT NULL,
    no      integer NOT NULL,
    data    jsonb NOT NULL,
    PRIMARY KEY (run_id, look, no)
);

CREATE TABLE opsbot.plans (
    run_id  bigint NOT NULL REFERENCES opsbot.runs,
    no      integer NOT NULL,
    digest  text NOT NULL,
    plan    jsonb NOT NULL,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run_id, no)
);

-- What was approved is what runs.
CREATE TRIGGER keep_plans BEFORE UPDATE OR DELETE OR TRUNCATE ON opsbot.plans
    FOR EACH STATEMENT EXECUTE FUNCTION opsbot.refuse();

CREATE TABLE opsbot.samples (
    target    text NOT NULL,
    question  text NOT NULL,
    at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    answer    jsonb NOT NULL
);

-- A question may be longer than an index entry.
CREATE INDEX samples_newest ON opsbot.samples (target, hashtextextended(question, 0), at DESC);
CREATE INDEX samples_by_age ON opsbot.samples USING brin (at);
