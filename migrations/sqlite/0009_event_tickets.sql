-- Tickets for streams of events, until they are used or have expired.
CREATE TABLE event_tickets (
    id         BLOB    NOT NULL PRIMARY KEY,
    hash       BLOB    NOT NULL UNIQUE, -- SHA-256 of the ticket
    holder     TEXT    NOT NULL,        -- JSON: the principal
    expires_at INTEGER NOT NULL,
    mac        BLOB    NOT NULL
) STRICT;
