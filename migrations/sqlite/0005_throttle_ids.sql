-- Throttles are listed and lifted by an identifier.
ALTER TABLE throttles ADD COLUMN id BLOB NOT NULL DEFAULT x'';
UPDATE throttles SET id = randomblob(16);
CREATE UNIQUE INDEX throttles_by_id ON throttles (id);
