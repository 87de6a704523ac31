-- What is being issued in a namespace is counted where it is limited.
CREATE INDEX certificates_under_way ON certificates (namespace) WHERE state IN ('triggered', 'awaiting_issuer', 'ordering');
