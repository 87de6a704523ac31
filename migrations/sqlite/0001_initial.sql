-- Times are milliseconds since the epoch, identifiers UUIDv7, documents JSON, secrets sealed envelopes.
-- A row with next_action_at wants attention at that time; while a worker holds it, that is when its
-- lease runs out. lease_token is the fencing token: every write from outside the lease raises it.

CREATE TABLE settings (
    name  TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL
) STRICT;

CREATE TABLE api_keys (
    id           BLOB    NOT NULL PRIMARY KEY,
    name         TEXT    NOT NULL,
    key_hash     BLOB    NOT NULL UNIQUE, -- SHA-256
    permissions  TEXT    NOT NULL,        -- JSON array
    namespaces   TEXT,                    -- JSON array; NULL: every namespace
    created_at   INTEGER NOT NULL
) STRICT;

CREATE TABLE secrets (
    id          BLOB    NOT NULL PRIMARY KEY,
    namespace   TEXT    NOT NULL,
    name        TEXT    NOT NULL,
    data        BLOB    NOT NULL, -- sealed JSON object
    data_keys   TEXT    NOT NULL, -- JSON array: the object's keys
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    UNIQUE (namespace, name)
) STRICT;

CREATE TABLE issuers (
    id             BLOB    NOT NULL PRIMARY KEY,
    kind           TEXT    NOT NULL CHECK (kind IN ('Issuer', 'ClusterIssuer')),
    namespace      TEXT    NOT NULL, -- empty for a ClusterIssuer
    name           TEXT    NOT NULL,
    acme           TEXT    NOT NULL,
    generation     INTEGER NOT NULL,
    state          TEXT    NOT NULL CHECK (state IN ('pending', 'ready', 'failed')),
    state_since    INTEGER NOT NULL,
    account_key    BLOB    NOT NULL, -- sealed PKCS #8
    account_url    TEXT,
    account_server TEXT,
    account_email  TEXT,
    tries          INTEGER NOT NULL,
    last_error     TEXT,
    created_at     INTEGER NOT NULL,
    next_action_at INTEGER,
    leased_by      TEXT,
    lease_token    INTEGER NOT NULL DEFAULT 0,
    UNIQUE (kind, namespace, name),
    CHECK ((kind = 'ClusterIssuer') = (namespace = '')),
    CHECK (state = 'ready' OR next_action_at IS NOT NULL),
    CHECK (state <> 'ready' OR account_url IS NOT NULL)
) STRICT;
CREATE INDEX issuers_due ON issuers (next_action_at) WHERE next_action_at IS NOT NULL;

CREATE TABLE certificates (
    id              BLOB    NOT NULL PRIMARY KEY,
    namespace       TEXT    NOT NULL,
    name            TEXT    NOT NULL,
    labels          TEXT    NOT NULL,
    spec            TEXT    NOT NULL,
    issuer_kind     TEXT    NOT NULL,
    issuer_name     TEXT    NOT NULL,
    generation      INTEGER NOT NULL,
    state           TEXT    NOT NULL CHECK (state IN ('triggered', 'awaiting_issuer', 'ordering', 'idle', 'backoff', 'blocked')),
    wanted_because  TEXT    NOT NULL,
    state_since     INTEGER NOT NULL,
    revision        INTEGER NOT NULL, -- 0: nothing was issued yet
    serial          TEXT,
    not_before      INTEGER,
    not_after       INTEGER,
    renewal_time    INTEGER,
    failed_attempts INTEGER NOT NULL,
    last_error      TEXT,
    order_id        BLOB,
    created_at      INTEGER NOT NULL,
    next_action_at  INTEGER NOT NULL,
    leased_by       TEXT,
    lease_token     INTEGER NOT NULL DEFAULT 0,
    UNIQUE (namespace, name),
    CHECK (state <> 'idle' OR revision > 0),
    CHECK ((revision > 0) = (not_after IS NOT NULL AND not_before IS NOT NULL AND renewal_time IS NOT NULL AND serial IS NOT NULL)),
    CHECK (state <> 'ordering' OR order_id IS NOT NULL)
) STRICT;
CREATE INDEX certificates_due ON certificates (next_action_at);
CREATE INDEX certificates_by_namespace ON certificates (namespace, id);
CREATE INDEX certificates_by_expiry ON certificates (not_after) WHERE not_after IS NOT NULL;
CREATE INDEX certificates_by_issuer ON certificates (issuer_kind, issuer_name, state);

CREATE TABLE certificate_names (
    certificate_id BLOB NOT NULL REFERENCES certificates (id) ON DELETE CASCADE,
    name           TEXT NOT NULL,
    PRIMARY KEY (name, certificate_id)
) STRICT;
CREATE INDEX certificate_names_of ON certificate_names (certificate_id);

CREATE TABLE certificate_labels (
    certificate_id BLOB NOT NULL REFERENCES certificates (id) ON DELETE CASCADE,
    label          TEXT NOT NULL, -- key=value
    PRIMARY KEY (label, certificate_id)
) STRICT;
CREATE INDEX certificate_labels_of ON certificate_labels (certificate_id);

