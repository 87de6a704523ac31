-- Times are milliseconds since the epoch, identifiers UUIDv7, documents JSON, secrets sealed envelopes.
-- A row with next_action_at wants attention at that time; while a worker holds it, that is when its
-- lease runs out. lease_token is the fencing token: every write from outside the lease raises it.

CREATE TABLE settings (
    name  TEXT NOT NULL PRIMARY KEY,
    value BYTEA NOT NULL
);

CREATE TABLE api_keys (
    id           UUID    NOT NULL PRIMARY KEY,
    name         TEXT    NOT NULL,
    key_hash     BYTEA   NOT NULL UNIQUE, -- SHA-256
    permissions  TEXT    NOT NULL,        -- JSON array
    namespaces   TEXT,                    -- JSON array; NULL: every namespace
    created_at   BIGINT NOT NULL
);

CREATE TABLE secrets (
    id          UUID    NOT NULL PRIMARY KEY,
    namespace   TEXT    NOT NULL,
    name        TEXT    NOT NULL,
    data        BYTEA   NOT NULL, -- sealed JSON object
    data_keys   TEXT    NOT NULL, -- JSON array: the object's keys
    created_at  BIGINT NOT NULL,
    updated_at  BIGINT NOT NULL,
    UNIQUE (namespace, name)
);

CREATE TABLE issuers (
    id             UUID    NOT NULL PRIMARY KEY,
    kind           TEXT    NOT NULL CHECK (kind IN ('Issuer', 'ClusterIssuer')),
    namespace      TEXT    NOT NULL, -- empty for a ClusterIssuer
    name           TEXT    NOT NULL,
    acme           TEXT    NOT NULL,
    generation     BIGINT NOT NULL,
    state          TEXT    NOT NULL CHECK (state IN ('pending', 'ready', 'failed')),
    state_since    BIGINT NOT NULL,
    account_key    BYTEA   NOT NULL, -- sealed PKCS #8
    account_url    TEXT,
    account_server TEXT,
    account_email  TEXT,
    tries          BIGINT NOT NULL,
    last_error     TEXT,
    created_at     BIGINT NOT NULL,
    next_action_at BIGINT,
    leased_by      TEXT,
    lease_token    BIGINT NOT NULL DEFAULT 0,
    UNIQUE (kind, namespace, name),
    CHECK ((kind = 'ClusterIssuer') = (namespace = '')),
    CHECK (state = 'ready' OR next_action_at IS NOT NULL),
    CHECK (state <> 'ready' OR account_url IS NOT NULL)
);
CREATE INDEX issuers_due ON issuers (next_action_at) WHERE next_action_at IS NOT NULL;

CREATE TABLE certificates (
    id              UUID    NOT NULL PRIMARY KEY,
    namespace       TEXT    NOT NULL,
    name            TEXT    NOT NULL,
    labels          TEXT    NOT NULL,
    spec            TEXT    NOT NULL,
    issuer_kind     TEXT    NOT NULL,
    issuer_name     TEXT    NOT NULL,
    generation      BIGINT NOT NULL,
    state           TEXT    NOT NULL CHECK (state IN ('triggered', 'awaiting_issuer', 'ordering', 'idle', 'backoff', 'blocked')),
    wanted_because  TEXT    NOT NULL,
    state_since     BIGINT NOT NULL,
    revision        BIGINT NOT NULL, -- 0: nothing was issued yet
    serial          TEXT,
    not_before      BIGINT,
    not_after       BIGINT,
    renewal_time    BIGINT,
    failed_attempts BIGINT NOT NULL,
    last_error      TEXT,
    order_id        UUID,
    created_at      BIGINT NOT NULL,
    next_action_at  BIGINT NOT NULL,
    leased_by       TEXT,
    lease_token     BIGINT NOT NULL DEFAULT 0,
    UNIQUE (namespace, name),
    CHECK (state <> 'idle' OR revision > 0),
    CHECK ((revision > 0) = (not_after IS NOT NULL AND not_before IS NOT NULL AND renewal_time IS NOT NULL AND serial IS NOT NULL)),
    CHECK (state <> 'ordering' OR order_id IS NOT NULL)
);
CREATE INDEX certificates_due ON certificates (next_action_at);
CREATE INDEX certificates_by_namespace ON certificates (namespace, id);
CREATE INDEX certificates_by_expiry ON certificates (not_after) WHERE not_after IS NOT NULL;
CREATE INDEX certificates_by_issuer ON certificates (issuer_kind, issuer_name, state);

CREATE TABLE certificate_names (
    certificate_id UUID NOT NULL REFERENCES certificates (id) ON DELETE CASCADE,
    name           TEXT NOT NULL,
    PRIMARY KEY (name, certificate_id)
);
CREATE INDEX certificate_names_of ON certificate_names (certificate_id);

CREATE TABLE certificate_labels (
    certificate_id UUID NOT NULL REFERENCES certificates (id) ON DELETE CASCADE,
    label          TEXT NOT NULL, -- key=value
    PRIMARY KEY (label, certificate_id)
);
CREATE INDEX certificate_labels_of ON certificate_labels (certificate_id);

