-- Times are milliseconds since the epoch, identifiers are UUIDv7, documents are JSON and secrets are sealed
-- envelopes. A row with next_action_at wants attention at that time; while a worker holds the row, its lease
-- runs out then. lease_token is the fencing token: every write from outside the lease raises it.

-- Settings, API keys and secrets

CREATE TABLE settings (
    name  TEXT    NOT NULL PRIMARY KEY,
    value BYTEA   NOT NULL
);

CREATE TABLE api_keys (
    id          UUID    NOT NULL PRIMARY KEY,
    name        TEXT    NOT NULL,
    key_hash    BYTEA   NOT NULL UNIQUE, -- SHA-256
    permissions TEXT    NOT NULL,        -- JSON array
    namespaces  TEXT,                    -- JSON array; NULL: all namespaces
    created_at  BIGINT  NOT NULL
);

CREATE TABLE idempotency_keys (
    caller       UUID    NOT NULL, -- the API key
    key          TEXT    NOT NULL,
    request_hash BYTEA   NOT NULL, -- SHA-256 of method, path and body
    status       BIGINT  NOT NULL,
    location     TEXT    NOT NULL,
    body         TEXT    NOT NULL,
    created_at   BIGINT  NOT NULL,
    PRIMARY KEY (caller, key)
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);

CREATE TABLE secrets (
    id         UUID    NOT NULL PRIMARY KEY,
    namespace  TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    data       BYTEA   NOT NULL, -- sealed JSON object
    data_keys  TEXT    NOT NULL, -- JSON array: the object's keys
    created_at BIGINT  NOT NULL,
    updated_at BIGINT  NOT NULL,
    UNIQUE (namespace, name)
);

-- Issuers

CREATE TABLE issuers (
    id               UUID    NOT NULL PRIMARY KEY,
    kind             TEXT    NOT NULL CHECK (kind IN ('Issuer', 'ClusterIssuer')),
    namespace        TEXT    NOT NULL, -- empty for a ClusterIssuer
    name             TEXT    NOT NULL,
    acme             TEXT    NOT NULL,
    generation       BIGINT  NOT NULL,
    state            TEXT    NOT NULL CHECK (state IN ('pending', 'ready', 'failed')),
    state_since      BIGINT  NOT NULL,
    account_key      BYTEA   NOT NULL, -- sealed PKCS #8
    account_url      TEXT,
    account_server   TEXT,
    account_email    TEXT,
    account_change   TEXT,             -- JSON: a key rollover or deactivation under way
    next_account_key BYTEA,            -- sealed PKCS #8; the CA may know it already
    tries            BIGINT  NOT NULL,
    last_error       TEXT,
    created_at       BIGINT  NOT NULL,
    next_action_at   BIGINT,
    leased_by        TEXT,
    lease_token      BIGINT  NOT NULL DEFAULT 0,
    UNIQUE (kind, namespace, name),
    CHECK ((kind = 'ClusterIssuer') = (namespace = '')),
    CHECK (state = 'ready' OR next_action_at IS NOT NULL),
    CHECK (state <> 'ready' OR account_url IS NOT NULL)
);
CREATE INDEX issuers_due ON issuers (next_action_at) WHERE next_action_at IS NOT NULL;

-- Certificates

CREATE TABLE certificates (
    id              UUID    NOT NULL PRIMARY KEY,
    namespace       TEXT    NOT NULL,
    name            TEXT    NOT NULL,
    labels          TEXT    NOT NULL,
    spec            TEXT    NOT NULL,
    issuer_kind     TEXT    NOT NULL,
    issuer_name     TEXT    NOT NULL,
    generation      BIGINT  NOT NULL,
    state           TEXT    NOT NULL CHECK (state IN ('triggered', 'awaiting_issuer', 'ordering', 'idle', 'backoff', 'blocked')),
    wanted_because  TEXT    NOT NULL,
    state_since     BIGINT  NOT NULL,
    revision        BIGINT  NOT NULL, -- 0: nothing was issued yet
    serial          TEXT,
    not_before      BIGINT,
    not_after       BIGINT,
    renewal_time    BIGINT,
    ari             TEXT,             -- JSON: the CA's renewal information (RFC 9773) for the served certificate
    revocation      TEXT,             -- JSON: the last revocation, wanted or done
    deleting_since  BIGINT,           -- the certificate is deleted once its revocations are over
    failed_attempts BIGINT  NOT NULL,
    last_error      TEXT,
    failure_told    BOOLEAN NOT NULL DEFAULT FALSE, -- webhooks were told of the failure
    block_told      BOOLEAN NOT NULL DEFAULT FALSE, -- webhooks were told that it is blocked
    order_id        UUID,
    created_at      BIGINT  NOT NULL,
    next_action_at  BIGINT  NOT NULL,
    leased_by       TEXT,
    lease_token     BIGINT  NOT NULL DEFAULT 0,
    UNIQUE (namespace, name),
    CHECK (state <> 'idle' OR revision > 0),
    CHECK ((revision > 0) = (not_after IS NOT NULL AND not_before IS NOT NULL AND renewal_time IS NOT NULL AND serial IS NOT NULL)),
    CHECK (state <> 'ordering' OR order_id IS NOT NULL)
) WITH (fillfactor = 80);
CREATE INDEX certificates_due ON certificates (next_action_at);
-- Rows are claimed by namespace, so that a crowded one does not hide the others.
CREATE INDEX certificates_lanes ON certificates (namespace, next_action_at);
CREATE INDEX certificates_by_namespace ON certificates (namespace, id);
CREATE INDEX certificates_by_expiry ON certificates (not_after) WHERE not_after IS NOT NULL;
CREATE INDEX certificates_by_issuer ON certificates (issuer_kind, issuer_name, state);
-- Few certificates were never issued; whoever asks what is not ready wants these.
CREATE INDEX certificates_unissued ON certificates (id) WHERE not_after IS NULL;