CREATE TABLE requests (
    id             BLOB    NOT NULL PRIMARY KEY,
    certificate_id BLOB    NOT NULL REFERENCES certificates (id) ON DELETE CASCADE,
    namespace      TEXT    NOT NULL,
    revision       INTEGER NOT NULL,
    csr            BLOB    NOT NULL, -- DER
    private_key    BLOB    NOT NULL, -- sealed PKCS #8
    state          TEXT    NOT NULL CHECK (state IN ('pending', 'issued', 'failed')),
    message        TEXT    NOT NULL,
    order_id       BLOB,
    created_at     INTEGER NOT NULL,
    finished_at    INTEGER
) STRICT;
CREATE INDEX requests_by_certificate ON requests (certificate_id, id);

CREATE TABLE orders (
    id             BLOB    NOT NULL PRIMARY KEY,
    certificate_id BLOB    NOT NULL,
    request_id     BLOB    NOT NULL,
    issuer_id      BLOB    NOT NULL,
    namespace      TEXT    NOT NULL,
    names          TEXT    NOT NULL, -- JSON array
    profile        TEXT,
    predecessors   INTEGER NOT NULL,
    state          TEXT    NOT NULL CHECK (state IN ('new', 'authorizing', 'presenting', 'accepting', 'validating', 'finalizing',
                                                     'processing', 'downloading', 'valid', 'invalid', 'errored', 'expired')),
    url            TEXT,
    expires        INTEGER,
    tries          INTEGER NOT NULL,
    stalled_since  INTEGER,
    attempts       INTEGER NOT NULL,
    last_error     TEXT,
    created_at     INTEGER NOT NULL,
    handed_out_at  INTEGER NOT NULL,
    next_action_at INTEGER,
    deadline       INTEGER NOT NULL,
    leased_by      TEXT,
    lease_token    INTEGER NOT NULL DEFAULT 0,
    CHECK (state IN ('valid', 'invalid', 'errored', 'expired') OR next_action_at IS NOT NULL),
    CHECK (state IN ('new', 'errored', 'expired') OR url IS NOT NULL)
) STRICT;
CREATE INDEX orders_due ON orders (next_action_at) WHERE next_action_at IS NOT NULL;
CREATE INDEX orders_by_certificate ON orders (certificate_id, id);
CREATE INDEX orders_open_by_issuer ON orders (issuer_id) WHERE next_action_at IS NOT NULL;

CREATE TABLE challenges (
    id                BLOB    NOT NULL PRIMARY KEY,
    order_id          BLOB    NOT NULL REFERENCES orders (id) ON DELETE CASCADE,
    position          INTEGER NOT NULL, -- within the order
    authorization_url TEXT    NOT NULL,
    url               TEXT    NOT NULL,
    domain            TEXT    NOT NULL,
    wildcard          INTEGER NOT NULL,
    kind              TEXT    NOT NULL CHECK (kind IN ('http-01', 'dns-01')),
    solver            INTEGER NOT NULL,
    token             TEXT    NOT NULL,
    key_authorization TEXT    NOT NULL, -- what the CA wants to see; anybody may see it
    state             TEXT    NOT NULL CHECK (state IN ('pending', 'presented', 'visible', 'processing', 'valid', 'invalid', 'errored')),
    record            TEXT,
    clean             INTEGER NOT NULL,
    tries             INTEGER NOT NULL,
    reason            TEXT,
    next_action_at    INTEGER,
    deadline          INTEGER NOT NULL
) STRICT;
CREATE INDEX challenges_by_order ON challenges (order_id, position);
CREATE INDEX challenges_by_token ON challenges (token) WHERE NOT clean;

CREATE TABLE revisions (
    certificate_id BLOB    NOT NULL REFERENCES certificates (id) ON DELETE CASCADE,
    revision       INTEGER NOT NULL,
    request_id     BLOB    NOT NULL,
    order_id       BLOB    NOT NULL,
    chain          TEXT    NOT NULL, -- PEM, leaf first
    private_key    BLOB    NOT NULL, -- sealed PKCS #8
    serial         TEXT    NOT NULL,
    fingerprint    TEXT    NOT NULL, -- SHA-256 of the leaf, hexadecimal
    not_before     INTEGER NOT NULL,
    not_after      INTEGER NOT NULL,
    issued_at      INTEGER NOT NULL,
    PRIMARY KEY (certificate_id, revision)
) STRICT;

CREATE TABLE events (
    id             BLOB    NOT NULL PRIMARY KEY,
    namespace      TEXT    NOT NULL, -- empty for a ClusterIssuer's
    collection     TEXT    NOT NULL,
    resource_id    BLOB    NOT NULL,
    certificate_id BLOB,             -- also what happened to its orders and challenges
    severity       TEXT    NOT NULL CHECK (severity IN ('Normal', 'Warning')),
    reason         TEXT    NOT NULL,
    message        TEXT    NOT NULL,
    created_at     INTEGER NOT NULL
) STRICT;
CREATE INDEX events_by_resource ON events (resource_id, id);
CREATE INDEX events_by_certificate ON events (certificate_id, id);
CREATE INDEX events_by_namespace ON events (namespace, id);

CREATE TABLE idempotency_keys (
    caller       BLOB    NOT NULL, -- API key
    key          TEXT    NOT NULL,
    request_hash BLOB    NOT NULL, -- SHA-256 of method, path and body
    status       INTEGER NOT NULL,
    location     TEXT NOT NULL,
    body         TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    PRIMARY KEY (caller, key)
) STRICT;
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);
