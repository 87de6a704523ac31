-- What is at rest.

-- What grants something carries a MAC, so that a row which somebody edits in the database grants nothing. Rows of
-- before get theirs once, at the first start; after that NULL is a row that the service did not write.

ALTER TABLE api_keys ADD COLUMN mac BYTEA;
ALTER TABLE policies ADD COLUMN mac BYTEA;

-- Where the chain of the audit log begins, once its beginning was pruned. Only the owner's role adds rows.

CREATE TABLE audit_checkpoints (
    seq  BIGINT  NOT NULL PRIMARY KEY, -- the last seal that was pruned
    hash BYTEA   NOT NULL,             -- its hash, which the next seal has as its previous
    at   BIGINT  NOT NULL,
    mac  BYTEA   NOT NULL              -- under the key of the chain
);
