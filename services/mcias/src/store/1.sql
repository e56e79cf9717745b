-- Accounts of people (kind 0) and of services (kind 1). A service's has neither roles nor a password nor a second factor.
CREATE TABLE accounts (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    kind INTEGER NOT NULL CHECK (kind IN (0, 1)),
    -- Bits: 1 admin, 2 user, 4 guest.
    roles INTEGER NOT NULL CHECK (roles BETWEEN 0 AND 7 AND (kind = 0 OR roles = 0)),
    -- The service that a system account speaks for.
    service TEXT CHECK ((kind = 1) = (service IS NOT NULL)),
    enabled INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    created_at INTEGER NOT NULL,
    last_login_at INTEGER,
    -- Argon2id, as a PHC string.
    password TEXT CHECK (kind = 0 OR password IS NULL),
    -- Whether it is good enough without a second factor.
    password_alone INTEGER NOT NULL DEFAULT 0 CHECK (password_alone IN (0, 1)),
    -- The secret, once it is confirmed, and the step of the code that was taken last.
    totp BLOB CHECK (kind = 0 OR totp IS NULL),
    totp_step INTEGER,
    -- What authenticators know the account by: it says nothing.
    handle BLOB NOT NULL UNIQUE
) STRICT;

CREATE TABLE tags (
    account INTEGER NOT NULL REFERENCES accounts ON DELETE CASCADE,
    tag TEXT NOT NULL,
    PRIMARY KEY (account, tag)
) STRICT, WITHOUT ROWID;

-- SHA-256 of each: they have the entropy of a key.
CREATE TABLE recovery_codes (
    account INTEGER NOT NULL REFERENCES accounts ON DELETE CASCADE,
    digest BLOB NOT NULL,
    PRIMARY KEY (account, digest)
) STRICT, WITHOUT ROWID;

CREATE TABLE passkeys (
    id TEXT PRIMARY KEY,
    account INTEGER NOT NULL REFERENCES accounts ON DELETE CASCADE,
    label TEXT NOT NULL,
    -- As webauthn-rs writes it.
    credential TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    last_used_at INTEGER
) STRICT;
CREATE INDEX passkeys_of ON passkeys (account);

-- Sessions of people (kind 0) and tokens issued to services (kind 1). The tokens themselves are not kept.
CREATE TABLE tokens (
    id TEXT PRIMARY KEY,
    account INTEGER NOT NULL REFERENCES accounts ON DELETE CASCADE,
    kind INTEGER NOT NULL CHECK (kind IN (0, 1)),
    -- JSON: services; empty: all.
    audience TEXT NOT NULL,
    -- A session: the service through which its owner logged in. A token: what it is called.
    label TEXT NOT NULL,
    -- A session: how its owner logged in. A token: who issued it.
    origin TEXT NOT NULL,
    source TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    revoked_at INTEGER,
    last_used_at INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX tokens_of ON tokens (account, kind, created_at);
CREATE INDEX tokens_until ON tokens (expires_at);

-- SHA-256 of the secret in a one-time link. An account has one at most.
CREATE TABLE links (
    account INTEGER PRIMARY KEY REFERENCES accounts ON DELETE CASCADE,
    digest BLOB NOT NULL UNIQUE,
    expires_at INTEGER NOT NULL
) STRICT;

-- From where each account has logged in: a stranger's failures do not delay those.
CREATE TABLE familiar (
    account INTEGER NOT NULL REFERENCES accounts ON DELETE CASCADE,
    source TEXT NOT NULL,
    last_at INTEGER NOT NULL,
    PRIMARY KEY (account, source)
) STRICT, WITHOUT ROWID;

CREATE TABLE signing_keys (
    id TEXT PRIMARY KEY,
    pkcs8 BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    signs_from INTEGER NOT NULL,
    -- When the last token that it signed expires.
    needed_until INTEGER NOT NULL
) STRICT;

CREATE TABLE policy (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    revision INTEGER NOT NULL,
    -- JSON: default and rules.
    document TEXT NOT NULL
) STRICT;
INSERT INTO policy VALUES (1, 1, '{"default":"allow","rules":[]}');

CREATE TABLE audit (
    number INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    outcome TEXT NOT NULL,
    detail TEXT NOT NULL,
    source TEXT NOT NULL,
    service TEXT NOT NULL,
    request_id TEXT NOT NULL,
    hash BLOB NOT NULL
) STRICT;
CREATE INDEX audit_actor ON audit (actor, number);
CREATE INDEX audit_target ON audit (target, number);
CREATE TRIGGER audit_stays BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_is_kept BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
