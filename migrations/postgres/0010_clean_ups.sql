-- Orders that are over and whose proofs are still to be taken away, which is done for many at once. A column
-- of its own: an index that looks at `state` would be touched by every step of every order.
ALTER TABLE orders ADD COLUMN ended BOOLEAN NOT NULL DEFAULT FALSE;
UPDATE orders SET ended = TRUE WHERE state IN ('valid', 'invalid', 'errored', 'expired');
CREATE INDEX orders_clean_ups ON orders (next_action_at) WHERE next_action_at IS NOT NULL AND ended;

-- Room on each page for the next versions of its rows: what changes no index then stays where it is.
ALTER TABLE orders SET (fillfactor = 70);
ALTER TABLE challenges SET (fillfactor = 70);
ALTER TABLE certificates SET (fillfactor = 80);
