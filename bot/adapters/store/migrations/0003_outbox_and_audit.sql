-- What leaves opsbot, and the trail of what it did.

CREATE TABLE opsbot.outbox (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    channel      text NOT NULL,
    kind         text NOT NULL CHECK (kind IN ('status', 'approval', 'pointer', 'note', 'private')),
    run_id       bigint REFERENCES opsbot.runs,
    approval_id  bigint REFERENCES opsbot.approvals,
    "user"       text,
    thread       text,
    body         json NOT NULL DEFAULT '{}',
    state        text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'sent', 'dead')),
    version      integer NOT NULL DEFAULT 1,    -- counts what was told since: the message may be older than the rows
    tries        integer NOT NULL DEFAULT 0,
    why          text NOT NULL DEFAULT '',
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    done_at      timestamptz,
    CHECK ((state = 'pending') = (done_at IS NULL)),
    CHECK (kind <> 'status' OR run_id IS NOT NULL),
    CHECK (kind NOT IN ('approval', 'pointer') OR approval_id IS NOT NULL),
    CHECK (kind <> 'private' OR "user" IS NOT NULL)
);

CREATE INDEX outbox_pending ON opsbot.outbox (channel, id) WHERE state = 'pending';
CREATE INDEX outbox_done ON opsbot.outbox (done_at) WHERE done_at IS NOT NULL;
-- Ten waiting updates of one message are one letter.
CREATE UNIQUE INDEX outbox_one_status ON opsbot.outbox (run_id) WHERE kind = 'status' AND state = 'pending';
CREATE UNIQUE INDEX outbox_one_approval ON opsbot.outbox (approval_id) WHERE kind = 'approval' AND state = 'pending';

-- The messages that are edited in place.
CREATE TABLE opsbot.posts (
    kind     text NOT NULL CHECK (kind IN ('status', 'approval')),
    ref      bigint NOT NULL,           -- a run, an approval
    channel  text NOT NULL,
    ts       text NOT NULL,
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (kind, ref)
);

-- A channel that must wait (rate limit, Slack away).
CREATE TABLE opsbot.channels (
    channel  text PRIMARY KEY,
    due_at   timestamptz NOT NULL
);

CREATE TABLE opsbot.audit (
    no      bigint PRIMARY KEY CHECK (no > 0),
    at      timestamptz NOT NULL,
    what    text NOT NULL,
    team    text,
    "user"  text,
    via     text,
    detail  text NOT NULL,              -- canonical JSON, as text: what was signed is what stands
    mac     text NOT NULL               -- HMAC-SHA256 over the record and the mac before it
);

CREATE TRIGGER keep_audit BEFORE UPDATE OR DELETE OR TRUNCATE ON opsbot.audit
    FOR EACH STATEMENT EXECUTE FUNCTION opsbot.refuse();
