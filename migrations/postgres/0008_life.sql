-- Renewal information (RFC 9773), revocation, deletion that revokes first, and changes to accounts.

ALTER TABLE certificates ADD COLUMN ari TEXT;                -- JSON: what the CA suggests for the served certificate
ALTER TABLE certificates ADD COLUMN revocation TEXT;         -- JSON: the last one, wanted or done
ALTER TABLE certificates ADD COLUMN deleting_since BIGINT;  -- it goes once its revocations are over

ALTER TABLE revisions ADD COLUMN revoked_at BIGINT;

ALTER TABLE orders ADD COLUMN replaces TEXT;                 -- the certificate that it is to replace, in ARI's words

ALTER TABLE issuers ADD COLUMN account_change TEXT;                  -- JSON: what is being done to its account
ALTER TABLE issuers ADD COLUMN next_account_key BYTEA;        -- sealed PKCS #8; perhaps the CA knows it already

CREATE TABLE revocations (
    id             UUID    NOT NULL PRIMARY KEY,
    certificate_id UUID    NOT NULL, -- may be gone by now
    namespace      TEXT    NOT NULL,
    issuer_id      UUID    NOT NULL,
    revision       BIGINT NOT NULL,
    reason         TEXT    NOT NULL,
    leaf           BYTEA    NOT NULL, -- DER
    request_id     UUID    NOT NULL, -- that the key is sealed for
    private_key    BYTEA,             -- sealed PKCS #8, while it may be needed; NULL where a client holds it
    state          TEXT    NOT NULL CHECK (state IN ('pending', 'done', 'failed')),
    tries          BIGINT NOT NULL,
    last_error     TEXT,
    created_at     BIGINT NOT NULL,
    next_action_at BIGINT,
    deadline       BIGINT NOT NULL,
    leased_by      TEXT,
    lease_token    BIGINT NOT NULL DEFAULT 0,
    CHECK ((state = 'pending') = (next_action_at IS NOT NULL)),
    CHECK (state = 'pending' OR private_key IS NULL)
);
CREATE INDEX revocations_due ON revocations (next_action_at) WHERE next_action_at IS NOT NULL;
CREATE INDEX revocations_by_certificate ON revocations (certificate_id, revision);
CREATE INDEX revocations_open_by_issuer ON revocations (issuer_id) WHERE next_action_at IS NOT NULL;
