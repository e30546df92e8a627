-- The part of Travis CI Enterprise 3.0's main database that opsbot meets, written from published facts: names, types,
-- defaults, indexes, the shared sequence and the trigger are the product's. The logs have a database of their own.
-- Loading it again changes nothing. Timestamps are without time zone and hold UTC.

SET client_min_messages = warning;

CREATE TABLE IF NOT EXISTS schema_migrations (version varchar NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS unique_schema_migrations ON schema_migrations (version);

CREATE SEQUENCE IF NOT EXISTS shared_builds_tasks_seq;

CREATE TABLE IF NOT EXISTS users (
    id                  serial PRIMARY KEY,
    name                varchar,
    login               varchar,
    email               varchar,
    created_at          timestamp without time zone NOT NULL,
    updated_at          timestamp without time zone NOT NULL,
    is_admin            boolean DEFAULT false,
    github_id           integer,
    github_oauth_token  varchar,
    gravatar_id         varchar,
    locale              varchar,
    is_syncing          boolean,
    synced_at           timestamp without time zone,
    github_scopes       text,
    education           boolean,
    first_logged_in_at  timestamp without time zone,
    avatar_url          varchar,
    suspended           boolean DEFAULT false,
    suspended_at        timestamp without time zone,
    org_id                  integer,
    com_id                  integer,
    migrating               boolean,
    migrated_at             timestamp without time zone,
    redacted_at             timestamp without time zone,
    preferences             jsonb DEFAULT '{}'::jsonb,
    vcs_type                varchar DEFAULT 'GithubUser',
    vcs_id                  varchar,
    confirmed_at            timestamp without time zone,
    token_expires_at        timestamp without time zone,
    confirmation_token      varchar
);
CREATE UNIQUE INDEX IF NOT EXISTS index_users_on_github_id ON users (github_id);
CREATE UNIQUE INDEX IF NOT EXISTS index_users_on_github_oauth_token ON users (github_oauth_token);
CREATE INDEX IF NOT EXISTS index_users_on_login ON users (login);
CREATE INDEX IF NOT EXISTS index_users_on_lower_login ON users (lower(login::text));
CREATE INDEX IF NOT EXISTS index_users_on_updated_at ON users (updated_at);
CREATE UNIQUE INDEX IF NOT EXISTS index_users_on_org_id ON users (org_id);
CREATE UNIQUE INDEX IF NOT EXISTS index_users_on_com_id ON users (com_id);
CREATE INDEX IF NOT EXISTS index_users_on_vcs_type_and_vcs_id ON users (vcs_type, vcs_id);

CREATE TABLE IF NOT EXISTS organizations (
    id                  serial PRIMARY KEY,
    name                varchar,
    login               varchar,
    github_id           integer,
    created_at          timestamp without time zone NOT NULL,
    updated_at          timestamp without time zone NOT NULL,
    avatar_url          varchar,
    location            varchar,
    email               varchar,
    company             varchar,
    homepage            varchar,
    billing_admin_only  boolean,
    org_id                  integer,
    com_id                  integer,
    migrating               boolean,
    migrated_at             timestamp without time zone,
    preferences             jsonb DEFAULT '{}'::jsonb,
    beta_migration_request_id integer,
    vcs_type                varchar DEFAULT 'GithubOrganization',
    vcs_id                  varchar
);
CREATE UNIQUE INDEX IF NOT EXISTS index_organizations_on_github_id ON organizations (github_id);
CREATE INDEX IF NOT EXISTS index_organizations_on_login ON organizations (login);
CREATE INDEX IF NOT EXISTS index_organizations_on_lower_login ON organizations (lower(login::text));

CREATE TABLE IF NOT EXISTS memberships (
    id                  serial PRIMARY KEY,
    organization_id     integer,
    user_id             integer,
    role                varchar,
    build_permission        boolean
);
CREATE INDEX IF NOT EXISTS index_memberships_on_user_id ON memberships (user_id);

CREATE TABLE IF NOT EXISTS repositories (
    id                      serial PRIMARY KEY,
    name                    varchar,
    url                     varchar,
    created_at              timestamp without time zone NOT NULL,
    updated_at              timestamp without time zone NOT NULL,
    last_build_id           bigint,
    last_build_number       varchar,
    last_build_started_at   timestamp without time zone,
    last_build_finished_at  timestamp without time zone,
    owner_name              varchar,
    owner_email             text,
    active                  boolean,
    description             text,
    last_build_duration     integer,
    owner_id                integer,
    owner_type              varchar,
    private                 boolean DEFAULT false,
    last_build_state        varchar,
    github_id               integer,
    default_branch          varchar,
    github_language         varchar,
    settings                json,
    next_build_number       integer,
    invalidated_at          timestamp without time zone,
    current_build_id        bigint,
    org_id                  integer,
    com_id                  integer,
    migration_status        varchar,
    managed_by_installation_at timestamp without time zone,
    vcs_type                varchar DEFAULT 'GithubRepository',
    vcs_id                  varchar,
    vcs_slug                varchar,
    vcs_source_host         varchar,
    server_type             varchar
);
CREATE UNIQUE INDEX IF NOT EXISTS index_repositories_on_github_id ON repositories (github_id);
CREATE INDEX IF NOT EXISTS index_repositories_on_active ON repositories (active);
CREATE INDEX IF NOT EXISTS index_repositories_on_name ON repositories (name);
CREATE INDEX IF NOT EXISTS index_repositories_on_owner_name ON repositories (owner_name);
CREATE INDEX IF NOT EXISTS index_repositories_on_owner_id ON repositories (owner_id);

CREATE TABLE IF NOT EXISTS requests (
    id                  serial PRIMARY KEY,
    repository_id       integer,
    commit_id           integer,
    state               varchar,
    source              varchar,
    payload             text,
    token               varchar,
    started_at          timestamp without time zone,
    finished_at         timestamp without time zone,
    created_at          timestamp without time zone NOT NULL,
    updated_at          timestamp without time zone NOT NULL,
    event_type          varchar,
    comments_url        varchar,
    base_commit         varchar,
    head_commit         varchar,
    owner_id            integer,
    owner_type          varchar,
    result              varchar,
    message             varchar,
    private             boolean,
    sender_type         varchar,
    sender_id           integer,
    github_guid         text,
    org_id                  integer,
    com_id                  integer,
    pull_request_id         integer,
    branch_id               integer,
    tag_id                  integer,
    config_id               integer
);
CREATE UNIQUE INDEX IF NOT EXISTS index_requests_on_github_guid ON requests (github_guid);
CREATE INDEX IF NOT EXISTS index_requests_on_created_at ON requests (created_at);
CREATE INDEX IF NOT EXISTS index_requests_on_repository_id ON requests (repository_id);

CREATE TABLE IF NOT EXISTS builds (
    id                      bigint DEFAULT nextval('shared_builds_tasks_seq'::regclass) PRIMARY KEY,
    repository_id           integer,
    number                  varchar,
    started_at              timestamp without time zone,
    finished_at             timestamp without time zone,
    created_at              timestamp without time zone NOT NULL,
    updated_at              timestamp without time zone NOT NULL,
    commit_id               integer,
    request_id              integer,
    state                   varchar,
    duration                integer,
    owner_id                integer,
    owner_type              varchar,
    event_type              varchar,
    previous_state          varchar,
    pull_request_title      text,
    pull_request_number     integer,
    branch                  varchar,
    canceled_at             timestamp without time zone,
    cached_matrix_ids       integer[],
    received_at             timestamp without time zone,
    private                 boolean,
    sender_type             varchar,
    sender_id               integer,
    org_id                  integer,
    com_id                  integer,
    config_id               integer,
    restarted_at            timestamp without time zone,
    unique_number           integer,
    pull_request_id         integer,
    branch_id               integer,
    tag_id                  integer
);
CREATE INDEX IF NOT EXISTS index_builds_on_repository_id_and_number ON builds (repository_id, ((number)::integer));
CREATE INDEX IF NOT EXISTS index_builds_on_request_id ON builds (request_id);
CREATE INDEX IF NOT EXISTS index_builds_on_state ON builds (state);

CREATE TABLE IF NOT EXISTS jobs (
    id                  bigint DEFAULT nextval('shared_builds_tasks_seq'::regclass) PRIMARY KEY,
    repository_id       integer,
    commit_id           integer,
    source_id           integer,
    source_type         varchar,
    queue               varchar,
    type                varchar,
    state               varchar,
    number              varchar,
    log                 text DEFAULT '',
    worker              varchar,
    started_at          timestamp without time zone,
    finished_at         timestamp without time zone,
    created_at          timestamp without time zone NOT NULL,
    updated_at          timestamp without time zone NOT NULL,
    tags                text,
    allow_failure       boolean DEFAULT false,
    owner_id            integer,
    owner_type          varchar,
    result              integer,
    queued_at           timestamp without time zone,
    canceled_at         timestamp without time zone,
    received_at         timestamp without time zone,
    debug_options       text,
    private             boolean,
    stage_number        varchar,
    stage_id            integer,
    org_id                  integer,
    com_id                  integer,
    config_id               integer,
    restarted_at            timestamp without time zone,
    restarted_by            integer,
    priority                integer
);
CREATE INDEX IF NOT EXISTS index_jobs_on_state ON jobs (state);
CREATE INDEX IF NOT EXISTS index_jobs_on_created_at ON jobs (created_at);
CREATE INDEX IF NOT EXISTS index_jobs_on_updated_at ON jobs (updated_at);
CREATE INDEX IF NOT EXISTS index_created_jobs_on_repository_id_order_by_newest
    ON jobs (repository_id, id DESC) WHERE state = 'created';
CREATE INDEX IF NOT EXISTS index_queued_jobs_on_repository_id_order_by_newest
    ON jobs (repository_id, id DESC) WHERE state = 'queued';
CREATE INDEX IF NOT EXISTS index_received_jobs_on_repository_id_order_by_newest
    ON jobs (repository_id, id DESC) WHERE state = 'received';
CREATE INDEX IF NOT EXISTS index_started_jobs_on_repository_id_order_by_newest
    ON jobs (repository_id, id DESC) WHERE state = 'started';
CREATE INDEX IF NOT EXISTS index_jobs_on_owner_where_state_running
    ON jobs (owner_id, owner_type) WHERE state IN ('queued', 'received', 'started');
CREATE INDEX IF NOT EXISTS index_jobs_on_repository_id_where_state_running
    ON jobs (repository_id) WHERE state IN ('queued', 'received', 'started');
CREATE INDEX IF NOT EXISTS index_jobs_on_owner_id_and_owner_type_and_state ON jobs (owner_id, owner_type, state);
CREATE INDEX IF NOT EXISTS index_jobs_on_source_id_source_type ON jobs (source_id, source_type);
CREATE INDEX IF NOT EXISTS index_jobs_on_type_and_source_id_and_source_type ON jobs (type, source_id, source_type);

CREATE TABLE IF NOT EXISTS queueable_jobs (
    id      serial PRIMARY KEY,
    job_id  integer
);
CREATE INDEX IF NOT EXISTS index_queueable_jobs_on_job_id ON queueable_jobs (job_id);

-- updated_at is the trigger's alone, in the session's time zone. Who writes a past (a seed, a fault) says so by
-- `SET LOCAL travis.past = on`; the product's own trigger has no such way around it.
CREATE OR REPLACE FUNCTION set_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('travis.past', true) = 'on' THEN
        RETURN NEW;
    END IF;
    IF TG_OP = 'INSERT' OR NEW.* IS DISTINCT FROM OLD.* THEN
        NEW.updated_at := statement_timestamp();
    END IF;
    RETURN NEW;
END $$;

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgname = 'set_updated_at_on_jobs') THEN
        CREATE TRIGGER set_updated_at_on_jobs BEFORE INSERT OR UPDATE ON jobs
            FOR EACH ROW EXECUTE PROCEDURE set_updated_at();
    END IF;
    IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgname = 'set_updated_at_on_builds') THEN
        CREATE TRIGGER set_updated_at_on_builds BEFORE INSERT OR UPDATE ON builds
            FOR EACH ROW EXECUTE PROCEDURE set_updated_at();
    END IF;
END $$;

-- One number per build and repository, whoever hands them out.
CREATE OR REPLACE FUNCTION set_unique_number() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.unique_number := CASE WHEN NEW.number ~ '^[0-9]+$' THEN NEW.number::integer END;
    RETURN NEW;
END $$;

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgname = 'set_unique_number_on_builds') THEN
        CREATE TRIGGER set_unique_number_on_builds BEFORE INSERT OR UPDATE ON builds
            FOR EACH ROW EXECUTE PROCEDURE set_unique_number();
    END IF;
END $$;

INSERT INTO schema_migrations (version)
SELECT version FROM (VALUES
    ('20101126174706'), ('20170822171600'), ('20180801000001'), ('20190109181030'),
    ('20200316085738'), ('20221128000001')) AS v (version)
ON CONFLICT DO NOTHING;
