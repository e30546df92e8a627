-- The simulated machines' clock, which may stand still or run faster than outside: what now() says in every session
-- of the database, since this schema comes before pg_catalog. CURRENT_TIMESTAMP cannot be told.
CREATE SCHEMA IF NOT EXISTS clock;
CREATE TABLE IF NOT EXISTS clock.reading (read timestamptz NOT NULL, shows timestamptz NOT NULL, speed float NOT NULL);

CREATE OR REPLACE FUNCTION clock.shown(at timestamptz) RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT coalesce((SELECT shows + (at - read) * speed FROM clock.reading), at)
$$;
CREATE OR REPLACE FUNCTION clock.now() RETURNS timestamptz LANGUAGE sql STABLE AS
    'SELECT clock.shown(pg_catalog.now())';
CREATE OR REPLACE FUNCTION clock.transaction_timestamp() RETURNS timestamptz LANGUAGE sql STABLE AS
    'SELECT clock.shown(pg_catalog.now())';
CREATE OR REPLACE FUNCTION clock.statement_timestamp() RETURNS timestamptz LANGUAGE sql STABLE AS
    'SELECT clock.shown(pg_catalog.statement_timestamp())';
CREATE OR REPLACE FUNCTION clock.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS
    'SELECT clock.shown(pg_catalog.clock_timestamp())';
