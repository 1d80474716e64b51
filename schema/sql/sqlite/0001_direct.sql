-- Users, their tokens, direct conversations and their messages.
-- Ids and times are made by the program: this file uses nothing of SQLite that other engines lack, but STRICT and WITHOUT ROWID.

CREATE TABLE user (
    id            INTEGER NOT NULL PRIMARY KEY,
    name          TEXT    NOT NULL,           -- as spelled at registration: what is shown
    name_key      TEXT    NOT NULL UNIQUE,    -- what makes two spellings the same name
    password_hash TEXT    NOT NULL,           -- PHC string
    created_ms    INTEGER NOT NULL
) STRICT;

CREATE TABLE token (
    hash       BLOB    NOT NULL PRIMARY KEY,  -- SHA-256 of the token; the token itself is nowhere
    user       INTEGER NOT NULL,
    device     TEXT,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX token_by_user ON token (user, expires_ms);
CREATE INDEX token_by_expiry ON token (expires_ms);

CREATE TABLE conversation (
    id              INTEGER NOT NULL PRIMARY KEY,
    kind            INTEGER NOT NULL,           -- 0 direct
    user_lo         INTEGER,                    -- direct only: the pair, the smaller id first
    user_hi         INTEGER,
    last_seq        INTEGER NOT NULL DEFAULT 0, -- advanced in the transaction that inserts the messages
    members_version INTEGER NOT NULL DEFAULT 0, -- bumped by changes of membership and of blocks
    created_ms      INTEGER NOT NULL,
    UNIQUE (user_lo, user_hi)
) STRICT;

CREATE TABLE member (
    user          INTEGER NOT NULL,
    conv          INTEGER NOT NULL,
    delivered_seq INTEGER NOT NULL DEFAULT 0,
    read_seq      INTEGER NOT NULL DEFAULT 0,
    own_seq       INTEGER NOT NULL DEFAULT 0,   -- the seq of the user's own last message
    PRIMARY KEY (user, conv)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX member_by_conv ON member (conv, user);

CREATE TABLE message (
    conv    INTEGER NOT NULL,
    seq     INTEGER NOT NULL,
    event   INTEGER NOT NULL DEFAULT 0,         -- 0 text; other kinds of entry come with groups
    sender  INTEGER NOT NULL,
    session INTEGER NOT NULL,                   -- the session that sent it, which gets no push of it
    time_ms INTEGER NOT NULL,
    text    TEXT    NOT NULL,
    PRIMARY KEY (conv, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE sent (
    sender    INTEGER NOT NULL,
    conv      INTEGER NOT NULL,
    client_id TEXT    NOT NULL,
    seq       INTEGER NOT NULL,
    time_ms   INTEGER NOT NULL,
    PRIMARY KEY (sender, conv, client_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE id_block (
    name TEXT    NOT NULL PRIMARY KEY,
    next INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO id_block (name, next) VALUES ('user', 1), ('conv', 1), ('session', 1);

-- Written by every batch of the commit pipeline, so that a commit whose outcome is unknown can be looked up.
CREATE TABLE commit_mark (
    worker INTEGER NOT NULL PRIMARY KEY,
    mark   INTEGER NOT NULL
) STRICT;

INSERT INTO commit_mark (worker, mark) VALUES (0, 0);
