-- Who works here, so that the others notice when somebody no longer does. On SQLite there is one process.
CREATE TABLE workers (
    name    TEXT   NOT NULL PRIMARY KEY, -- what leased_by holds
    seen_at BIGINT NOT NULL              -- by the database's clock
);

-- What has to be done now and then, by one replica.
CREATE TABLE tasks (
    id             UUID   NOT NULL PRIMARY KEY,
    task           TEXT   NOT NULL UNIQUE,
    next_action_at BIGINT NOT NULL,
    leased_by      TEXT,
    lease_token    BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX tasks_due ON tasks (next_action_at);
