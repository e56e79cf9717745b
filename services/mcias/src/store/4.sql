-- `sub` of an account's tokens, and what authenticators know it by: a random UUID that no other account ever gets.
ALTER TABLE accounts RENAME COLUMN handle TO uuid;

-- Accounts that were deleted: their rows' ids and UUIDs are never given again, and their names only once they are released.
CREATE TABLE deleted_accounts (
    id INTEGER PRIMARY KEY,
    uuid BLOB NOT NULL UNIQUE,
    name TEXT NOT NULL,
    kind INTEGER NOT NULL CHECK (kind IN (0, 1)),
    deleted_at INTEGER NOT NULL,
    released_at INTEGER
) STRICT;
CREATE UNIQUE INDEX taken_names ON deleted_accounts (name) WHERE released_at IS NULL;

-- A session: what the client that logged in said it is.
ALTER TABLE tokens ADD COLUMN device TEXT NOT NULL DEFAULT '';

CREATE INDEX accounts_of_service ON accounts (service) WHERE service IS NOT NULL;

-- The public URL that tokens and passkeys are bound to, since the first start.
CREATE TABLE site (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    public_url TEXT NOT NULL
) STRICT;
