-- The number of the change that a record is of, and a random mark of that change. After a restore or a failover, the
-- change with a number is missing or has another mark: so a replica notices that it knows another history.
ALTER TABLE connection_log ADD COLUMN change BIGINT;
ALTER TABLE connection_log ADD COLUMN mark TEXT;
CREATE INDEX connection_log_by_change ON connection_log (change);
-- Whether the record is of a check, which changes nothing; of these, the latest of each account are kept.
ALTER TABLE connection_log ADD COLUMN is_check BOOLEAN NOT NULL DEFAULT FALSE;
CREATE INDEX connection_log_checks ON connection_log (slug, id) WHERE is_check;
