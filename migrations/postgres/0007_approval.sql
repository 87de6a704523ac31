-- Requests that a person has to approve.

ALTER TABLE requests ADD COLUMN requested_by TEXT; -- JSON: the principal whose change brought it; NULL: made before this was kept
ALTER TABLE requests ADD COLUMN approval     TEXT; -- JSON: until when somebody may decide, and what was decided; NULL: nobody has to

ALTER TABLE certificates ADD COLUMN requested_by      TEXT;   -- JSON: the principal that wanted what is wanted now
ALTER TABLE certificates ADD COLUMN request_id        UUID;   -- the current or last request
ALTER TABLE certificates ADD COLUMN approved_revision BIGINT; -- the newest that was approved, or issued, for what is wanted now
-- One that waits for approval is blocked like any other that waits for a person.
ALTER TABLE certificates ADD COLUMN awaits_approval BOOLEAN NOT NULL DEFAULT FALSE
    CHECK (NOT awaits_approval OR (state = 'blocked' AND request_id IS NOT NULL));

-- What is served as it is wanted is renewed as before.
UPDATE certificates SET approved_revision = revision WHERE state = 'idle';
