-- name: intend
INSERT INTO opsbot.changes (run_id, change_no, ask_no, attempt, shown)
VALUES (%(run)s, %(change)s, %(ask)s, %(attempt)s, %(shown)s)
ON CONFLICT (run_id, change_no, ask_no) DO NOTHING
RETURNING ask_no

-- name: newest
SELECT attempt, ask_no, result FROM opsbot.changes
 WHERE run_id = %(run)s AND change_no = %(change)s
 ORDER BY ask_no DESC LIMIT 1

-- name: settle
-- A result that stands is never overwritten.
UPDATE opsbot.changes SET result = %(result)s, settled_at = clock_timestamp()
 WHERE run_id = %(run)s AND change_no = %(change)s AND ask_no = %(ask)s AND result IS NULL

-- name: one
SELECT result FROM opsbot.changes WHERE run_id = %(run)s AND change_no = %(change)s AND ask_no = %(ask)s
