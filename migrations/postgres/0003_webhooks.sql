-- What those who asked to be told know of a certificate's failures.
ALTER TABLE certificates ADD COLUMN failure_told BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE certificates ADD COLUMN block_told   BOOLEAN NOT NULL DEFAULT FALSE;

-- An endpoint with all that waits for it is worked on under one lease: that of its row here.
CREATE TABLE webhooks (
    id               UUID   NOT NULL PRIMARY KEY,
    namespace        TEXT    NOT NULL,
    spec             TEXT    NOT NULL,
    disabled_because TEXT    CHECK (disabled_because IN ('client', 'gone', 'failing')),
    failures         BIGINT NOT NULL, -- in a row
    failing_since    BIGINT,
    last_failure_at  BIGINT,
    last_success_at  BIGINT,
    last_error       TEXT,
    paused_until     BIGINT,
    secret           BYTEA   NOT NULL, -- sealed whsec_…
    former_secret    BYTEA,            -- sealed; signs as well, until former_until
    former_until     BIGINT,
    created_at       BIGINT NOT NULL,
    updated_at       BIGINT NOT NULL,
    next_action_at   BIGINT,
    leased_by        TEXT,
    lease_token      BIGINT NOT NULL DEFAULT 0,
    CHECK ((former_secret IS NULL) = (former_until IS NULL)),
    CHECK ((failures > 0) = (failing_since IS NOT NULL))
);
CREATE INDEX webhooks_due ON webhooks (next_action_at) WHERE next_action_at IS NOT NULL;
CREATE INDEX webhooks_by_namespace ON webhooks (namespace, id);
CREATE INDEX webhooks_former ON webhooks (former_until) WHERE former_until IS NOT NULL;

-- What an endpoint wants to hear of: the index over its spec.
CREATE TABLE webhook_subscriptions (
    webhook_id UUID NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    namespace  TEXT NOT NULL, -- '*': every one; '': that of ClusterIssuers
    event_type     TEXT NOT NULL, -- '*': every one
    selector   TEXT NOT NULL CHECK (selector IN ('all', 'named')),
    PRIMARY KEY (webhook_id, namespace, event_type)
);
CREATE INDEX webhook_subscriptions_to ON webhook_subscriptions (namespace, event_type, webhook_id) WHERE selector = 'all';

-- What is told, once for all that hear of it, so that every try of every delivery is the same bytes.
CREATE TABLE messages (
    id         UUID   NOT NULL PRIMARY KEY, -- webhook-id
    body       TEXT    NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX messages_by_age ON messages (created_at);

CREATE TABLE deliveries (
    id              UUID   NOT NULL PRIMARY KEY,
    webhook_id      UUID   NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    message_id      UUID   NOT NULL REFERENCES messages (id),
    event_type          TEXT    NOT NULL,
    subject         UUID   NOT NULL, -- what is told of one subject is told in order
    collection      TEXT    NOT NULL, -- the subject's
    state           TEXT    NOT NULL CHECK (state IN ('queued', 'pending', 'delivered', 'dead', 'held')),
    tries           BIGINT NOT NULL, -- since it was queued last
    attempts        BIGINT NOT NULL, -- in all
    last_attempt_at BIGINT,
    last_took       BIGINT,          -- milliseconds
    last_status     BIGINT,
    last_error      TEXT,
    last_answer     TEXT,             -- the beginning of it
    created_at      BIGINT NOT NULL,
    finished_at     BIGINT,
    next_action_at  BIGINT,
    deadline        BIGINT NOT NULL,
    CHECK ((state = 'pending') = (next_action_at IS NOT NULL)),
    CHECK ((state IN ('queued', 'pending')) = (finished_at IS NULL))
);
CREATE INDEX deliveries_due ON deliveries (webhook_id, next_action_at) WHERE state = 'pending';
CREATE INDEX deliveries_open ON deliveries (webhook_id, subject, id) WHERE state IN ('queued', 'pending');
CREATE INDEX deliveries_by_webhook ON deliveries (webhook_id, id);
CREATE INDEX deliveries_by_message ON deliveries (message_id);
CREATE INDEX deliveries_done ON deliveries (finished_at) WHERE state IN ('delivered', 'held');
