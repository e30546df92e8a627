-- Writing letters, and serving them one channel at a time.

-- name: status
-- One pending letter per run; a version more when it waits already, since it may be on its way out just now.
INSERT INTO opsbot.outbox AS o (channel, kind, run_id)
SELECT channel, 'status', id FROM opsbot.runs WHERE id = %(run)s AND channel IS NOT NULL
ON CONFLICT (run_id) WHERE kind = 'status' AND state = 'pending' DO UPDATE SET version = o.version + 1

-- name: note
INSERT INTO opsbot.outbox (channel, kind, run_id, body)
SELECT channel, 'note', id, %(body)s FROM opsbot.runs WHERE id = %(run)s AND channel IS NOT NULL

-- name: post
INSERT INTO opsbot.outbox (channel, kind, thread, body) VALUES (%(channel)s, 'note', %(thread)s, %(body)s)

-- name: approval
-- In the run's channel; a run from the command line has none, so its question stands in another.
INSERT INTO opsbot.outbox AS o (channel, kind, run_id, approval_id)
SELECT coalesce(r.channel, %(else_channel)s), 'approval', r.id, a.id
  FROM opsbot.approvals a JOIN opsbot.runs r ON r.id = a.run_id
 WHERE a.id = %(approval)s AND coalesce(r.channel, %(else_channel)s) IS NOT NULL
ON CONFLICT (approval_id) WHERE kind = 'approval' AND state = 'pending' DO UPDATE SET version = o.version + 1

-- name: pointer
INSERT INTO opsbot.outbox (channel, kind, run_id, approval_id)
SELECT %(approvals_channel)s, 'pointer', r.id, a.id
  FROM opsbot.approvals a JOIN opsbot.runs r ON r.id = a.run_id
 WHERE a.id = %(approval)s AND r.channel IS NOT NULL AND r.channel <> %(approvals_channel)s

-- name: announcement
INSERT INTO opsbot.outbox (channel, kind, body) VALUES (%(channel)s, 'note', %(body)s)

-- name: private
INSERT INTO opsbot.outbox (channel, kind, "user", thread, body)
VALUES (%(channel)s, 'private', %(user)s, %(thread)s, %(body)s)

-- name: unheard
-- A user's id is a channel to Slack. Each letter of a run dies of the same; its person is told of the first.
INSERT INTO opsbot.outbox (channel, kind, run_id, "user", body)
SELECT %(user)s, 'private', %(run)s, %(user)s, %(body)s
 WHERE NOT EXISTS (SELECT FROM opsbot.outbox WHERE kind = 'private' AND run_id = %(run)s AND channel = %(user)s)

-- name: notify
SELECT pg_notify('opsbot_outbox', '')

-- name: due_channels
-- The channels with a letter that may go out now, the one that waits longest first.
SELECT o.channel
  FROM opsbot.outbox o LEFT JOIN opsbot.channels c ON c.channel = o.channel
 WHERE o.state = 'pending' AND coalesce(c.due_at, '-infinity') <= clock_timestamp()
 GROUP BY o.channel
 ORDER BY min(o.id)

-- name: serve
-- Session locks, no transaction: nobody waits for Slack, and a lock dies with its connection.
SELECT pg_try_advisory_lock(%(space)s, hashtext(%(channel)s)) AS mine

-- name: leave
SELECT pg_advisory_unlock(%(space)s, hashtext(%(channel)s))

-- name: next
SELECT o.*, r.thread AS run_thread, p.channel AS post_channel, p.ts AS post_ts
  FROM opsbot.outbox o
  LEFT JOIN opsbot.channels c ON c.channel = o.channel
  LEFT JOIN opsbot.runs r ON r.id = o.run_id AND r.channel = o.channel
  LEFT JOIN opsbot.posts p ON p.kind = o.kind AND p.ref = CASE o.kind WHEN 'status' THEN o.run_id
                                                                      WHEN 'approval' THEN o.approval_id END
 WHERE o.channel = %(channel)s AND o.state = 'pending' AND coalesce(c.due_at, '-infinity') <= clock_timestamp()
 -- A thousand answers to a thousand clicks do not keep the run's news waiting; nor does the news starve an answer.
 ORDER BY o.kind = 'private' AND o.created_at > clock_timestamp() - interval '10 seconds', o.id
 LIMIT 1

-- name: sent
-- A letter that was told more since it was taken stays: what went out was older than the rows.
UPDATE opsbot.outbox
   SET state = CASE WHEN version = %(version)s THEN 'sent' ELSE 'pending' END,
       done_at = CASE WHEN version = %(version)s THEN clock_timestamp() END
 WHERE id = %(letter)s AND state = 'pending'

-- name: posted
INSERT INTO opsbot.posts (kind, ref, channel, ts) VALUES (%(kind)s, %(ref)s, %(channel)s, %(ts)s)
ON CONFLICT (kind, ref) DO UPDATE SET channel = excluded.channel, ts = excluded.ts

-- name: thread
UPDATE opsbot.runs SET thread = %(ts)s WHERE id = %(run)s AND thread IS NULL AND channel = %(channel)s

-- name: later
UPDATE opsbot.outbox SET tries = tries + %(tried)s, why = %(why)s WHERE id = %(letter)s AND state = 'pending'

-- name: delay
INSERT INTO opsbot.channels (channel, due_at)
VALUES (%(channel)s, clock_timestamp() + make_interval(secs => %(seconds)s))
ON CONFLICT (channel) DO UPDATE SET due_at = excluded.due_at

-- name: dead
UPDATE opsbot.outbox
   SET state = 'dead', done_at = clock_timestamp(), tries = tries + 1, why = %(why)s
 WHERE id = %(letter)s AND state = 'pending'

-- name: dead_letters
SELECT * FROM opsbot.outbox WHERE state = 'dead' ORDER BY id DESC LIMIT %(limit)s

-- name: next_due
SELECT extract(epoch FROM min(c.due_at) - clock_timestamp())::double precision AS seconds
  FROM opsbot.channels c
 WHERE EXISTS (SELECT FROM opsbot.outbox o WHERE o.channel = c.channel AND o.state = 'pending')

-- name: forget
DELETE FROM opsbot.outbox WHERE id IN (
    SELECT id FROM opsbot.outbox
     WHERE state = 'sent' AND done_at < clock_timestamp() - %(older)s::interval ORDER BY done_at LIMIT %(many)s)
