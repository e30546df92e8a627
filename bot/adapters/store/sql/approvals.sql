-- name: put
INSERT INTO opsbot.approvals
    (run_id, no, kind, digest, needs, expires_at, title, text, rule, nonce, requester_team, requester_user,
     requester_via)
VALUES
    (%(run)s, %(no)s, %(kind)s, %(digest)s, %(needs)s, %(expires)s, %(title)s, %(text)s, %(rule)s, %(nonce)s,
     %(team)s, %(user)s, %(via)s)
ON CONFLICT (run_id, no) DO NOTHING
RETURNING id

-- name: lock_run
-- The run's row is locked before its approval, as everyone who tells its story does.
SELECT r.id FROM opsbot.runs r WHERE r.id = (SELECT run_id FROM opsbot.approvals WHERE id = %(approval)s)
   FOR NO KEY UPDATE

-- name: by_id
SELECT * FROM opsbot.approvals WHERE id = %(approval)s

-- name: by_no
SELECT * FROM opsbot.approvals WHERE run_id = %(run)s AND no = %(no)s

-- name: open_asks
SELECT id FROM opsbot.approvals WHERE run_id = %(run)s AND state = 'open' ORDER BY no

-- name: decisions
SELECT team, "user", via, verdict FROM opsbot.decisions WHERE approval_id = %(approval)s ORDER BY id

-- name: decide
-- The one UPDATE that decides. Everything it checks is of the row it locks, so clicks at the same moment come one after
-- the other; plans never change. A button must carry the nonce, and stand in the message that the first valid click
-- bound. Typed words (command line, mention) point at no message and have no nonce; their sender is known all the same.
UPDATE opsbot.approvals a
   SET voters = a.voters || %(voter)s::text,
       state = CASE WHEN %(verdict)s = 'approve' AND cardinality(a.voters) + 1 < a.needs THEN 'open'
                    ELSE %(verdict)s END,
       decided_at = CASE WHEN %(verdict)s = 'approve' AND cardinality(a.voters) + 1 < a.needs THEN NULL
                         ELSE clock_timestamp() END,
       reason = %(reason)s,
       channel = coalesce(a.channel, %(channel)s::text),
       thread = CASE WHEN a.channel IS NULL THEN %(thread)s::text ELSE a.thread END,
       message = coalesce(a.message, %(message)s::text)
 WHERE a.id = %(approval)s
   AND a.state = 'open'
   AND a.expires_at > clock_timestamp()
   AND %(verdict)s = ANY (CASE a.kind WHEN 'plan' THEN '{approve,decline}'::text[]
                                      WHEN 'hand' THEN '{done,stop}' ELSE '{done,again,stop}' END)
   AND (%(verdict)s <> ALL ('{approve,decline,again}') OR a.requester_team || '/' || a.requester_user <> %(voter)s)
   AND (%(verdict)s <> ALL ('{approve,decline,again}') OR NOT EXISTS (
        SELECT FROM opsbot.parties p WHERE p.run_id = a.run_id AND p.team || '/' || p."user" = %(voter)s))
   AND %(voter)s <> ALL (a.voters)
   AND (a.nonce = %(nonce)s::text OR %(nonce)s::text IS NULL AND %(message)s::text IS NULL)
   AND (%(message)s::text IS NULL OR a.message IS NULL
        OR (a.channel, a.message) = (%(channel)s::text, %(message)s::text))
   AND (a.kind <> 'plan' OR EXISTS (
        SELECT FROM opsbot.plans p WHERE p.run_id = a.run_id AND p.digest = a.digest))
RETURNING id

-- name: keep_decision
INSERT INTO opsbot.decisions (approval_id, team, "user", via, verdict, reason, members)
VALUES (%(approval)s, %(team)s, %(user)s, %(via)s, %(verdict)s, %(reason)s, %(members)s)

-- name: add_party
INSERT INTO opsbot.parties (run_id, team, "user") VALUES (%(run)s, %(team)s, %(user)s)
ON CONFLICT DO NOTHING RETURNING run_id

-- name: parts
SELECT 'asked' AS part FROM opsbot.runs WHERE id = %(run)s AND (team, "user") = (%(team)s, %(user)s)
UNION
SELECT 'typed' FROM opsbot.parties WHERE run_id = %(run)s AND (team, "user") = (%(team)s, %(user)s)
UNION
SELECT 'decided' FROM opsbot.decisions d JOIN opsbot.approvals a ON a.id = d.approval_id
 WHERE a.run_id = %(run)s AND (d.team, d."user") = (%(team)s, %(user)s)

-- name: expire
UPDATE opsbot.approvals SET state = 'expire', decided_at = clock_timestamp()
 WHERE id = %(approval)s AND state = 'open' AND expires_at <= clock_timestamp()
RETURNING id

-- name: withdraw
UPDATE opsbot.approvals SET state = %(verdict)s, decided_at = clock_timestamp()
 WHERE id = %(approval)s AND state = 'open'
RETURNING id
