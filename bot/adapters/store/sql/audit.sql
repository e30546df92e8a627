-- name: lock
SELECT pg_advisory_xact_lock(%(lock)s)

-- name: last
SELECT no, mac FROM opsbot.audit ORDER BY no DESC LIMIT 1

-- name: now
SELECT clock_timestamp() AS at

-- name: append
INSERT INTO opsbot.audit (no, at, what, team, "user", via, detail, mac)
VALUES (%(no)s, %(at)s, %(what)s, %(team)s, %(user)s, %(via)s, %(detail)s, %(mac)s)

-- name: all
SELECT no, at, what, team, "user", via, detail, mac FROM opsbot.audit WHERE no > %(after)s ORDER BY no LIMIT %(many)s
