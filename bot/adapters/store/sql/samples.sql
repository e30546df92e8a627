-- name: sample
INSERT INTO opsbot.samples (target, question, answer) VALUES (%(target)s, %(question)s, %(answer)s)

-- name: earlier
SELECT answer FROM opsbot.samples
 WHERE target = %(target)s AND hashtextextended(question, 0) = hashtextextended(%(question)s, 0)
   AND question = %(question)s AND at BETWEEN %(after)s AND %(before)s
 ORDER BY at DESC LIMIT 1

-- name: forget
DELETE FROM opsbot.samples WHERE ctid = ANY (ARRAY (
    SELECT ctid FROM opsbot.samples WHERE at < clock_timestamp() - %(older)s::interval LIMIT %(many)s))
