-- Earlier revisions of the connections, for RestoreConnection: as the row was when the next revision replaced it. Their
-- secrets stay sealed for the settings of their revision.
CREATE TABLE connection_revisions (
    slug TEXT NOT NULL,
    revision BIGINT NOT NULL,
    settings TEXT NOT NULL,
    client_secret BLOB NOT NULL,
    standby_secret BLOB,
    secret_expire BIGINT,
    standby_expire BIGINT,
    PRIMARY KEY (slug, revision)
);
