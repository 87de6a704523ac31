-- Takes the place of 0001_initial.sql in a database that has the fourteen migrations of before they were squashed.

ALTER TABLE webhook_subscriptions RENAME COLUMN notice TO event_type;
ALTER TABLE deliveries RENAME COLUMN notice TO event_type;
ALTER TABLE issuers RENAME COLUMN upkeep TO account_change;

ALTER TABLE housekeeping RENAME TO tasks;
ALTER TABLE tasks RENAME CONSTRAINT housekeeping_pkey TO tasks_pkey;
ALTER TABLE tasks RENAME CONSTRAINT housekeeping_task_key TO tasks_task_key;
ALTER INDEX housekeeping_due RENAME TO tasks_due;

-- The same transaction notes the initial migration.
DELETE FROM _sqlx_migrations;
