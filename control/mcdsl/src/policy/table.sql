-- Every revision of the policy: the one with the highest number is in force.
CREATE TABLE policy_revisions (
    revision INTEGER PRIMARY KEY CHECK (revision BETWEEN 1 AND 9007199254740991),
    -- JSON: default and rules.
    document TEXT NOT NULL,
    -- Seconds since 1970, and the account that made the revision; `-` for the first.
    created_at INTEGER NOT NULL,
    actor TEXT NOT NULL
) STRICT;
CREATE TRIGGER policy_revisions_update BEFORE UPDATE ON policy_revisions
    BEGIN SELECT RAISE(ABORT, 'policy revisions are never changed'); END;
CREATE TRIGGER policy_revisions_delete BEFORE DELETE ON policy_revisions
    BEGIN SELECT RAISE(ABORT, 'policy revisions are kept'); END;
