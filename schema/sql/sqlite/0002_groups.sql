-- Groups with the spans of their members, invitations, friends and blocks.

CREATE TABLE chat_group (
    conv    INTEGER NOT NULL PRIMARY KEY,
    name    TEXT    NOT NULL,
    open    INTEGER NOT NULL,                   -- 1: whoever knows its id may join
    members INTEGER NOT NULL                    -- how many are in it now
) STRICT;

-- From a member's `joined` to its `left` or `kicked`, both included: what it may see. Who is in a group now has a span that is open.
CREATE TABLE span (
    conv     INTEGER NOT NULL,
    user     INTEGER NOT NULL,
    from_seq INTEGER NOT NULL,
    to_seq   INTEGER NOT NULL,                  -- 9007199254740991 (2^53 - 1) while it is open
    role     INTEGER NOT NULL,                  -- 0 member, 1 admin, 2 owner
    PRIMARY KEY (conv, user, from_seq)
) STRICT, WITHOUT ROWID;

CREATE INDEX span_by_conv ON span (conv, to_seq, user);
CREATE INDEX span_by_user ON span (user, to_seq, conv);

CREATE TABLE invitation (
    user       INTEGER NOT NULL,
    conv       INTEGER NOT NULL,
    inviter    INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (user, conv)
) STRICT, WITHOUT ROWID;

-- Two rows for a pair, one for the view of each.
CREATE TABLE friend (
    user  INTEGER NOT NULL,
    other INTEGER NOT NULL,
    state INTEGER NOT NULL,                     -- 0 friends, 1 `user` has asked, 2 `other` has asked
    PRIMARY KEY (user, other)
) STRICT, WITHOUT ROWID;

CREATE TABLE blocked (
    user  INTEGER NOT NULL,                     -- who blocks
    other INTEGER NOT NULL,                     -- whom
    PRIMARY KEY (user, other)
) STRICT, WITHOUT ROWID;

-- Each writing thread of each process has a number of its own, and with it a row of commit_mark.
INSERT INTO id_block (name, next) VALUES ('worker', 1);
