-- Groups with the spans of their members, invitations, friends and blocks. What the columns mean stands beside SQLite's.

CREATE TABLE IF NOT EXISTS chat_group (
    conv    BIGINT       NOT NULL PRIMARY KEY,
    name    VARCHAR(255) NOT NULL,
    open    TINYINT      NOT NULL,
    members BIGINT       NOT NULL
) ENGINE=InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS span (
    conv     BIGINT  NOT NULL,
    user     BIGINT  NOT NULL,
    from_seq BIGINT  NOT NULL,
    to_seq   BIGINT  NOT NULL,
    role     TINYINT NOT NULL,
    PRIMARY KEY (conv, user, from_seq),
    KEY span_by_conv (conv, to_seq, user),
    KEY span_by_user (user, to_seq, conv)
) ENGINE=InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS invitation (
    user       BIGINT NOT NULL,
    conv       BIGINT NOT NULL,
    inviter    BIGINT NOT NULL,
    created_ms BIGINT NOT NULL,
    PRIMARY KEY (user, conv)
) ENGINE=InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS friend (
    user  BIGINT  NOT NULL,
    other BIGINT  NOT NULL,
    state TINYINT NOT NULL,
    PRIMARY KEY (user, other)
) ENGINE=InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS blocked (
    user  BIGINT NOT NULL,
    other BIGINT NOT NULL,
    PRIMARY KEY (user, other)
) ENGINE=InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

INSERT IGNORE INTO id_block (name, next) VALUES ('worker', 1);
