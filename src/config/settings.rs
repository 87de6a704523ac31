//! The one table of all settings.

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    pub key: &'static str,
    /// Empty if there is no default.
    pub default: &'static str,
    pub help: &'static str,
    /// Its value is never shown.
    pub secret: bool,
    /// A list in the file; its entries are joined by commas elsewhere.
    pub list: bool,
    /// An array of tables in the file; elsewhere the same as inline TOML: `[{key = "value"}]`.
    pub tables: bool,
}

impl Setting {
    const fn new(key: &'static str, default: &'static str, help: &'static str) -> Self {
        Self { key, default, help, secret: false, list: false, tables: false }
    }

    const fn secret(key: &'static str, help: &'static str) -> Self {
        Self { secret: true, ..Self::new(key, "", help) }
    }

    const fn tables(key: &'static str, help: &'static str) -> Self {
        Self { tables: true, ..Self::new(key, "", help) }
    }

    const fn list(key: &'static str, help: &'static str) -> Self {
        Self { list: true, ..Self::new(key, "", help) }
    }

    /// Its environment variable: `CERTWRIGHT_HTTP_LISTEN` for `http.listen`.
    pub fn env(&self) -> String {
        format!("CERTWRIGHT_{}", self.key.to_uppercase().replace('.', "_"))
    }
}

