-- How far an order ever was, and what it has asked of its CA: bounds its requests over restarts too.
ALTER TABLE orders ADD COLUMN course TEXT NOT NULL DEFAULT '{}';
