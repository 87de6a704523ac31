-- Who may have certificates for which names.

CREATE TABLE policies (
    id         BLOB    NOT NULL PRIMARY KEY,
    name       TEXT    NOT NULL UNIQUE,
    spec       TEXT    NOT NULL, -- JSON
    generation INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

-- The namespaces that a policy is for: the index over its spec.
CREATE TABLE policy_namespaces (
    policy_id BLOB    NOT NULL REFERENCES policies (id) ON DELETE CASCADE,
    namespace TEXT    NOT NULL, -- '*': every one
    PRIMARY KEY (namespace, policy_id)
) STRICT;
CREATE INDEX policy_namespaces_of ON policy_namespaces (policy_id);

-- Namespaces whose certificates are judged anew because a policy has changed, page by page.
CREATE TABLE policy_reviews (
    id             BLOB    NOT NULL PRIMARY KEY,
    namespace      TEXT    NOT NULL UNIQUE, -- '*': every one
    reviewed_to    BLOB,                    -- the last certificate that was judged; NULL before the first
    next_action_at INTEGER NOT NULL,
    leased_by      TEXT,
    lease_token    INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX policy_reviews_due ON policy_reviews (next_action_at);

-- By what right a certificate is there. Rows of before say so themselves, so that they can be listed: a default of
-- the program's would change with the program.
ALTER TABLE certificates ADD COLUMN admitted_way TEXT NOT NULL DEFAULT 'upgrade' CHECK (admitted_way IN ('policy', 'administrator', 'upgrade'));
ALTER TABLE certificates ADD COLUMN admitted_by TEXT NOT NULL DEFAULT 'before name policies';
CREATE INDEX certificates_by_admission ON certificates (admitted_way, id) WHERE admitted_way <> 'policy';
