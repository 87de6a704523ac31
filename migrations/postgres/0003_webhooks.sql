-- What those who asked to be told know of a certificate's failures.
ALTER TABLE certificates ADD COLUMN failure_told BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE certificates ADD COLUMN block_told   BOOLEAN NOT NULL DEFAULT FALSE;
