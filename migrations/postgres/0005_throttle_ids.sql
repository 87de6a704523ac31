-- Throttles are listed and lifted by an identifier.
ALTER TABLE throttles ADD COLUMN id UUID NOT NULL DEFAULT gen_random_uuid();
CREATE UNIQUE INDEX throttles_by_id ON throttles (id);