/// Every setting, in the order of the documentation.
#[rustfmt::skip]
pub const SETTINGS: &[Setting] = &[
    Setting::new("data_dir", "./data",
        "Folder of the SQLite database and of the master key, made on first start (0700)."),
    Setting::secret("database.url",
        "`sqlite://PATH` or `postgres://USER:PASSWORD@HOST/NAME`. Default: `certwright.db` in `data_dir`."),
    Setting::new("http.listen", "127.0.0.1:8080",
        "Address of the API over plain HTTP. Beyond loopback it takes `http.allow_plain`; `https.listen` is the better way."),
    Setting::new("http.allow_plain", "false",
        "`true` lets `http.listen` be reached from elsewhere without TLS: behind a proxy that ends TLS, on a network that nobody else is on."),
    Setting::list("http.trusted_proxies",
        "Networks of your own proxies, such as `10.0.0.0/8`: from there `http.forwarded_header` says who the client is, for limits, the log and the audit log."),
    Setting::new("http.forwarded_header", "X-Forwarded-For",
        "The one header that your proxies write the client's address into: `X-Forwarded-For` or `Forwarded` (RFC 7239). What a client sends in the other one counts for nothing."),
    Setting::list("http.cors_origins",
        "Origins whose web pages may ask the API from a browser, such as `https://app.example.com` (CORS). They need an API key or a token like everybody."),
    Setting::new("http.header_timeout", "10s",
        "How long the head of a request may take, on every listener, from 1s to 1h; also a client of HTTP/2 that answers no ping for so long is gone."),
    Setting::new("http.idle_timeout", "75s",
        "How long a connection is kept for the next request, on every listener. Longer than a proxy in front keeps it."),
    Setting::new("http.max_connections", "1000",
        "Connections to the API at once, at most a quarter of the descriptors (`ulimit -n`). When there are more, the one that has kept it waiting for longest is closed."),
    Setting::new("https.listen", "",
        "Address of the API over TLS (1.2 and 1.3), beside `http.listen`. Takes `https.certificate_file` and `https.key_file`, or `https.certificate`."),
    Setting::new("https.certificate_file", "",
        "PEM file of the chain that `https.listen` shows, leaf first. Looked at every five seconds: a new one needs no restart."),
    Setting::new("https.key_file", "",
        "PEM file of its private key."),
    Setting::new("https.certificate", "",
        "`NAMESPACE/NAME` of a certificate of this service that `https.listen` shows, in place of files. Until it is issued a self-signed one is shown."),
    Setting::new("https.client_ca_file", "",
        "PEM file of the CAs whose client certificates are a way in, beside API keys and tokens: [authentication.md](authentication.md). Clients without one are let in as before. Looked at every five seconds."),
    Setting::tables("https.client_rules",
        "The rules that make a role of the names in client certificates."),
    Setting::new("http01.listen", "127.0.0.1:8402",
        "Address of the HTTP-01 responder; forward `/.well-known/acme-challenge/` of port 80 here."),
    Setting::new("http01.max_connections", "1000",
        "The same for the HTTP-01 responder, at most an eighth of the descriptors."),
    Setting::new("http01.self_check_port", "80",
        "Port that is asked before a CA is told that an HTTP-01 proof is there."),
    Setting::list("dns.nameservers",
        "Resolvers, as `IP` or `IP:PORT`. Default: the system's."),
    Setting::new("dns.authority_port", "53",
        "Port of authoritative name servers; another one only in tests."),
    Setting::new("dns.sweep_interval", "1h",
        "Time from one look for TXT records that were left behind to the next."),
    Setting::secret("bootstrap.api_key",
        "The recovery key: an admin API key, `cw_` and 43 random characters of base64url. It exists from the start on at which its value is new, and ends with another value. Default: a key is made and printed on first start."),
    Setting::new("bootstrap.restore", "false",
        "`true` makes the key of `bootstrap.api_key` again if it was deleted."),
    Setting::tables("oidc.issuers",
        "OIDC issuers whose tokens are taken, with the rules that make a role of their claims: [authentication.md](authentication.md)."),
    Setting::secret("master_key",
        "Master key that secrets are sealed under: 32 bytes in base64. Of several, separated by commas, the first seals and all open. `certwright secrets rotate` seals what is there anew under the first."),
    Setting::new("master_key_file", "",
        "File with the master key, readable by nobody else. Default: `master.key` in `data_dir`, made on first start."),
    Setting::new("transit.address", "",
        "Address of a Vault or OpenBao whose transit engine wraps the master key, such as `https://vault.example.com:8200`: [at-rest.md](at-rest.md#the-master-key). The database holds it wrapped; each start, and the commands that read the database, have it unwrapped. The first start wraps the local key, if there is one."),
    Setting::new("transit.mount", "transit",
        "Where the transit engine is mounted there."),
    Setting::new("transit.key", "",
        "Name of the engine's key."),
    Setting::new("transit.token_file", "",
        "File with the token that the service shows there. Read at each start."),
    Setting::new("transit.role_id", "",
        "AppRole in place of a token: the role's identifier."),
    Setting::new("transit.secret_id_file", "",
        "File with the secret identifier of that role."),
    Setting::new("transit.ca_file", "",
        "PEM file of the CA that the server's certificate is from, where that is not a public one."),
    Setting::list("outbound.allow",
        "Hosts and networks (CIDR) that may be reached although they are private: by self-checks, webhooks, the authoritative name servers of names, and the CAs and name servers of Issuers. Webhooks there may also use `http` and any port; a `baseURL` of an Issuer is used only there. For development, and for a private CA."),
    Setting::new("outbound.allow_http", "false",
        "`true` lets webhooks use `http` everywhere; add 80 to `outbound.ports` then."),
    Setting { list: true, ..Setting::new("outbound.ports", "443",
        "Ports that webhooks may be sent to.") },
    Setting::new("events.retention", "30d",
        "How long events are kept, from 1h. The last one about what is still there stays."),
    Setting::new("orders.retention", "90d",
        "How long orders that are over are kept, with their challenges, certificate requests and revocations, from 1h. The last order and request of each certificate stay, and those of its revisions that are kept."),
    Setting::new("approval.timeout", "7d",
        "How long a request waits until somebody approves it, from 1h. Then it is denied."),
    Setting::new("acme.timeout", "30s",
        "How long a CA may take for an answer, at most 30s; for `finalize` three times as long."),
    Setting::new("worker.concurrency", "512",
        "Orders, certificates and issuers that are worked on at the same time."),
    Setting::new("worker.per_issuer", "384",
        "Of those, orders of one issuer at most: a CA that hangs leaves the rest to others."),
    Setting::new("worker.per_namespace", "256",
        "Of those, certificates and orders of one namespace at most."),
    Setting::new("worker.new_orders_start", "4",
        "New orders of one account that a CA is sent at once before it is known what it bears: more while it answers quickly, one again after a 429, a 503 or a timeout."),
    Setting::new("worker.new_orders_ceiling", "64",
        "The same, at most. 1 for a CA that cannot bear two at once."),
    Setting::new("worker.lease", "15s",
        "A replica that has been silent for so long is taken for dead, and the others go on with its work. PostgreSQL only: on SQLite the next start does."),
    Setting::new("cluster_resource_namespace", "certwright",
        "Namespace of the Secrets that a ClusterIssuer refers to. No API key can be bound to it; one that was has no access there any more."),
    Setting::new("webhooks.concurrency", "64",
        "Webhooks that are delivered to at the same time; beside `worker.concurrency`."),
    Setting::new("webhooks.retention", "30d",
        "How long deliveries that succeeded, or were held, are remembered."),
    Setting::new("webhooks.dead_retention", "180d",
        "How long deliveries that failed for good are remembered, and may be sent again, from 1h."),
    Setting::new("limits.failed_authentications", "10",
        "Wrong API keys and tokens from one address (of IPv6 a /64) in a minute; more are answered 429. A key that counts is let in all the same. 0 is no limit."),
    Setting::new("limits.requests_per_second", "0",
        "Requests of one API key, or subject of tokens, to one replica; more are answered 429. 0 is no limit."),
    Setting::new("limits.requests_per_second_of_address", "0",
        "Requests from one address (of IPv6 a /64) to one replica, whoever sends them; more are answered 429. 0 is no limit. Behind a proxy it needs `http.trusted_proxies`."),
    Setting::new("limits.requests_burst", "100",
        "Requests that such a one, or such an address, may send at once, where there is a limit."),
    Setting::new("limits.certificates_per_namespace", "0",
        "Certificates of one namespace; another one is refused (403 `quota_exceeded`). 0 is no limit."),
    Setting::new("limits.open_orders_per_namespace", "0",
        "Certificates of one namespace that are being issued at once, at the wish of clients; another one is answered 429. Renewals that come by themselves are not held up. 0 is no limit."),
    Setting::new("limits.event_streams", "100",
        "Streams of events that one API key, or subject of tokens, follows on one replica; another one is answered 429. 0 is no limit."),
    Setting::new("limits.waits", "1000",
        "Requests of such a one that wait (`Prefer: wait`) on one replica; another one is answered 429. 0 is no limit."),
    Setting::new("metrics.enabled", "true",
        "`false` serves no metrics."),
    Setting::new("metrics.listen", "",
        "An address of their own for the metrics, such as `127.0.0.1:9402`, where `GET /metrics` is open to whoever reaches it. Default: they are on the API's, for keys with `metrics:read`."),
    Setting::new("metrics.certificates", "0",
        "So many certificates are listed in the metrics by namespace and name with their ends, the soonest first; at most 1000."),
    Setting::new("telemetry.otlp.endpoint", "",
        "A collector that takes traces by OTLP (`http/protobuf`), such as `http://localhost:4318`: [operations.md](operations.md#traces). Default: none are sent."),
    Setting::secret("telemetry.otlp.headers",
        "Headers for it, as `NAME=VALUE`, several separated by commas."),
    Setting::new("telemetry.otlp.sample_ratio", "1",
        "The share of the traces that begin here which are sent, from 0 to 1. Of a trace that a client began, its `traceparent` says so."),
    Setting::new("log.level", "info",
        "`error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,certwright::ca=debug`. Read again, alone of all, with SIGHUP."),
    Setting::new("log.format", "auto",
        "`text`, `json`, or `auto`: text on a terminal."),
    Setting::new("shutdown_timeout", "20s",
        "How long a stop waits for what is under way."),
];

/// Environment variables of ours that are no settings of the service.
pub(super) const OTHER_VARIABLES: &[&str] = &[
    "CERTWRIGHT_CONFIG",
    "CERTWRIGHT_SERVER",
    "CERTWRIGHT_API_KEY",
    "CERTWRIGHT_API_KEY_FILE",
    "CERTWRIGHT_CLIENT_CERT",
    "CERTWRIGHT_CLIENT_KEY",
    "CERTWRIGHT_PROFILE",
];
