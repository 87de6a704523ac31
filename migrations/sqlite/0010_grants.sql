-- What grants something carries a MAC, so that a row which somebody edits in the database grants nothing. Rows of
-- before get theirs once, at the first start; after that NULL is a row that the service did not write.

ALTER TABLE api_keys ADD COLUMN mac BLOB;
ALTER TABLE policies ADD COLUMN mac BLOB;
