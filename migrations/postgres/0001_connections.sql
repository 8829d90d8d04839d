-- Times are milliseconds since the Unix epoch. change_counter has one row; whoever changes a connection increments it
-- first, in the same transaction, so changes become visible in the order of their numbers.
CREATE TABLE change_counter (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    latest BIGINT NOT NULL
);
INSERT INTO change_counter (id, latest) VALUES (1, 0);

CREATE TABLE connections (
    slug TEXT COLLATE "C" PRIMARY KEY,
    incarnation BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    settings TEXT NOT NULL,
    pinned_issuer TEXT,
    client_secret BYTEA NOT NULL,
    create_time BIGINT NOT NULL,
    update_time BIGINT NOT NULL
);

-- The latest change of each slug, also of deleted ones.
CREATE TABLE connection_changes (
    slug TEXT COLLATE "C" PRIMARY KEY,
    change BIGINT NOT NULL
);
CREATE INDEX connection_changes_by_change ON connection_changes (change);