CREATE TABLE certificate_names (
    certificate_id UUID    NOT NULL REFERENCES certificates (id) ON DELETE CASCADE,
    name           TEXT    NOT NULL,
    PRIMARY KEY (name, certificate_id)
);
CREATE INDEX certificate_names_of ON certificate_names (certificate_id);

CREATE TABLE certificate_labels (
    certificate_id UUID    NOT NULL REFERENCES certificates (id) ON DELETE CASCADE,
    label          TEXT    NOT NULL, -- key=value
    PRIMARY KEY (label, certificate_id)
);
CREATE INDEX certificate_labels_of ON certificate_labels (certificate_id);

CREATE TABLE requests (
    id             UUID    NOT NULL PRIMARY KEY,
    certificate_id UUID    NOT NULL REFERENCES certificates (id) ON DELETE CASCADE,
    namespace      TEXT    NOT NULL,
    name           TEXT    NOT NULL DEFAULT '', -- <certificate>-<revision>, as cert-manager names it
    revision       BIGINT  NOT NULL,
    csr            BYTEA   NOT NULL, -- DER
    private_key    BYTEA   NOT NULL, -- sealed PKCS #8
    state          TEXT    NOT NULL CHECK (state IN ('pending', 'issued', 'failed')),
    message        TEXT    NOT NULL,
    order_id       UUID,
    created_at     BIGINT  NOT NULL,
    finished_at    BIGINT
);
CREATE INDEX requests_by_certificate ON requests (certificate_id, id);
CREATE INDEX requests_by_name ON requests (namespace, name);

CREATE TABLE revisions (
    certificate_id UUID    NOT NULL REFERENCES certificates (id) ON DELETE CASCADE,
    revision       BIGINT  NOT NULL,
    request_id     UUID    NOT NULL,
    order_id       UUID    NOT NULL,
    chain          TEXT    NOT NULL, -- PEM, leaf first
    private_key    BYTEA   NOT NULL, -- sealed PKCS #8
    serial         TEXT    NOT NULL,
    fingerprint    TEXT    NOT NULL, -- SHA-256 of the leaf, hexadecimal
    not_before     BIGINT  NOT NULL,
    not_after      BIGINT  NOT NULL,
    issued_at      BIGINT  NOT NULL,
    revoked_at     BIGINT,
    PRIMARY KEY (certificate_id, revision)
);

CREATE TABLE revocations (
    id             UUID    NOT NULL PRIMARY KEY,
    certificate_id UUID    NOT NULL, -- may be gone by now
    namespace      TEXT    NOT NULL,
    issuer_id      UUID    NOT NULL,
    revision       BIGINT  NOT NULL,
    reason         TEXT    NOT NULL,
    leaf           BYTEA   NOT NULL, -- DER
    request_id     UUID    NOT NULL, -- the key is sealed for this request
    private_key    BYTEA,            -- sealed PKCS #8, while it may be needed; NULL where a client holds it
    state          TEXT    NOT NULL CHECK (state IN ('pending', 'done', 'failed')),
    tries          BIGINT  NOT NULL,
    last_error     TEXT,
    created_at     BIGINT  NOT NULL,
    next_action_at BIGINT,
    deadline       BIGINT  NOT NULL,
    leased_by      TEXT,
    lease_token    BIGINT  NOT NULL DEFAULT 0,
    CHECK ((state = 'pending') = (next_action_at IS NOT NULL)),
    CHECK (state = 'pending' OR private_key IS NULL)
);
CREATE INDEX revocations_due ON revocations (next_action_at) WHERE next_action_at IS NOT NULL;
CREATE INDEX revocations_by_certificate ON revocations (certificate_id, revision);
CREATE INDEX revocations_open_by_issuer ON revocations (issuer_id) WHERE next_action_at IS NOT NULL;

