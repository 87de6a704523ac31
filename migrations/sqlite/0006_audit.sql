-- The audit log. Neither table is ever updated: the service adds rows and reads them.

CREATE TABLE audit_entries (
    id             BLOB    NOT NULL PRIMARY KEY,
    at             INTEGER NOT NULL,
    principal_kind TEXT,             -- NULL, as the two below: nobody was authenticated
    principal_id   BLOB,
    principal_name TEXT,
    address        TEXT,
    action         TEXT    NOT NULL,
    resource       TEXT    NOT NULL, -- collection/id; '': none
    namespace      TEXT    NOT NULL, -- '': none
    outcome        TEXT    NOT NULL CHECK (outcome IN ('allowed', 'refused', 'failed')),
    reason         TEXT,
    request_id     TEXT    NOT NULL,
    count          INTEGER NOT NULL CHECK (count > 0)
) STRICT;
CREATE INDEX audit_entries_by_resource ON audit_entries (resource, id);
CREATE INDEX audit_entries_by_principal ON audit_entries (principal_name, id);

-- The chain over the entries. An entry is added before its seal, within about a second.
CREATE TABLE audit_seals (
    seq      INTEGER NOT NULL PRIMARY KEY,
    entry_id BLOB    NOT NULL UNIQUE,
    previous BLOB    NOT NULL, -- the hash of the seal before
    hash     BLOB    NOT NULL  -- HMAC-SHA-256 of previous, seq and entry
) STRICT;
