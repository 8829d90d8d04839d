-- What each connection's IdP published last: metadata and keys as it sent them, sealed for the connection and its revision.
-- A cache: a row may be deleted at any time, and is when its connection is gone. documents is empty until a first fetch has succeeded. claimed_until
-- (milliseconds since the Unix epoch): a replica is asking the IdP, so the others wait.
CREATE TABLE idp_documents (
    slug TEXT PRIMARY KEY,
    incarnation BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    documents BLOB,
    claimed_until BIGINT NOT NULL
);
