-- Durable tasks: absurd's functions, in the order and with the checks that opsbot relies on.
-- A claim is (run_id, worker): absurd's run id stays the same when a task slept or was given back, so a worker's name is
-- new for each claim, and `hold` compares both.

CREATE TABLE opsbot.wakes (
    task_id  uuid PRIMARY KEY,
    no       bigint NOT NULL DEFAULT 0,         -- one more for each wake and each sleep
    asleep   boolean NOT NULL DEFAULT false     -- `<task>:<no>` is awaited
);

CREATE FUNCTION opsbot.spawn(p_name text, p_params jsonb, p_key text) RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
    v record;
BEGIN
    -- No limit of attempts: a takeover is an attempt too. No cancellation policy: a task that absurd cancels is never
    -- claimed again, so nobody would free its locks.
    SELECT * INTO v FROM absurd.spawn_task('opsbot', p_name, p_params, jsonb_build_object('idempotency_key', p_key));
    IF NOT v.created THEN
        RETURN NULL;
    END IF;
    INSERT INTO opsbot.wakes (task_id) VALUES (v.task_id);
    PERFORM pg_notify('opsbot_work', v.task_id::text);
    RETURN v.task_id;
END $$;

-- The number `seen` comes from before the claim: whatever a wake committed with it is visible to all that follows.
CREATE FUNCTION opsbot.claim(p_worker text, p_lease integer, p_many integer)
    RETURNS TABLE (run_id uuid, task_id uuid, attempt integer, name text, params jsonb, seen bigint)
    LANGUAGE sql AS $$
    WITH claimed AS MATERIALIZED (SELECT * FROM absurd.claim_task('opsbot', p_worker, p_lease, p_many))
    SELECT c.run_id, c.task_id, c.attempt, c.task_name, c.params, coalesce(w.no, 0)
      FROM claimed c LEFT JOIN opsbot.wakes w ON w.task_id = c.task_id
$$;

-- Seconds until a lease ends, a sleep is over or work is there; null when nothing is under way.
CREATE FUNCTION opsbot.next_due() RETURNS double precision LANGUAGE sql AS $$
    SELECT extract(epoch FROM least(
        (SELECT min(claim_expires_at) FROM absurd.r_opsbot WHERE state = 'running' AND claim_expires_at IS NOT NULL),
        (SELECT min(available_at) FROM absurd.r_opsbot WHERE state = 'pending'),
        (SELECT min(available_at) FROM absurd.r_opsbot WHERE state = 'sleeping' AND available_at < 'infinity')
    ) - clock_timestamp())::double precision
$$;

-- Lock and extend the lease; whatever the transaction writes then happens only while the lease is this claim's.
CREATE FUNCTION opsbot.hold(p_run uuid, p_worker text, p_lease integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM absurd.extend_claim('opsbot', p_run, p_lease);
    PERFORM FROM absurd.r_opsbot WHERE run_id = p_run AND claimed_by = p_worker;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'run % is held by another worker', p_run USING ERRCODE = 'AB002';
    END IF;
END $$;

-- Extend many claims; returns those that are lost. A row that is locked is being written to by its own commit,
-- which extends it too.
CREATE FUNCTION opsbot.beat(p_runs uuid[], p_workers text[], p_lease integer) RETURNS SETOF uuid LANGUAGE plpgsql AS $$
DECLARE
    v record;
BEGIN
    FOR v IN SELECT run, worker FROM unnest(p_runs, p_workers) AS held (run, worker) ORDER BY run LOOP
        PERFORM FROM absurd.r_opsbot WHERE run_id = v.run AND state = 'running' AND claimed_by = v.worker;
        IF NOT FOUND THEN
            RETURN NEXT v.run;
            CONTINUE;
        END IF;
        PERFORM FROM absurd.r_opsbot WHERE run_id = v.run AND state = 'running' AND claimed_by = v.worker
            FOR UPDATE SKIP LOCKED;
        IF FOUND THEN
            PERFORM absurd.extend_claim('opsbot', v.run, p_lease);
        END IF;
    END LOOP;
END $$;

-- Sleep in a transaction that holds the claim. A wake since `seen` may be about rows that the run has not looked at:
-- then it is due again at once. The name is new for each sleep, because absurd remembers names that ended by time.
CREATE FUNCTION opsbot.sleep(p_run uuid, p_task uuid, p_seen bigint, p_until timestamptz) RETURNS void
    LANGUAGE plpgsql AS $$
DECLARE
    v_no bigint;
    v_seconds integer := least(ceil(extract(epoch FROM p_until - clock_timestamp())), 2000000000);
BEGIN
    SELECT no INTO STRICT v_no FROM opsbot.wakes WHERE task_id = p_task FOR UPDATE;
    IF v_no <> p_seen THEN
        PERFORM absurd.schedule_run('opsbot', p_run, clock_timestamp());
        PERFORM pg_notify('opsbot_work', p_task::text);
        RETURN;
    ELSIF v_seconds <= 0 THEN
        -- Over by this clock, not yet by that of the process: it must not turn in circles until they agree.
        PERFORM absurd.schedule_run('opsbot', p_run, clock_timestamp() + interval '0.1 s');
        RETURN;
    END IF;
    v_no := v_no + 1;
    UPDATE opsbot.wakes SET no = v_no, asleep = true WHERE task_id = p_task;
    PERFORM absurd.await_event('opsbot', p_task, p_run, '$sleep:' || v_no, p_task || ':' || v_no, v_seconds);
END $$;

-- Wake a task, asleep or not. One that has ended has no row any more.
CREATE FUNCTION opsbot.wake(p_task uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v opsbot.wakes;
BEGIN
    SELECT * INTO v FROM opsbot.wakes WHERE task_id = p_task FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    UPDATE opsbot.wakes SET no = v.no + 1, asleep = false WHERE task_id = p_task;
    IF v.asleep THEN
        PERFORM absurd.emit_event('opsbot', p_task || ':' || v.no);
    END IF;
    PERFORM pg_notify('opsbot_work', p_task::text);
END $$;

CREATE FUNCTION opsbot.complete(p_run uuid, p_task uuid, p_worker text, p_lease integer) RETURNS void
    LANGUAGE plpgsql AS $$
BEGIN
    PERFORM opsbot.hold(p_run, p_worker, p_lease);
    PERFORM absurd.complete_run('opsbot', p_run);
    DELETE FROM opsbot.wakes WHERE task_id = p_task;
END $$;

-- Give the lease back, so that any worker may go on at `until`.
CREATE FUNCTION opsbot.give_back(p_run uuid, p_task uuid, p_worker text, p_lease integer, p_until timestamptz)
    RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM opsbot.hold(p_run, p_worker, p_lease);
    PERFORM absurd.schedule_run('opsbot', p_run, p_until);
    PERFORM pg_notify('opsbot_work', p_task::text);
END $$;