-- Watches whether the served certificate nears its end. The row is its own, so that neither an order under way
-- nor a blocked certificate keeps its expiry from being told.
CREATE TABLE expiry_watches (
    id             UUID    NOT NULL PRIMARY KEY REFERENCES certificates (id) ON DELETE CASCADE, -- the certificate's
    revision       BIGINT  NOT NULL,
    not_before     BIGINT  NOT NULL,
    not_after      BIGINT  NOT NULL,
    told           TEXT    CHECK (told IN ('third', 'sixth', 'twentieth', 'expired')),
    next_action_at BIGINT,
    leased_by      TEXT,
    lease_token    BIGINT  NOT NULL DEFAULT 0,
    CHECK (told = 'expired' OR next_action_at IS NOT NULL)
);
CREATE INDEX expiry_watches_due ON expiry_watches (next_action_at) WHERE next_action_at IS NOT NULL;

-- Orders
-- The fill factor leaves room on each page for a row's next versions: an update that changes no index stays on
-- its page.

CREATE TABLE orders (
    id             UUID    NOT NULL PRIMARY KEY,
    certificate_id UUID    NOT NULL,
    request_id     UUID    NOT NULL,
    issuer_id      UUID    NOT NULL,
    namespace      TEXT    NOT NULL,
    name           TEXT    NOT NULL DEFAULT '', -- the request's name and a hash, as cert-manager names it
    names          TEXT    NOT NULL, -- JSON array
    profile        TEXT,
    replaces       TEXT,             -- the certificate that this order replaces, by its ARI identifier
    not_after      BIGINT,           -- when the certificate is to end; NULL leaves that to the CA
    predecessors   BIGINT  NOT NULL,
    state          TEXT    NOT NULL CHECK (state IN ('new', 'authorizing', 'presenting', 'accepting', 'validating', 'finalizing',
                                                     'processing', 'downloading', 'valid', 'invalid', 'errored', 'expired')),
    ended          BOOLEAN NOT NULL DEFAULT FALSE, -- apart from state, so that no step of an order touches orders_clean_ups
    course         TEXT    NOT NULL DEFAULT '{}', -- JSON: the furthest state, and the requests to the CA so far
    url            TEXT,
    expires        BIGINT,
    tries          BIGINT  NOT NULL,
    stalled_since  BIGINT,
    attempts       BIGINT  NOT NULL,
    last_error     TEXT,
    created_at     BIGINT  NOT NULL,
    handed_out_at  BIGINT  NOT NULL,
    next_action_at BIGINT,
    deadline       BIGINT  NOT NULL,
    leased_by      TEXT,
    lease_token    BIGINT  NOT NULL DEFAULT 0,
    CHECK (state IN ('valid', 'invalid', 'errored', 'expired') OR next_action_at IS NOT NULL),
    CHECK (state IN ('new', 'errored', 'expired') OR url IS NOT NULL)
) WITH (fillfactor = 70);
CREATE INDEX orders_due ON orders (next_action_at) WHERE next_action_at IS NOT NULL;
-- Rows are claimed by issuer and namespace, so that a crowded one does not hide the others.
CREATE INDEX orders_lanes ON orders (issuer_id, namespace, next_action_at) WHERE next_action_at IS NOT NULL;
-- Orders that are over and whose proofs are still to be removed, many at once.
CREATE INDEX orders_clean_ups ON orders (next_action_at) WHERE next_action_at IS NOT NULL AND ended;
CREATE INDEX orders_by_certificate ON orders (certificate_id, id);
CREATE INDEX orders_by_name ON orders (namespace, name);
CREATE INDEX orders_open_by_issuer ON orders (issuer_id) WHERE next_action_at IS NOT NULL;

