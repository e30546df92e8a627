-- A proof of its own: restored from the stored object with the secret key of a person.

ALTER TABLE opsbot.backup_proofs DROP CONSTRAINT backup_proofs_kind_check;
ALTER TABLE opsbot.backup_proofs ADD CONSTRAINT backup_proofs_kind_check
    CHECK (kind IN ('listing', 'read back', 'restored', 'decrypted', 'drilled'));
