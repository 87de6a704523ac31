-- What repeats itself raises count and last_seen of one event. (written_in, position) is where the
-- event stands in the stream, anew whenever it changes: written_in is the transaction (xid8), since
-- positions of transactions that overlap become visible in any order.
ALTER TABLE events ADD COLUMN count      BIGINT NOT NULL DEFAULT 1;
ALTER TABLE events ADD COLUMN last_seen  BIGINT NOT NULL DEFAULT 0;
ALTER TABLE events ADD COLUMN written_in BIGINT NOT NULL DEFAULT 0;
ALTER TABLE events ADD COLUMN position   BIGINT NOT NULL DEFAULT 0;
UPDATE events SET last_seen = created_at, position = ranked.place
    FROM (SELECT id, row_number() OVER (ORDER BY id) AS place FROM events) AS ranked
    WHERE ranked.id = events.id;
CREATE SEQUENCE events_position;
SELECT setval('events_position', (SELECT count(*) + 1 FROM events), false);
CREATE UNIQUE INDEX events_in_order ON events (written_in, position);
CREATE INDEX events_by_age ON events (last_seen, id);
CREATE INDEX events_latest ON events (resource_id, position);

-- Whether what is served nears its end. A row of its own, so that neither an order under way nor a
-- blocked certificate keeps its expiry from being told.
CREATE TABLE expiry_watches (
    id             UUID    NOT NULL PRIMARY KEY REFERENCES certificates (id) ON DELETE CASCADE, -- the certificate's
    revision       BIGINT NOT NULL,
    not_before     BIGINT NOT NULL,
    not_after      BIGINT NOT NULL,
    told           TEXT CHECK (told IN ('third', 'sixth', 'twentieth', 'expired')),
    next_action_at BIGINT,
    leased_by      TEXT,
    lease_token    BIGINT NOT NULL DEFAULT 0,
    CHECK (told = 'expired' OR next_action_at IS NOT NULL)
);
CREATE INDEX expiry_watches_due ON expiry_watches (next_action_at) WHERE next_action_at IS NOT NULL;
INSERT INTO expiry_watches (id, revision, not_before, not_after, next_action_at)
    SELECT id, revision, not_before, not_after, not_after - (not_after - not_before) / 3
    FROM certificates WHERE revision > 0;
