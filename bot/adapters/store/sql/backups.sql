-- Backups, their pieces, and what proves them.

-- name: begin
-- The same run again continues the backup that it has begun.
INSERT INTO opsbot.backups (site, what, run_id, folder) VALUES (%(site)s, %(what)s, %(run)s, %(folder)s)
ON CONFLICT (run_id) DO UPDATE SET run_id = opsbot.backups.run_id
RETURNING id

-- name: add
INSERT INTO opsbot.backup_pieces
    (backup_id, kind, name, key, plain, stored, sha256, packed, fingerprint, warnings, began_at, ended_at,
     rows)
VALUES
    (%(backup)s, %(kind)s, %(name)s, %(key)s, %(plain)s, %(stored)s, %(sha256)s, %(packed)s, %(fingerprint)s,
     %(warnings)s, %(began)s, %(ended)s, %(rows)s)
RETURNING id

-- name: prove
INSERT INTO opsbot.backup_proofs (piece_id, kind, passed, said) VALUES (%(piece)s, %(kind)s, %(passed)s, %(said)s)

-- name: seal
UPDATE opsbot.backups SET manifest = %(manifest)s, sealed_at = clock_timestamp()
 WHERE id = %(backup)s AND sealed_at IS NULL

-- name: backups
-- The newest first; `open` while its run goes on.
SELECT backup.*, run.outcome IS NULL AS open, run.finished_at AS over
  FROM opsbot.backups AS backup JOIN opsbot.runs AS run ON run.id = run_id
 WHERE (%(site)s = '' OR backup.site = %(site)s) AND (%(gone)s OR backup.gone_at IS NULL)
 ORDER BY backup.id DESC LIMIT %(limit)s

-- name: half_gone
-- Given up, and not all of it is known to have left the store.
SELECT backup.*, run.outcome IS NULL AS open, run.finished_at AS over
  FROM opsbot.backups AS backup JOIN opsbot.runs AS run ON run.id = run_id
 WHERE backup.site = %(site)s AND backup.gone_at IS NOT NULL
   AND EXISTS (SELECT FROM opsbot.backup_pieces AS piece WHERE piece.backup_id = backup.id AND piece.gone_at IS NULL)
 ORDER BY backup.id

-- name: backup
SELECT backup.*, run.outcome IS NULL AS open, run.finished_at AS over
  FROM opsbot.backups AS backup JOIN opsbot.runs AS run ON run.id = run_id
 WHERE backup.id = %(backup)s

-- name: last_backup
-- The newest complete one of everything; only where there never was one, of anything.
SELECT backup.*, run.outcome IS NULL AS open, run.finished_at AS over
  FROM opsbot.backups AS backup JOIN opsbot.runs AS run ON run.id = run_id
 WHERE backup.site = %(site)s AND backup.sealed_at IS NOT NULL
 ORDER BY (backup.what = 'all') DESC, backup.id DESC LIMIT 1

-- name: pieces
SELECT * FROM opsbot.backup_pieces WHERE backup_id = ANY (%(backups)s) ORDER BY id

-- name: proofs
SELECT * FROM opsbot.newest_proofs WHERE piece_id = ANY (%(pieces)s) ORDER BY id

-- name: last_piece
-- The newest piece of this kind and name in a complete backup: how large it was, how long it took.
SELECT piece.* FROM opsbot.backup_pieces AS piece JOIN opsbot.backups AS backup ON backup.id = piece.backup_id
 WHERE backup.site = %(site)s AND piece.kind = %(kind)s AND piece.name = %(name)s AND backup.sealed_at IS NOT NULL
 ORDER BY piece.id DESC LIMIT 1

-- name: give_up
UPDATE opsbot.backups SET gone_at = clock_timestamp() WHERE id = %(backup)s AND gone_at IS NULL RETURNING id

-- name: give_up_piece
UPDATE opsbot.backup_pieces SET gone_at = clock_timestamp() WHERE id = %(piece)s AND gone_at IS NULL RETURNING key

-- name: living
-- Every key of the store that a row still stands for; those of a backup that is being taken too.
SELECT piece.key FROM opsbot.backup_pieces AS piece WHERE piece.gone_at IS NULL
UNION
SELECT manifest FROM opsbot.backups WHERE gone_at IS NULL AND manifest IS NOT NULL

-- name: alarm
INSERT INTO opsbot.backup_alarms (site, cause) VALUES (%(site)s, %(cause)s) ON CONFLICT DO NOTHING RETURNING cause

-- name: calm
DELETE FROM opsbot.backup_alarms WHERE site = %(site)s AND cause = %(cause)s RETURNING cause
