-- Work is claimed by lane (issuer and namespace), so that a crowded one does not hide the others.
CREATE INDEX orders_lanes ON orders (issuer_id, namespace, next_action_at) WHERE next_action_at IS NOT NULL;
CREATE INDEX certificates_lanes ON certificates (namespace, next_action_at);

-- What a CA does not want to be asked before a moment. What is past counts for nothing and is swept.
CREATE TABLE throttles (
    key        TEXT    NOT NULL PRIMARY KEY, -- what is held, and of which CA or account
    scope      TEXT    NOT NULL CHECK (scope IN ('endpoint', 'account', 'domain', 'set', 'name')),
    held_until INTEGER NOT NULL,
    why        TEXT    NOT NULL -- the failure, with the CA's words
) STRICT;
CREATE INDEX throttles_by_end ON throttles (held_until);

-- What was spent of a CA's limits (generic cell rate algorithm): at that moment all of it is earned
-- again, and the row is as good as none.
CREATE TABLE budgets (
    key         TEXT    NOT NULL PRIMARY KEY,
    pool        TEXT    NOT NULL, -- what is counted alike: for the fullest of it
    spent_until INTEGER NOT NULL
) STRICT;
CREATE INDEX budgets_by_pool ON budgets (pool, spent_until);
CREATE INDEX budgets_by_end ON budgets (spent_until);

-- What an order has taken from the budgets, or its place among those who wait to.
CREATE TABLE reservations (
    order_id BLOB    NOT NULL PRIMARY KEY REFERENCES orders (id) ON DELETE CASCADE,
    pool     TEXT    NOT NULL, -- whose new orders they are
    priority INTEGER NOT NULL, -- the least goes first
    granted  INTEGER NOT NULL,
    costs    TEXT    NOT NULL  -- JSON: what to give back should nothing come of it
) STRICT;
CREATE INDEX reservations_waiting ON reservations (pool, priority) WHERE NOT granted;
