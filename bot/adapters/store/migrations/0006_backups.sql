-- What has been backed up, what proves it, and what was thrown away. A backup is a row for good: only `gone_at` says
-- that the store no longer has it.

CREATE TABLE opsbot.backups (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    site       text NOT NULL,
    what       text NOT NULL CHECK (what IN ('all', 'data', 'databases', 'key', 'redis', 'rabbitmq', 'settings')),
    run_id     bigint NOT NULL UNIQUE REFERENCES opsbot.runs,   -- one run takes one backup, however often it is carried
    folder     text NOT NULL UNIQUE,        -- its name in the store
    manifest   text,                        -- the key of the manifest, which is written last
    began_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    sealed_at  timestamptz,                 -- with it the backup is complete
    gone_at    timestamptz,
    CHECK ((manifest IS NULL) = (sealed_at IS NULL))
);

CREATE INDEX backups_of_site ON opsbot.backups (site, what, id);

CREATE TABLE opsbot.backup_pieces (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    backup_id    bigint NOT NULL REFERENCES opsbot.backups,
    kind         text NOT NULL CHECK (kind IN ('data', 'databases', 'key', 'redis', 'rabbitmq', 'settings')),
    name         text NOT NULL,
    key          text NOT NULL UNIQUE,      -- in the store
    plain        bigint NOT NULL CHECK (plain >= 0),
    stored       bigint NOT NULL CHECK (stored >= 0),
    sha256       text NOT NULL,
    packed       text NOT NULL,
    fingerprint  text NOT NULL DEFAULT '',  -- keyed: tells whether it is the same encryption key, and nothing else
    warnings     text[] NOT NULL DEFAULT '{}',
    began_at     timestamptz NOT NULL,
    ended_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    gone_at      timestamptz,
    UNIQUE (backup_id, name),
    CHECK ((kind = 'key') = (fingerprint <> ''))
);

CREATE TABLE opsbot.backup_proofs (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    piece_id  bigint NOT NULL REFERENCES opsbot.backup_pieces,
    kind      text NOT NULL CHECK (kind IN ('listing', 'read back', 'restored', 'decrypted')),
    passed    boolean NOT NULL,
    said      text NOT NULL,
    at        timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX proofs_of_piece ON opsbot.backup_proofs (piece_id, kind, id);

-- The newest proof of each kind; an older one counts no more.
CREATE VIEW opsbot.newest_proofs AS
    SELECT DISTINCT ON (piece_id, kind) * FROM opsbot.backup_proofs ORDER BY piece_id, kind, id DESC;

-- Complete, and every piece passed some proof and failed none.
CREATE FUNCTION opsbot.is_proven(backup bigint) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM opsbot.backups WHERE id = backup AND sealed_at IS NOT NULL AND gone_at IS NULL)
       AND EXISTS (SELECT FROM opsbot.backup_pieces WHERE backup_id = backup)
       AND NOT EXISTS (
           SELECT FROM opsbot.backup_pieces AS piece
            WHERE piece.backup_id = backup
              AND (NOT EXISTS (SELECT FROM opsbot.newest_proofs WHERE piece_id = piece.id AND passed)
                   OR EXISTS (SELECT FROM opsbot.newest_proofs WHERE piece_id = piece.id AND NOT passed)))
$$;

