-- How many rows each table had in the snapshot that a dump was made of: what a restore of it is compared with.

ALTER TABLE opsbot.backup_pieces ADD COLUMN rows jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(rows) = 'object');