CREATE TABLE requests (
    id             UUID    NOT NULL PRIMARY KEY,
    certificate_id UUID   NOT NULL REFERENCES certificates (id) ON DELETE CASCADE,
    namespace      TEXT    NOT NULL,
    revision       BIGINT NOT NULL,
    csr            BYTEA   NOT NULL, -- DER
    private_key    BYTEA   NOT NULL, -- sealed PKCS #8
    state          TEXT    NOT NULL CHECK (state IN ('pending', 'issued', 'failed')),
    message        TEXT    NOT NULL,
    order_id       UUID,
    created_at     BIGINT NOT NULL,
    finished_at    BIGINT
);
CREATE INDEX requests_by_certificate ON requests (certificate_id, id);

CREATE TABLE orders (
    id             UUID    NOT NULL PRIMARY KEY,
    certificate_id UUID   NOT NULL,
    request_id     UUID   NOT NULL,
    issuer_id      UUID   NOT NULL,
    namespace      TEXT    NOT NULL,
    names          TEXT    NOT NULL, -- JSON array
    profile        TEXT,
    predecessors   BIGINT NOT NULL,
    state          TEXT    NOT NULL CHECK (state IN ('new', 'authorizing', 'presenting', 'accepting', 'validating', 'finalizing',
                                                     'processing', 'downloading', 'valid', 'invalid', 'errored', 'expired')),
    url            TEXT,
    expires        BIGINT,
    tries          BIGINT NOT NULL,
    stalled_since  BIGINT,
    attempts       BIGINT NOT NULL,
    last_error     TEXT,
    created_at     BIGINT NOT NULL,
    handed_out_at  BIGINT NOT NULL,
    next_action_at BIGINT,
    deadline       BIGINT NOT NULL,
    leased_by      TEXT,
    lease_token    BIGINT NOT NULL DEFAULT 0,
    CHECK (state IN ('valid', 'invalid', 'errored', 'expired') OR next_action_at IS NOT NULL),
    CHECK (state IN ('new', 'errored', 'expired') OR url IS NOT NULL)
);
CREATE INDEX orders_due ON orders (next_action_at) WHERE next_action_at IS NOT NULL;
CREATE INDEX orders_by_certificate ON orders (certificate_id, id);
CREATE INDEX orders_open_by_issuer ON orders (issuer_id) WHERE next_action_at IS NOT NULL;

CREATE TABLE challenges (
    id                UUID    NOT NULL PRIMARY KEY,
    order_id          UUID   NOT NULL REFERENCES orders (id) ON DELETE CASCADE,
    position          BIGINT NOT NULL, -- within the order
    authorization_url TEXT    NOT NULL,
    url               TEXT    NOT NULL,
    domain            TEXT    NOT NULL,
    wildcard          BOOLEAN NOT NULL,
    kind              TEXT    NOT NULL CHECK (kind IN ('http-01', 'dns-01')),
    solver            BIGINT NOT NULL,
    token             TEXT    NOT NULL,
    key_authorization TEXT    NOT NULL, -- what the CA wants to see; anybody may see it
    state             TEXT    NOT NULL CHECK (state IN ('pending', 'presented', 'visible', 'processing', 'valid', 'invalid', 'errored')),
    record            TEXT,
    clean             BOOLEAN NOT NULL,
    tries             BIGINT NOT NULL,
    reason            TEXT,
    next_action_at    BIGINT,
    deadline          BIGINT NOT NULL
);
CREATE INDEX challenges_by_order ON challenges (order_id, position);
CREATE INDEX challenges_by_token ON challenges (token) WHERE NOT clean;

CREATE TABLE revisions (
    certificate_id UUID   NOT NULL REFERENCES certificates (id) ON DELETE CASCADE,
    revision       BIGINT NOT NULL,
    request_id     UUID   NOT NULL,
    order_id       UUID   NOT NULL,
    chain          TEXT    NOT NULL, -- PEM, leaf first
    private_key    BYTEA   NOT NULL, -- sealed PKCS #8
    serial         TEXT    NOT NULL,
    fingerprint    TEXT    NOT NULL, -- SHA-256 of the leaf, hexadecimal
    not_before     BIGINT NOT NULL,
    not_after      BIGINT NOT NULL,
    issued_at      BIGINT NOT NULL,
    PRIMARY KEY (certificate_id, revision)
);

CREATE TABLE events (
    id             UUID    NOT NULL PRIMARY KEY,
    namespace      TEXT    NOT NULL, -- empty for a ClusterIssuer's
    collection     TEXT    NOT NULL,
    resource_id    UUID   NOT NULL,
    certificate_id UUID,             -- also what happened to its orders and challenges
    severity       TEXT    NOT NULL CHECK (severity IN ('Normal', 'Warning')),
    reason         TEXT    NOT NULL,
    message        TEXT    NOT NULL,
    created_at     BIGINT NOT NULL
);
CREATE INDEX events_by_resource ON events (resource_id, id);
CREATE INDEX events_by_certificate ON events (certificate_id, id);
CREATE INDEX events_by_namespace ON events (namespace, id);

CREATE TABLE idempotency_keys (
    caller       UUID   NOT NULL, -- API key
    key          TEXT    NOT NULL,
    request_hash BYTEA   NOT NULL, -- SHA-256 of method, path and body
    status       BIGINT NOT NULL,
    location     TEXT NOT NULL,
    body         TEXT NOT NULL,
    created_at   BIGINT NOT NULL,
    PRIMARY KEY (caller, key)
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);
