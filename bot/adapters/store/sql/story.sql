-- name: next_no
-- Locks the run's row, so that events of one run have an order, whoever tells them.
UPDATE opsbot.runs SET told = told + 1 WHERE id = %(run)s RETURNING told

-- name: tell
INSERT INTO opsbot.events (run_id, no, kind, data) VALUES (%(run)s, %(no)s, %(kind)s, %(data)s)

-- name: notify
SELECT pg_notify('opsbot_story', %(run)s::text)

-- name: story
SELECT run_id, no, kind, data, at FROM opsbot.events WHERE run_id = %(run)s AND no > %(after)s ORDER BY no
