-- Changes with each update of the account: who edits it states the revision that the edit was made from.
ALTER TABLE accounts ADD COLUMN revision INTEGER NOT NULL DEFAULT 1;
ALTER TABLE signing_keys RENAME COLUMN signs_from TO active_from;
ALTER TABLE signing_keys RENAME COLUMN needed_until TO verify_until;