-- A backup begins open, is sealed once, and is given up once: never the newest of its kind, and none while the newest
-- is unproven.
CREATE FUNCTION opsbot.keep_backup() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    allowed opsbot.backups := new;
    newest  bigint;
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF new.sealed_at IS NOT NULL OR new.gone_at IS NOT NULL THEN
            RAISE EXCEPTION 'a backup begins open' USING ERRCODE = 'OB005';
        END IF;
        RETURN new;
    END IF;
    IF old.sealed_at IS NULL AND old.gone_at IS NULL THEN
        allowed.sealed_at := old.sealed_at;
        allowed.manifest := old.manifest;
    END IF;
    IF old.gone_at IS NULL THEN
        allowed.gone_at := old.gone_at;
    END IF;
    IF allowed IS DISTINCT FROM old THEN
        RAISE EXCEPTION 'backup % stands as it was written', old.id USING ERRCODE = 'OB005';
    END IF;
    IF old.sealed_at IS NULL AND new.sealed_at IS NOT NULL
       AND NOT EXISTS (SELECT FROM opsbot.backup_pieces WHERE backup_id = new.id) THEN
        RAISE EXCEPTION 'backup % holds nothing yet', old.id USING ERRCODE = 'OB005';
    END IF;
    IF old.gone_at IS NULL AND new.gone_at IS NOT NULL THEN
        PERFORM pg_advisory_xact_lock(hashtextextended('opsbot backups', 0));
        SELECT id INTO newest FROM opsbot.backups
         WHERE site = old.site AND what = old.what AND gone_at IS NULL ORDER BY id DESC LIMIT 1;
        IF newest = old.id THEN
            RAISE EXCEPTION 'backup % is the newest of `%` on %, and stays', old.id, old.what, old.site
                USING ERRCODE = 'OB006';
        END IF;
        IF NOT opsbot.is_proven(newest) THEN
            RAISE EXCEPTION 'backup % stays while backup %, the newest, is unproven', old.id, newest
                USING ERRCODE = 'OB006';
        END IF;
    END IF;
    RETURN new;
END $$;

CREATE TRIGGER keep_backup BEFORE INSERT OR UPDATE ON opsbot.backups
    FOR EACH ROW EXECUTE FUNCTION opsbot.keep_backup();

-- A piece is given up with its backup. The last copy of an encryption key never is: without it older dumps of the
-- database are worth little.
CREATE FUNCTION opsbot.keep_piece() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    allowed opsbot.backup_pieces := new;
    owner   opsbot.backups;
BEGIN
    SELECT * INTO owner FROM opsbot.backups WHERE id = new.backup_id;
    IF TG_OP = 'INSERT' THEN
        IF owner.sealed_at IS NOT NULL OR owner.gone_at IS NOT NULL OR new.gone_at IS NOT NULL THEN
            RAISE EXCEPTION 'backup % takes no more', owner.id USING ERRCODE = 'OB005';
        END IF;
        RETURN new;
    END IF;
    allowed.gone_at := old.gone_at;
    IF allowed IS DISTINCT FROM old OR old.gone_at IS NOT NULL THEN
        RAISE EXCEPTION 'piece % stands as it was written', old.id USING ERRCODE = 'OB005';
    END IF;
    IF new.gone_at IS NOT NULL AND owner.gone_at IS NULL THEN
        RAISE EXCEPTION 'piece % goes with its backup only', old.id USING ERRCODE = 'OB006';
    END IF;
    IF new.gone_at IS NOT NULL AND old.kind = 'key' THEN
        PERFORM pg_advisory_xact_lock(hashtextextended('opsbot backups', 0));
        IF NOT EXISTS (
            SELECT FROM opsbot.backup_pieces AS other JOIN opsbot.backups AS its ON its.id = other.backup_id
             WHERE its.site = owner.site AND other.kind = 'key' AND other.fingerprint = old.fingerprint
               AND other.id <> old.id AND other.gone_at IS NULL AND its.sealed_at IS NOT NULL) THEN
            RAISE EXCEPTION 'piece % is the last copy of that encryption key, and stays', old.id
                USING ERRCODE = 'OB006';
        END IF;
    END IF;
    RETURN new;
END $$;

CREATE TRIGGER keep_piece BEFORE INSERT OR UPDATE ON opsbot.backup_pieces
    FOR EACH ROW EXECUTE FUNCTION opsbot.keep_piece();

CREATE TRIGGER keep_backups BEFORE DELETE OR TRUNCATE ON opsbot.backups
    FOR EACH STATEMENT EXECUTE FUNCTION opsbot.refuse();
CREATE TRIGGER keep_pieces BEFORE DELETE OR TRUNCATE ON opsbot.backup_pieces
    FOR EACH STATEMENT EXECUTE FUNCTION opsbot.refuse();
CREATE TRIGGER keep_proofs BEFORE UPDATE OR DELETE OR TRUNCATE ON opsbot.backup_proofs
    FOR EACH STATEMENT EXECUTE FUNCTION opsbot.refuse();

-- Whether a missing backup was said, so that it is said once and taken back once.
CREATE TABLE opsbot.backup_alarms (
    site      text NOT NULL,
    cause     text NOT NULL,
    said_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (site, cause)
);
