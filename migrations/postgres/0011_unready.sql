-- Certificates that were never issued: few, and what a person asks for who wants to know what is not ready.
CREATE INDEX certificates_unissued ON certificates (id) WHERE not_after IS NULL;
