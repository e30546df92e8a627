-- What an action is about besides machines, such as a login.

ALTER TABLE opsbot.runs ADD COLUMN argument text NOT NULL DEFAULT '';
