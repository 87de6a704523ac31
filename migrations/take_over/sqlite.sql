-- Takes the place of 0001_initial.sql in a database that has the fourteen migrations of before they were squashed.

ALTER TABLE webhook_subscriptions RENAME COLUMN notice TO event_type;
ALTER TABLE deliveries RENAME COLUMN notice TO event_type;
ALTER TABLE issuers RENAME COLUMN upkeep TO account_change;

ALTER TABLE housekeeping RENAME TO tasks;
DROP INDEX housekeeping_due;
CREATE INDEX tasks_due ON tasks (next_action_at);

-- The same transaction notes the initial migration.
DELETE FROM _sqlx_migrations;