CREATE TABLE challenges (
    id                UUID    NOT NULL PRIMARY KEY,
    order_id          UUID    NOT NULL REFERENCES orders (id) ON DELETE CASCADE,
    position          BIGINT  NOT NULL, -- within the order
    authorization_url TEXT    NOT NULL,
    url               TEXT    NOT NULL,
    domain            TEXT    NOT NULL,
    wildcard          BOOLEAN NOT NULL,
    kind              TEXT    NOT NULL CHECK (kind IN ('http-01', 'dns-01')),
    solver            BIGINT  NOT NULL,
    token             TEXT    NOT NULL,
    key_authorization TEXT    NOT NULL, -- what the CA wants to see; anybody may see it
    state             TEXT    NOT NULL CHECK (state IN ('pending', 'presented', 'visible', 'processing', 'valid', 'invalid', 'errored')),
    record            TEXT,
    clean             BOOLEAN NOT NULL,
    observations      TEXT,    -- JSON array: who was asked for the proof and what they saw; NULL before anybody was
    tries             BIGINT  NOT NULL,
    reason            TEXT,
    next_action_at    BIGINT,
    deadline          BIGINT  NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX challenges_by_order ON challenges (order_id, position);
CREATE INDEX challenges_by_token ON challenges (token) WHERE NOT clean;

-- Limits of the CAs

-- What a CA does not want to be asked before a moment. Rows of the past count for nothing and are swept.
CREATE TABLE throttles (
    key        TEXT    NOT NULL PRIMARY KEY, -- what is held, and of which CA or account
    scope      TEXT    NOT NULL CHECK (scope IN ('endpoint', 'account', 'domain', 'set', 'name')),
    held_until BIGINT  NOT NULL,
    why        TEXT    NOT NULL -- the failure, with the CA's words
);
CREATE INDEX throttles_by_end ON throttles (held_until);

-- What was spent of a CA's limits (generic cell rate algorithm): at spent_until all of it is earned again, and
-- the row is as good as none.
CREATE TABLE budgets (
    key         TEXT    NOT NULL PRIMARY KEY,
    pool        TEXT    NOT NULL, -- what is counted alike, to find the fullest of it
    spent_until BIGINT  NOT NULL
);
CREATE INDEX budgets_by_pool ON budgets (pool, spent_until);
CREATE INDEX budgets_by_end ON budgets (spent_until);

-- What an order has taken from the budgets, or its place among those who wait to.
CREATE TABLE reservations (
    order_id UUID    NOT NULL PRIMARY KEY REFERENCES orders (id) ON DELETE CASCADE,
    pool     TEXT    NOT NULL, -- the orders of one pool wait for each other
    priority BIGINT  NOT NULL, -- the least goes first
    granted  BOOLEAN NOT NULL,
    costs    TEXT    NOT NULL  -- JSON: what to give back should nothing come of it
);
CREATE INDEX reservations_waiting ON reservations (pool, priority) WHERE NOT granted;

-- Events. A repetition raises count and last_seen of one event. (written_in, position) is the event's place in
-- the stream, a new one with every change: written_in is the transaction (xid8), since positions of transactions
-- that overlap become visible in any order.
CREATE TABLE events (
    id             UUID    NOT NULL PRIMARY KEY,
    namespace      TEXT    NOT NULL, -- empty for a ClusterIssuer's
    collection     TEXT    NOT NULL,
    resource_id    UUID    NOT NULL,
    certificate_id UUID,             -- also for events of its orders and challenges
    severity       TEXT    NOT NULL CHECK (severity IN ('Normal', 'Warning')),
    reason         TEXT    NOT NULL,
    message        TEXT    NOT NULL,
    created_at     BIGINT  NOT NULL,
    count          BIGINT  NOT NULL DEFAULT 1,
    last_seen      BIGINT  NOT NULL DEFAULT 0,
    written_in     BIGINT  NOT NULL DEFAULT 0,
    position       BIGINT  NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX events_in_order ON events (written_in, position);
CREATE INDEX events_latest ON events (resource_id, position);
CREATE INDEX events_by_certificate ON events (certificate_id, id);
CREATE INDEX events_by_namespace ON events (namespace, id);
CREATE INDEX events_by_age ON events (last_seen, id);
CREATE SEQUENCE events_position;

-- Webhooks

-- An endpoint and everything that waits for it is worked on under one lease: that of its row here.
CREATE TABLE webhooks (
    id               UUID    NOT NULL PRIMARY KEY,
    namespace        TEXT    NOT NULL,
    spec             TEXT    NOT NULL,
    disabled_because TEXT    CHECK (disabled_because IN ('client', 'gone', 'failing')),
    failures         BIGINT  NOT NULL, -- in a row
    failing_since    BIGINT,
    last_failure_at  BIGINT,
    last_success_at  BIGINT,
    last_error       TEXT,
    paused_until     BIGINT,
    secret           BYTEA   NOT NULL, -- sealed whsec_…
    former_secret    BYTEA,            -- sealed; signs as well, until former_until
    former_until     BIGINT,
    created_at       BIGINT  NOT NULL,
    updated_at       BIGINT  NOT NULL,
    next_action_at   BIGINT,
    leased_by        TEXT,
    lease_token      BIGINT  NOT NULL DEFAULT 0,
    CHECK ((former_secret IS NULL) = (former_until IS NULL)),
    CHECK ((failures > 0) = (failing_since IS NOT NULL))
);
CREATE INDEX webhooks_due ON webhooks (next_action_at) WHERE next_action_at IS NOT NULL;
CREATE INDEX webhooks_by_namespace ON webhooks (namespace, id);
CREATE INDEX webhooks_former ON webhooks (former_until) WHERE former_until IS NOT NULL;

-- The event types that an endpoint subscribed to: the index over its spec.
CREATE TABLE webhook_subscriptions (
    webhook_id UUID    NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    namespace  TEXT    NOT NULL, -- '*': every one; '': that of ClusterIssuers
    event_type TEXT    NOT NULL, -- '*': every one
    selector   TEXT    NOT NULL CHECK (selector IN ('all', 'named')),
    PRIMARY KEY (webhook_id, namespace, event_type)
);
CREATE INDEX webhook_subscriptions_to ON webhook_subscriptions (namespace, event_type, webhook_id) WHERE selector = 'all';

-- The outbox: one message for all endpoints, so that every try of every delivery sends the same bytes.
CREATE TABLE messages (
    id         UUID    NOT NULL PRIMARY KEY, -- webhook-id
    body       TEXT    NOT NULL,
    created_at BIGINT  NOT NULL
);
CREATE INDEX messages_by_age ON messages (created_at);

CREATE TABLE deliveries (
    id              UUID    NOT NULL PRIMARY KEY,
    webhook_id      UUID    NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    message_id      UUID    NOT NULL REFERENCES messages (id),
    event_type      TEXT    NOT NULL,
    subject         UUID    NOT NULL, -- messages about one subject are delivered in order
    collection      TEXT    NOT NULL, -- the subject's
    namespace       TEXT,             -- the subject's; '' for a ClusterIssuer, NULL where nobody knows any more
    state           TEXT    NOT NULL CHECK (state IN ('queued', 'pending', 'delivered', 'dead', 'held')),
    tries           BIGINT  NOT NULL, -- since it was queued last
    attempts        BIGINT  NOT NULL, -- in all
    last_attempt_at BIGINT,
    last_took       BIGINT,           -- milliseconds
    last_status     BIGINT,
    last_error      TEXT,
    last_answer     TEXT,             -- the beginning of it
    created_at      BIGINT  NOT NULL,
    finished_at     BIGINT,
    next_action_at  BIGINT,
    deadline        BIGINT  NOT NULL,
    CHECK ((state = 'pending') = (next_action_at IS NOT NULL)),
    CHECK ((state IN ('queued', 'pending')) = (finished_at IS NULL))
);
CREATE INDEX deliveries_due ON deliveries (webhook_id, next_action_at) WHERE state = 'pending';
CREATE INDEX deliveries_open ON deliveries (webhook_id, subject, id) WHERE state IN ('queued', 'pending');
CREATE INDEX deliveries_by_webhook ON deliveries (webhook_id, id);
CREATE INDEX deliveries_by_message ON deliveries (message_id);
CREATE INDEX deliveries_done ON deliveries (finished_at) WHERE state IN ('delivered', 'held');

-- The replicas

-- The heartbeat of each worker, so that the others notice when it stops. On SQLite there is one process.
CREATE TABLE workers (
    name    TEXT    NOT NULL PRIMARY KEY, -- the value of leased_by
    seen_at BIGINT  NOT NULL              -- by the database's clock
);

-- Periodic work that one replica does for all.
CREATE TABLE tasks (
    id             UUID    NOT NULL PRIMARY KEY,
    task           TEXT    NOT NULL UNIQUE,
    next_action_at BIGINT  NOT NULL,
    leased_by      TEXT,
    lease_token    BIGINT  NOT NULL DEFAULT 0
);
CREATE INDEX tasks_due ON tasks (next_action_at);

-- Fails if a fenced write has not found its row, and with it the joint statement that contains the write. The
-- detail names the lease.
CREATE FUNCTION lease_held(written BIGINT, lease UUID) RETURNS BOOLEAN LANGUAGE plpgsql AS $$
BEGIN
    IF written <> 1 THEN
        RAISE EXCEPTION 'the lease on % was lost', lease USING ERRCODE = 'LL001', DETAIL = lease::text;
    END IF;
    RETURN TRUE;
END
$$;
