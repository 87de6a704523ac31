-- Lists of certificates in another order than by age are pages by key, too. Names are compared byte by byte, as in
-- SQLite.
CREATE INDEX certificates_by_name ON certificates (name COLLATE "C", id);
CREATE INDEX certificates_by_end ON certificates (COALESCE(not_after, 9223372036854775807), id);
