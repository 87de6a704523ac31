-- Names that people can type, as cert-manager derives them: <certificate>-<revision> for a request,
-- and an order adds a hash.
ALTER TABLE requests ADD COLUMN name TEXT NOT NULL DEFAULT '';
ALTER TABLE orders ADD COLUMN name TEXT NOT NULL DEFAULT '';

UPDATE requests SET name =
    (SELECT c.name || '-' || requests.revision FROM certificates c WHERE c.id = requests.certificate_id);
UPDATE orders SET name = coalesce(
    (SELECT r.name FROM requests r WHERE r.id = orders.request_id),
    (SELECT c.name FROM certificates c WHERE c.id = orders.certificate_id),
    'order') || '-' || lower(substr(hex(id), 25, 8));

CREATE INDEX requests_by_name ON requests (namespace, name);
CREATE INDEX orders_by_name ON orders (namespace, name);
