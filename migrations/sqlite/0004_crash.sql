-- Who works here, so that the others notice when somebody no longer does. On SQLite there is one process.
CREATE TABLE workers (
    name    TEXT    NOT NULL PRIMARY KEY, -- what leased_by holds
    seen_at INTEGER NOT NULL              -- by the database's clock
) STRICT;

-- What has to be done now and then, by one replica.
CREATE TABLE tasks (
    id             BLOB    NOT NULL PRIMARY KEY,
    task           TEXT    NOT NULL UNIQUE,
    next_action_at INTEGER NOT NULL,
    leased_by      TEXT,
    lease_token    INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX tasks_due ON tasks (next_action_at);
