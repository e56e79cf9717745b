-- Changes with each update of the account: who edits it states the revision that the edit was made from.
ALTER TABLE accounts ADD COLUMN revision INTEGER NOT NULL DEFAULT 1;
ALTER TABLE signing_keys RENAME COLUMN signs_from TO active_from;
ALTER TABLE signing_keys RENAME COLUMN needed_until TO verify_until;

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

-- The policy so far, with the names of the fields that every service's policy has: usernames are `accounts`, services are
-- `resources`, tags are `resource_tags`. The audit log knows who set it, and when; nobody, where it was never set.
INSERT INTO policy_revisions
SELECT
    revision,
    json_object(
        'default', document ->> 'default',
        -- The value of a subquery is text: `json` makes it a list again.
        'rules', json((
            SELECT json_group_array(
                json_object(
                    'name', value ->> 'name',
                    'priority', value ->> 'priority',
                    'effect', value ->> 'effect',
                    'roles', json(coalesce(value -> 'roles', '[]')),
                    'account_types', json(coalesce(value -> 'account_types', '[]')),
                    'accounts', json(coalesce(value -> 'usernames', '[]')),
                    'resources', json(coalesce(value -> 'services', '[]')),
                    'resource_tags', json(coalesce(value -> 'tags', '[]'))
                )
            ) FROM json_each(document, '$.rules')
        ))
    ),
    coalesce((SELECT max(at_ms) / 1000 FROM audit WHERE action = 'policy.set' AND outcome = 'done'), unixepoch()),
    coalesce((SELECT actor FROM audit WHERE action = 'policy.set' AND outcome = 'done' ORDER BY number DESC LIMIT 1), '-')
FROM policy;
DROP TABLE policy;
