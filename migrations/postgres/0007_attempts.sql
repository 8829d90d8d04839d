-- Logins that are refused alike at one account within an hour are one row. `count`: how many they are; `time`: when the
-- first of them ended; `last_time`: when the latest did, whose details `attempt` has (NULL: as `time`); `fold_key`: a
-- digest of what they have in common (NULL: the row stands for one login); `trace_id`: of the first (NULL: an older
-- version wrote the row).
ALTER TABLE login_attempts ADD COLUMN count BIGINT NOT NULL DEFAULT 1;
ALTER TABLE login_attempts ADD COLUMN last_time BIGINT;
ALTER TABLE login_attempts ADD COLUMN fold_key TEXT COLLATE "C";
ALTER TABLE login_attempts ADD COLUMN trace_id TEXT COLLATE "C";
CREATE UNIQUE INDEX login_attempts_by_fold ON login_attempts (fold_key);
CREATE INDEX login_attempts_by_trace ON login_attempts (trace_id);
CREATE INDEX login_attempts_by_last ON login_attempts ((COALESCE(last_time, time)), id);
CREATE INDEX login_attempts_by_reason ON login_attempts (reason, (COALESCE(last_time, time)), id);

-- The trace ids of those after the first. They go with the row, whichever version deletes it.
CREATE TABLE attempt_traces (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    attempt_id BIGINT NOT NULL REFERENCES login_attempts (id) ON DELETE CASCADE,
    trace_id TEXT COLLATE "C" NOT NULL
);
CREATE INDEX attempt_traces_by_attempt ON attempt_traces (attempt_id, id);
CREATE INDEX attempt_traces_by_trace ON attempt_traces (trace_id);

-- What is counted of each account's logins in each hour since the Unix epoch.
CREATE TABLE login_hours (
    slug TEXT COLLATE "C" NOT NULL,
    hour BIGINT NOT NULL,
    begun BIGINT NOT NULL,
    returned BIGINT NOT NULL,
    completed BIGINT NOT NULL,
    refused BIGINT NOT NULL,
    PRIMARY KEY (slug, hour)
);
CREATE INDEX login_hours_by_hour ON login_hours (hour);

-- When a person last came back from the IdP, and how many logins have begun since, the first of them when.
ALTER TABLE login_counts ADD COLUMN last_return BIGINT;
ALTER TABLE login_counts ADD COLUMN unreturned BIGINT NOT NULL DEFAULT 0;
ALTER TABLE login_counts ADD COLUMN unreturned_since BIGINT;
