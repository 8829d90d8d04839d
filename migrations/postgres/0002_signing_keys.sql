-- Keys that sign identity tokens, sealed. A replica that makes one takes the next generation: one of those that race wins.
-- create_time is seconds since the Unix epoch.
CREATE TABLE signing_keys (
    generation BIGINT PRIMARY KEY,
    create_time BIGINT NOT NULL,
    private_key BYTEA NOT NULL
);
