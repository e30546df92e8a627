-- name: take
-- In order, so that two runs which want the same never wait for each other; waits while another transaction decides.
INSERT INTO opsbot.locks (key, run_id)
SELECT key, %(run)s FROM unnest(%(keys)s::text[]) AS wanted (key) ORDER BY key
ON CONFLICT (key) DO NOTHING

-- name: holder
-- Locks the row that is in our way: whoever frees it waits until we are remembered as waiting.
SELECT key, run_id FROM opsbot.locks
 WHERE key = ANY (%(keys)s::text[]) AND run_id <> %(run)s
 ORDER BY key LIMIT 1
   FOR SHARE

-- name: missing
SELECT count(*) AS missing FROM unnest(%(keys)s::text[]) AS wanted (key)
 WHERE NOT EXISTS (SELECT FROM opsbot.locks l WHERE l.key = wanted.key AND l.run_id = %(run)s)

-- name: wait
INSERT INTO opsbot.lock_waiters (key, run_id)
SELECT key, %(run)s FROM unnest(%(keys)s::text[]) AS wanted (key) ORDER BY key
ON CONFLICT DO NOTHING

-- name: stop_waiting
DELETE FROM opsbot.lock_waiters WHERE run_id = %(run)s

-- name: free
DELETE FROM opsbot.locks WHERE run_id = %(run)s RETURNING key

-- name: waiting
SELECT DISTINCT r.task::text AS task
  FROM opsbot.lock_waiters w JOIN opsbot.runs r ON r.id = w.run_id
 WHERE w.key = ANY (%(keys)s) AND r.task IS NOT NULL AND r.outcome IS NULL
 ORDER BY task

-- name: held
SELECT key FROM opsbot.locks WHERE run_id = %(run)s ORDER BY key
