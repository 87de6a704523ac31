//! The one table of all settings.

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    pub key: &'static str,
    pub env: &'static str,
    /// Empty if there is no default.
    pub default: &'static str,
    pub help: &'static str,
    /// Its value is never shown.
    pub secret: bool,
    /// A list in the file; its entries are joined by commas elsewhere.
    pub list: bool,
}

impl Setting {
    const fn new(
        key: &'static str,
        env: &'static str,
        default: &'static str,
        help: &'static str,
    ) -> Self {
        Self { key, env, default, help, secret: false, list: false }
    }

    const fn secret(key: &'static str, env: &'static str, help: &'static str) -> Self {
        Self { key, env, default: "", help, secret: true, list: false }
    }

    const fn list(key: &'static str, env: &'static str, help: &'static str) -> Self {
        Self { list: true, ..Self::new(key, env, "", help) }
    }
}

/// Every setting, in the order of the documentation.
pub const SETTINGS: &[Setting] = &[
    Setting::new(
        "data_dir",
        "CERTWRIGHT_DATA_DIR",
        "./data",
        "Folder of the SQLite database and of the master key, made on first start (0700).",
    ),
    Setting::secret(
        "database.url",
        "CERTWRIGHT_DATABASE_URL",
        "`sqlite://PATH` or `postgres://USER:PASSWORD@HOST/NAME`. Default: `certwright.db` in `data_dir`.",
    ),
    Setting::new(
        "http.listen",
        "CERTWRIGHT_HTTP_LISTEN",
        "127.0.0.1:8080",
        "Address of the API. Put a TLS proxy in front of anything but loopback.",
    ),
    Setting::new(
        "http.header_timeout",
        "CERTWRIGHT_HTTP_HEADER_TIMEOUT",
        "10s",
        "How long the head of a request may take, on every listener, from 1s to 1h; also a client of HTTP/2 that answers no ping for so long is gone.",
    ),
    Setting::new(
        "http.idle_timeout",
        "CERTWRIGHT_HTTP_IDLE_TIMEOUT",
        "75s",
        "How long a connection is kept for the next request, on every listener. Longer than a proxy in front keeps it.",
    ),
    Setting::new(
        "http.max_connections",
        "CERTWRIGHT_HTTP_MAX_CONNECTIONS",
        "1000",
        "Connections to the API at once, at most a quarter of the descriptors (`ulimit -n`). When there are more, the one that has kept it waiting for longest is closed.",
    ),
    Setting::new(
        "http01.listen",
        "CERTWRIGHT_HTTP01_LISTEN",
        "127.0.0.1:8402",
        "Address of the HTTP-01 responder; forward `/.well-known/acme-challenge/` of port 80 here.",
    ),
    Setting::new(
        "http01.max_connections",
        "CERTWRIGHT_HTTP01_MAX_CONNECTIONS",
        "1000",
        "The same for the HTTP-01 responder, at most an eighth of the descriptors.",
    ),
    Setting::new(
        "http01.self_check_port",
        "CERTWRIGHT_HTTP01_SELF_CHECK_PORT",
        "80",
        "Port that is asked before a CA is told that an HTTP-01 proof is there.",
    ),
    Setting::list(
        "dns.nameservers",
        "CERTWRIGHT_DNS_NAMESERVERS",
        "Resolvers, as `IP` or `IP:PORT`. Default: the system's.",
    ),
    Setting::new(
        "dns.authority_port",
        "CERTWRIGHT_DNS_AUTHORITY_PORT",
        "53",
        "Port of authoritative name servers; another one only in tests.",
    ),
    Setting::new(
        "dns.sweep_interval",
        "CERTWRIGHT_DNS_SWEEP_INTERVAL",
        "1h",
        "Time from one look for TXT records that were left behind to the next.",
    ),
    Setting::secret(
        "bootstrap.api_key",
        "CERTWRIGHT_BOOTSTRAP_API_KEY",
        "An admin API key that is to exist: `cw_` and 43 characters of base64url. Default: one is made and printed on first start.",
    ),
    Setting::secret(
        "master_key",
        "CERTWRIGHT_MASTER_KEY",
        "Master key that secrets are sealed under: 32 bytes in base64. Of several, separated by commas, the first seals and all open. `certwright secrets rotate` seals what is there anew under the first.",
    ),
    Setting::new(
        "master_key_file",
        "CERTWRIGHT_MASTER_KEY_FILE",
        "",
        "File with the master key, readable by nobody else. Default: `master.key` in `data_dir`, made on first start.",
    ),
    Setting::list(
        "outbound.allow",
        "CERTWRIGHT_OUTBOUND_ALLOW",
        "Hosts and networks (CIDR) that may be reached although they are private: by self-checks, webhooks, the authoritative name servers of names, and the CAs and name servers of Issuers. Webhooks there may also use `http` and any port; a `baseURL` of an Issuer is used only there. For development, and for a private CA.",
    ),
    Setting::new(
        "outbound.allow_http",
        "CERTWRIGHT_OUTBOUND_ALLOW_HTTP",
        "false",
        "`true` lets webhooks use `http` everywhere; add 80 to `outbound.ports` then.",
    ),
    Setting {
        list: true,
        ..Setting::new(
            "outbound.ports",
            "CERTWRIGHT_OUTBOUND_PORTS",
            "443",
            "Ports that webhooks may be sent to.",
        )
    },
    Setting::new(
        "events.retention",
        "CERTWRIGHT_EVENTS_RETENTION",
        "30d",
        "How long events are kept, from 1h. The last one about what is still there stays.",
    ),
    Setting::new(
        "acme.timeout",
        "CERTWRIGHT_ACME_TIMEOUT",
        "30s",
        "How long a CA may take for an answer, at most 30s; for `finalize` three times as long.",
    ),
    Setting::new(
        "worker.concurrency",
        "CERTWRIGHT_WORKER_CONCURRENCY",
        "256",
        "Orders, certificates and issuers that are worked on at the same time.",
    ),
    Setting::new(
        "worker.per_issuer",
        "CERTWRIGHT_WORKER_PER_ISSUER",
        "192",
        "Of those, orders of one issuer at most: a CA that hangs leaves the rest to others.",
    ),
    Setting::new(
        "worker.per_namespace",
        "CERTWRIGHT_WORKER_PER_NAMESPACE",
        "128",
        "Of those, certificates and orders of one namespace at most.",
    ),
    Setting::new(
        "worker.new_orders_start",
        "CERTWRIGHT_WORKER_NEW_ORDERS_START",
        "4",
        "New orders of one account that a CA is sent at once before it is known what it bears: more while it answers quickly, one again after a 429, a 503 or a timeout.",
    ),
    Setting::new(
        "worker.new_orders_ceiling",
        "CERTWRIGHT_WORKER_NEW_ORDERS_CEILING",
        "64",
        "The same, at most. 1 for a CA that cannot bear two at once.",
    ),
    Setting::new(
        "worker.lease",
        "CERTWRIGHT_WORKER_LEASE",
        "15s",
        "A replica that has been silent for so long is taken for dead, and the others go on with its work. PostgreSQL only: on SQLite the next start does.",
    ),
    Setting::new(
        "cluster_resource_namespace",
        "CERTWRIGHT_CLUSTER_RESOURCE_NAMESPACE",
        "certwright",
        "Namespace of the Secrets that a ClusterIssuer refers to. No API key can be bound to it; one that was has no access there any more.",
    ),
    Setting::new(
        "webhooks.concurrency",
        "CERTWRIGHT_WEBHOOKS_CONCURRENCY",
        "64",
        "Webhooks that are delivered to at the same time; beside `worker.concurrency`.",
    ),
    Setting::new(
        "webhooks.retention",
        "CERTWRIGHT_WEBHOOKS_RETENTION",
        "30d",
        "How long deliveries that succeeded, or were held, are remembered. Those that failed for good stay.",
    ),
    Setting::new(
        "metrics.enabled",
        "CERTWRIGHT_METRICS_ENABLED",
        "true",
        "`false` serves no metrics.",
    ),
    Setting::new(
        "metrics.listen",
        "CERTWRIGHT_METRICS_LISTEN",
        "",
        "An address of their own for the metrics, such as `127.0.0.1:9402`, where `GET /metrics` is open to whoever reaches it. Default: they are on the API's, for keys with `metrics:read`.",
    ),
    Setting::new(
        "metrics.certificates",
        "CERTWRIGHT_METRICS_CERTIFICATES",
        "0",
        "So many certificates are listed in the metrics by namespace and name with their ends, the soonest first; at most 1000.",
    ),
    Setting::new(
        "log.level",
        "CERTWRIGHT_LOG_LEVEL",
        "info",
        "`error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,certwright::ca=debug`.",
    ),
    Setting::new(
        "log.format",
        "CERTWRIGHT_LOG_FORMAT",
        "auto",
        "`text`, `json`, or `auto`: text on a terminal.",
    ),
    Setting::new(
        "shutdown_timeout",
        "CERTWRIGHT_SHUTDOWN_TIMEOUT",
        "20s",
        "How long a stop waits for what is under way.",
    ),
];

/// Environment variables of ours that are no settings of the service.
pub(super) const OTHER_VARIABLES: &[&str] = &[
    "CERTWRIGHT_CONFIG",
    "CERTWRIGHT_SERVER",
    "CERTWRIGHT_API_KEY",
    "CERTWRIGHT_API_KEY_FILE",
    "CERTWRIGHT_PROFILE",
];
