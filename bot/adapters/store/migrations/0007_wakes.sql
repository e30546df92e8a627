-- A wake that a claim has seen is not taken for a new one.

-- `seen` is read in a statement of its own, after the claim: whoever was woken by a wake sees it counted. Read by the
-- claim's own statement it was older, and the next sleep took that wake for another one.
CREATE OR REPLACE FUNCTION opsbot.claim(p_worker text, p_lease integer, p_many integer)
    RETURNS TABLE (run_id uuid, task_id uuid, attempt integer, name text, params jsonb, seen bigint)
    LANGUAGE plpgsql AS $$
DECLARE
    v record;
BEGIN
    FOR v IN SELECT * FROM absurd.claim_task('opsbot', p_worker, p_lease, p_many) LOOP
        RETURN QUERY SELECT v.run_id, v.task_id, v.attempt, v.task_name, v.params,
                            coalesce((SELECT w.no FROM opsbot.wakes w WHERE w.task_id = v.task_id), 0);
    END LOOP;
END $$;
