-- What those who asked to be told know of a certificate's failures.
ALTER TABLE certificates ADD COLUMN failure_told INTEGER NOT NULL DEFAULT 0;
ALTER TABLE certificates ADD COLUMN block_told   INTEGER NOT NULL DEFAULT 0;
