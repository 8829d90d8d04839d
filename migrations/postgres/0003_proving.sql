-- Times are milliseconds since the Unix epoch.
-- A second secret, live beside the first; when each expires; when they last changed places by themselves.
ALTER TABLE connections ADD COLUMN standby_secret BYTEA;
ALTER TABLE connections ADD COLUMN secret_expire BIGINT;
ALTER TABLE connections ADD COLUMN standby_expire BIGINT;
ALTER TABLE connections ADD COLUMN secret_switched BIGINT;
-- JSON of the last check, and of the last one of a proposed change; the digest of the login-relevant settings by which a person last logged in as a trial, and when.
ALTER TABLE connections ADD COLUMN last_check TEXT;
ALTER TABLE connections ADD COLUMN last_proposal TEXT;
ALTER TABLE connections ADD COLUMN test_login_digest TEXT;
ALTER TABLE connections ADD COLUMN test_login_time BIGINT;

-- Every change of a connection, as JSON; kept when it is deleted.
CREATE TABLE connection_log (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    slug TEXT COLLATE "C" NOT NULL,
    record TEXT NOT NULL
);
CREATE INDEX connection_log_by_slug ON connection_log (slug, id);

-- The latest login attempts of each account, as JSON; reason is empty where the login was completed.
CREATE TABLE login_attempts (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    slug TEXT COLLATE "C" NOT NULL,
    time BIGINT NOT NULL,
    reason TEXT NOT NULL,
    attempt TEXT NOT NULL
);
CREATE INDEX login_attempts_by_slug ON login_attempts (slug, id);
CREATE INDEX login_attempts_by_time ON login_attempts (time);

-- What is counted of each account's logins and not kept one by one.
CREATE TABLE login_counts (
    slug TEXT COLLATE "C" PRIMARY KEY,
    last_success BIGINT,
    foreign_callbacks BIGINT NOT NULL
);
