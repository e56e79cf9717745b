-- Version 1. A later version is a further file of changes to this one: what was released is not edited.
-- Settings that have their default are left out of `spec`: whoever changes a default in the model writes a
-- migration that puts the old one where it was meant.
CREATE TABLE site (
    id       INTEGER PRIMARY KEY CHECK (id = 1),
    revision INTEGER NOT NULL,
    seeded   INTEGER NOT NULL,
    firewall TEXT NOT NULL
) STRICT;
INSERT INTO site VALUES (1, 0, 0, '{}');

CREATE TABLE listeners (
    name TEXT PRIMARY KEY,
    spec TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- `spec` is JSON, or only the address of the one backend where everything else is as by default.
CREATE TABLE routes (
    listener TEXT NOT NULL REFERENCES listeners (name),
    name     TEXT NOT NULL,
    alpn     TEXT NOT NULL,
    spec     TEXT NOT NULL,
    PRIMARY KEY (listener, name, alpn)
) STRICT, WITHOUT ROWID;

CREATE TABLE draining (
    address TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;
