-- The logs database of Travis CI Enterprise 3.0. Loading it again changes nothing.

SET client_min_messages = warning;

CREATE TABLE IF NOT EXISTS logs (
    id               serial PRIMARY KEY,
    job_id           integer,
    content          text,
    removed_by       integer,
    created_at       timestamp without time zone,
    updated_at       timestamp without time zone,
    aggregated_at    timestamp without time zone,
    archived_at      timestamp without time zone,
    purged_at        timestamp without time zone,
    removed_at       timestamp without time zone,
    archiving        boolean,
    archive_verified boolean
);
CREATE INDEX IF NOT EXISTS index_logs_on_job_id ON logs (job_id);
CREATE INDEX IF NOT EXISTS index_logs_on_archived_at ON logs (archived_at);
CREATE INDEX IF NOT EXISTS index_logs_on_archive_verified ON logs (archive_verified);

CREATE TABLE IF NOT EXISTS log_parts (
    id          bigserial PRIMARY KEY,
    log_id      integer NOT NULL,
    content     text,
    number      integer,
    final       boolean,
    created_at  timestamp without time zone DEFAULT '2000-01-01 00:00:00'::timestamp NOT NULL
);
CREATE INDEX IF NOT EXISTS index_log_parts_on_created_at ON log_parts (created_at);
CREATE INDEX IF NOT EXISTS index_log_parts_on_log_id_and_number ON log_parts (log_id, number);
