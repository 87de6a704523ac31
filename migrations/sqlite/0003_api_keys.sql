-- Roles, ends, rotation and last use of API keys.

ALTER TABLE api_keys ADD COLUMN description  TEXT;
ALTER TABLE api_keys ADD COLUMN role         TEXT CHECK (role IN ('admin', 'operator', 'requester', 'reader'));
ALTER TABLE api_keys ADD COLUMN expires_at   INTEGER; -- NULL: never
ALTER TABLE api_keys ADD COLUMN created_by   TEXT;    -- JSON: a principal; NULL: made before this was kept
ALTER TABLE api_keys ADD COLUMN former_hash  BLOB;    -- SHA-256 of the value before the last rotation
ALTER TABLE api_keys ADD COLUMN rotated_at   INTEGER;
ALTER TABLE api_keys ADD COLUMN former_until INTEGER; -- the former value's end
CREATE UNIQUE INDEX api_keys_former_hash ON api_keys (former_hash);

-- Apart from the keys: those are cached, and every write to their table invalidates the cache.
CREATE TABLE api_key_uses (
    api_key_id BLOB    NOT NULL PRIMARY KEY REFERENCES api_keys (id) ON DELETE CASCADE,
    used_at    INTEGER NOT NULL -- the day
) STRICT;
