-- Webhooks have names. What is there gets one made of the last digits of its identifier, which are random.
ALTER TABLE webhooks ADD COLUMN name TEXT NOT NULL DEFAULT '';
UPDATE webhooks SET name = 'webhook-' || right(id::text, 12);
CREATE UNIQUE INDEX webhooks_by_name ON webhooks (namespace, name);
