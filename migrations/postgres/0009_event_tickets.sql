-- Tickets for streams of events, until they are used or have expired.
CREATE TABLE event_tickets (
    id         UUID   NOT NULL PRIMARY KEY,
    hash       BYTEA  NOT NULL UNIQUE, -- SHA-256 of the ticket
    holder     TEXT   NOT NULL,        -- JSON: the principal
    expires_at BIGINT NOT NULL,
    mac        BYTEA  NOT NULL
);
