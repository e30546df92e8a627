-- Requests, runs, and what a run keeps: findings, plans, evidence.

-- name: accept
-- A delivery that came before adds nothing.
INSERT INTO opsbot.requests (key, kind, body, team, "user", via)
VALUES (%(key)s, %(kind)s, %(body)s, %(team)s, %(user)s, %(via)s)
ON CONFLICT (key) DO NOTHING
RETURNING id

-- name: request
SELECT body FROM opsbot.requests WHERE id = %(request)s

-- name: count_request_try
UPDATE opsbot.requests SET tries = tries + 1 WHERE id = %(request)s RETURNING tries

-- name: start
INSERT INTO opsbot.runs
    (verb, subject, site, targets, because, team, "user", via, channel, thread, look_only, argument)
VALUES
    (%(verb)s, %(subject)s, %(site)s, %(targets)s, %(because)s, %(team)s, %(user)s, %(via)s, %(channel)s, %(thread)s,
     %(look_only)s, %(argument)s)
RETURNING id

-- name: attach
UPDATE opsbot.runs SET task = %(task)s WHERE id = %(run)s

-- name: run
SELECT * FROM opsbot.runs WHERE id = %(run)s

-- name: runs
SELECT * FROM opsbot.runs WHERE NOT %(open_only)s OR outcome IS NULL ORDER BY id DESC LIMIT %(limit)s

-- name: set_state
UPDATE opsbot.runs SET state = %(state)s WHERE id = %(run)s AND outcome IS NULL

-- name: finish
-- The first outcome stands.
UPDATE opsbot.runs
   SET state = 'ended', outcome = %(outcome)s, summary = %(summary)s, finished_at = clock_timestamp()
 WHERE id = %(run)s AND outcome IS NULL

-- name: cancel
-- Who asked first is who cancelled.
UPDATE opsbot.runs
   SET cancelled_team = coalesce(cancelled_team, %(team)s),
       cancelled_user = coalesce(cancelled_user, %(user)s),
       cancelled_via = coalesce(cancelled_via, %(via)s),
       cancelled_at = coalesce(cancelled_at, clock_timestamp())
 WHERE id = %(run)s AND outcome IS NULL
RETURNING id

-- name: count_try
UPDATE opsbot.runs SET tries = tries + 1 WHERE id = %(run)s AND outcome IS NULL RETURNING tries

-- name: tries
SELECT tries FROM opsbot.runs WHERE id = %(run)s

-- name: forget_findings
DELETE FROM opsbot.findings WHERE run_id = %(run)s AND look = %(look)s

-- name: keep_finding
INSERT INTO opsbot.findings (run_id, look, no, data) VALUES (%(run)s, %(look)s, %(no)s, %(data)s)

-- name: keep_plan
INSERT INTO opsbot.plans (run_id, no, digest, plan) VALUES (%(run)s, %(no)s, %(digest)s, %(plan)s)
ON CONFLICT (run_id, no) DO NOTHING

-- name: plan
SELECT digest, plan FROM opsbot.plans WHERE run_id = %(run)s AND no = %(no)s

-- name: keep_evidence
INSERT INTO opsbot.evidence (run_id, target, asks, text) VALUES (%(run)s, %(target)s, %(asks)s, %(text)s)

-- name: evidence
SELECT target, asks, text FROM opsbot.evidence WHERE run_id = %(run)s ORDER BY id

-- name: forget_requests
DELETE FROM opsbot.requests WHERE id IN (
    SELECT id FROM opsbot.requests WHERE at < clock_timestamp() - %(older)s::interval ORDER BY at LIMIT %(many)s)
