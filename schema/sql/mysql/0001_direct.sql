-- Users, their tokens, direct conversations and their messages. What the columns mean stands beside SQLite's.
-- Every statement can be run again: the server commits each by itself, so a migration that was interrupted is begun anew.
-- Names and ids of clients are compared byte by byte (`utf8mb4_bin`): what is the same is decided by the program.

CREATE TABLE IF NOT EXISTS user (
    id            BIGINT       NOT NULL PRIMARY KEY,
    name          VARCHAR(64)  NOT NULL,
    name_key      VARCHAR(128) NOT NULL UNIQUE,
    password_hash VARCHAR(255) NOT NULL,
    created_ms    BIGINT       NOT NULL
) ENGINE=InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS token (
    hash       BINARY(32)  NOT NULL PRIMARY KEY,
    user       BIGINT      NOT NULL,
    device     VARCHAR(64),
    created_ms BIGINT      NOT NULL,
    expires_ms BIGINT      NOT NULL,
    KEY token_by_user (user, expires_ms, hash),
    KEY token_by_expiry (expires_ms)
) ENGINE=InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS conversation (
    id              BIGINT  NOT NULL PRIMARY KEY,
    kind            TINYINT NOT NULL,
    user_lo         BIGINT,
    user_hi         BIGINT,
    last_seq        BIGINT  NOT NULL DEFAULT 0,
    members_version BIGINT  NOT NULL DEFAULT 0,
    created_ms      BIGINT  NOT NULL,
    UNIQUE KEY conversation_by_pair (user_lo, user_hi)
) ENGINE=InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS member (
    user          BIGINT NOT NULL,
    conv          BIGINT NOT NULL,
    delivered_seq BIGINT NOT NULL DEFAULT 0,
    read_seq      BIGINT NOT NULL DEFAULT 0,
    own_seq       BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (user, conv),
    UNIQUE KEY member_by_conv (conv, user)
) ENGINE=InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS message (
    conv    BIGINT   NOT NULL,
    seq     BIGINT   NOT NULL,
    event   TINYINT  NOT NULL DEFAULT 0,
    sender  BIGINT   NOT NULL,
    session BIGINT   NOT NULL,
    time_ms BIGINT   NOT NULL,
    text    TEXT     NOT NULL,
    PRIMARY KEY (conv, seq)
) ENGINE=InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS sent (
    sender    BIGINT      NOT NULL,
    conv      BIGINT      NOT NULL,
    client_id VARCHAR(64) NOT NULL,
    seq       BIGINT      NOT NULL,
    time_ms   BIGINT      NOT NULL,
    PRIMARY KEY (sender, conv, client_id)
) ENGINE=InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS id_block (
    name VARCHAR(16) NOT NULL PRIMARY KEY,
    next BIGINT      NOT NULL
) ENGINE=InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

INSERT IGNORE INTO id_block (name, next) VALUES ('user', 1), ('conv', 1), ('session', 1);

CREATE TABLE IF NOT EXISTS commit_mark (
    worker INT    NOT NULL PRIMARY KEY,
    mark   BIGINT NOT NULL
) ENGINE=InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

INSERT IGNORE INTO commit_mark (worker, mark) VALUES (0, 0);
