//! A whole installation: the service on its own sockets and clock, a real Pebble, and a double of
//! Cloudflare whose DNS both ask.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use certwright::config::{self, Config};
use certwright::domain::api_key;
use certwright::service::{self, Running};
use certwright::storage::Db;
use reqwest::Method;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::cloudflare::Cloudflare;
use super::fault_proxy::FaultProxy;
use super::patience::{PATIENCE, within};
use super::pebble::{Pebble, PebbleOptions, bearable};

/// Expands each test once per database.
macro_rules! on_each_site {
    ($($(#[$attribute:meta])* async fn $name:ident($site:ident: Site) $body:block)*) => {
        mod sqlite {
            use super::*;
            $($(#[$attribute])* #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let folder = tempfile::tempdir().unwrap();
                let url = format!("sqlite://{}/certwright.db", folder.path().display());
                let $site = Site::on(&url).await;
                $body
            })*
        }
        mod postgres {
            use super::*;
            $($(#[$attribute])* #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let $site = Site::on(&$crate::support::postgres::fresh_database().await).await;
                $body
            })*
        }
    };
}
pub(crate) use on_each_site;

pub struct Site {
    pub pebble: Pebble,
    proxy: Option<FaultProxy>,
    pub cloudflare: Cloudflare,
    pub api: SocketAddr,
    http: reqwest::Client,
    key: String,
    stop: CancellationToken,
    running: Option<Running>,
    config: Config,
    _folder: tempfile::TempDir,
}

/// How a site differs from the usual one.
pub struct SiteOptions {
    pub pebble: PebbleOptions,
    /// Where the CA, and the self-check, look for HTTP-01 proofs, and who answers there.
    pub http01_port: u16,
    pub responder: SocketAddr,
}

impl Site {
    /// The usual site: a CA that rejects one nonce in twenty and reuses authorizations.
    pub async fn on(database_url: &str) -> Self {
        let port = super::free_port();
        let pebble = PebbleOptions { nonce_reject: 5, authz_reuse: Some(50), ..Default::default() };
        let responder = SocketAddr::from(([127, 0, 0, 1], port));
        Self::with(database_url, SiteOptions { pebble, http01_port: port, responder }).await
    }

    pub async fn with(database_url: &str, options: SiteOptions) -> Self {
        Self::begin(database_url, options, false, &[]).await
    }

    /// The usual site with more settings.
    pub async fn configured(database_url: &str, settings: &[(&str, &str)]) -> Self {
        let port = super::free_port();
        let responder = SocketAddr::from(([127, 0, 0, 1], port));
        let options =
            SiteOptions { pebble: PebbleOptions::default(), http01_port: port, responder };
        Self::begin(database_url, options, false, settings).await
    }

    /// A site whose way to the CA leads through a [`FaultProxy`], which is harmless until told.
    pub async fn through_proxy(database_url: &str, pebble: PebbleOptions) -> Self {
        Self::through_proxy_with(database_url, pebble, &[]).await
    }

    /// The same with more settings.
    pub async fn through_proxy_with(
        database_url: &str,
        pebble: PebbleOptions,
        settings: &[(&str, &str)],
    ) -> Self {
        let port = super::free_port();
        let responder = SocketAddr::from(([127, 0, 0, 1], port));
        let options = SiteOptions { pebble, http01_port: port, responder };
        Self::begin(database_url, options, true, settings).await
    }

    async fn begin(
        database_url: &str,
        options: SiteOptions,
        faulty: bool,
        more: &[(&str, &str)],
    ) -> Self {
        let cloudflare = Cloudflare::start(&["example.com", "example.org"]).await;
        let pebble = Pebble::start(PebbleOptions {
            dns: Some(cloudflare.dns_addr()),
            http_port: Some(options.http01_port),
            ..options.pebble
        })
        .await;
        let proxy = if faulty { Some(FaultProxy::before(&pebble).await) } else { None };
        let folder = tempfile::tempdir().unwrap();
        let key = api_key::generate_key().unwrap().expose().clone();
        let settings = [
            ("data_dir", folder.path().display().to_string()),
            ("database.url", database_url.to_owned()),
            ("http.listen", "127.0.0.1:0".to_owned()),
            ("http01.listen", options.responder.to_string()),
            ("http01.self_check_port", options.http01_port.to_string()),
            ("dns.nameservers", cloudflare.dns_addr().to_string()),
            ("dns.authority_port", cloudflare.dns_addr().port().to_string()),
            ("outbound.allow", "127.0.0.0/8".to_owned()),
            ("bootstrap.api_key", key.clone()),
        ]
        .into_iter()
        .chain(bearable())
        .map(|(key, value)| (key.to_owned(), value));
        let more = more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let settings: Vec<_> = settings.chain(more).collect();
        let config = Config::parse(&config::read(None, [], &settings).unwrap()).unwrap();
        let stop = CancellationToken::new();
        // Between being given and being used, a port may be taken by somebody else.
        let mut started = Box::pin(service::start(&config, stop.clone())).await;
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        for _ in 0..1_000 {
            match &started {
                Err(error) if format!("{error:#}").contains("in use") => {
                    tick.tick().await;
                    started = Box::pin(service::start(&config, stop.clone())).await;
                }
                _ => break,
            }
        }
        let running = started.unwrap();
        let site = Self {
            pebble,
            proxy,
            cloudflare,
            api: running.api,
            // Longer than a client may wait for a certificate.
            http: reqwest::Client::builder().timeout(3 * PATIENCE).build().unwrap(),
            key,
            stop,
            running: Some(running),
            config,
            _folder: folder,
        };
        site.set_up_issuers().await;
        site
    }

    /// The admin API key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The settings of this installation that others on its machine go by.
    pub fn environment(&self) -> Vec<(String, String)> {
        let config = &self.config;
        [
            ("CERTWRIGHT_DATA_DIR", config.data_dir.display().to_string()),
            ("CERTWRIGHT_DATABASE_URL", config.database_url.expose().clone()),
            ("CERTWRIGHT_HTTP01_LISTEN", config.http01_listen.to_string()),
            ("CERTWRIGHT_HTTP01_SELF_CHECK_PORT", config.self_check_port.to_string()),
            ("CERTWRIGHT_HTTP_LISTEN", self.api.to_string()),
            ("CERTWRIGHT_DNS_NAMESERVERS", self.cloudflare.dns_addr().to_string()),
            ("CERTWRIGHT_DNS_AUTHORITY_PORT", config.authority_port.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    /// The database, past the service.
    pub async fn database(&self) -> Db {
        Db::connect(self.config.database_url.expose()).await.unwrap()
    }

    /// `dns`: everything by Cloudflare; `http`: everything by the responder.
    async fn set_up_issuers(&self) {
        let token = json!({"namespace": "certwright", "name": "cloudflare", "stringData": {"api-token": self.cloudflare.token()}});
        self.post("/secrets", &token).await.expect_status(201);
        self.create_issuer("dns", &json!([self.dns_solver()]), &json!({})).await;
        self.create_issuer(
            "http",
            &json!([{"http01": {"ingress": {"ingressClassName": "nginx"}}}]),
            &json!({}),
        )
        .await;
    }

    /// Until the issuer of this name has its account.
    pub async fn ready(&self, issuer: &str) {
        let ready = |found: &Value| {
            let all = found["items"].as_array().unwrap();
            let named = all.iter().find(|one| one["name"] == issuer).unwrap();
            named["status"]["conditions"][0]["status"] == "True"
        };
        self.until("/issuers?limit=500", ready).await;
    }

    /// What stands before the CA of a site made by [`Site::through_proxy`].
    pub fn proxy(&self) -> &FaultProxy {
        self.proxy.as_ref().expect("a site through a proxy")
    }

    pub fn dns_solver(&self) -> Value {
        json!({"dns01": {"cnameStrategy": "Follow", "cnameZones": ["example.org"], "cloudflare": {
            "baseURL": self.cloudflare.base_url(),
            "apiTokenSecretRef": {"name": "cloudflare", "key": "api-token"}}}})
    }

    /// Creates a `ClusterIssuer` for this site's CA; `more` goes into its `acme`.
    pub async fn create_issuer(&self, name: &str, solvers: &Value, more: &Value) -> Value {
        let (server, bundle) = match &self.proxy {
            Some(proxy) => (proxy.directory_url(), proxy.ca_bundle()),
            None => (self.pebble.directory_url(), self.pebble.ca_bundle()),
        };
        let mut acme = json!({
            "server": server, "caBundle": bundle,
            "email": "user@example.com", "solvers": solvers,
        });
        for (key, value) in more.as_object().unwrap() {
            acme[key] = value.clone();
        }
        let issuer = json!({"kind": "ClusterIssuer", "name": name, "acme": acme});
        self.post("/issuers", &issuer).await.expect_status(202)
    }

    /// Asks for a certificate and waits until it settles; its answer as it is then.
    pub async fn issue(&self, issuer: &str, names: &[&str]) -> Value {
        self.ask_for(issuer, names, &json!({}), 240).await.expect_status(202)
    }

    /// The same with more fields, and another patience in seconds.
    pub async fn ask_for(&self, issuer: &str, names: &[&str], more: &Value, wait: u32) -> Answer {
        let mut wanted = json!({
            "issuerRef": {"name": issuer, "kind": "ClusterIssuer"}, "dnsNames": names,
        });
        for (key, value) in more.as_object().unwrap() {
            wanted[key] = value.clone();
        }
        self.send(Method::POST, "/certificates", Some(&wanted), Some(wait)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, Some(body), None).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, None, None).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, None, None).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PUT, path, Some(body), None).await
    }

    pub async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PATCH, path, Some(body), None).await
    }

    /// A file as it came, with its headers; `password` protects keystores.
    pub async fn file(&self, path: &str, password: Option<&str>) -> reqwest::Response {
        let url = format!("http://{}{path}", self.api);
        let mut request = self.http.get(url).bearer_auth(&self.key);
        if let Some(password) = password {
            request = request.header("x-keystore-password", password);
        }
        request.send().await.unwrap()
    }

    /// Until `holds` says so of what is at `path`; looks ten times a second.
    #[expect(clippy::disallowed_methods, reason = "a client that polls does sleep")]
    pub async fn until(&self, path: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let found = self.get(path).await.body;
            if holds(&found) {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let found = self.get(path).await.body;
        let order = match found["status"]["order"].as_str() {
            Some(order) => format!("{:#}\n", self.get(order).await.body),
            None => String::new(),
        };
        let about = format!("/events?limit=50&resource={}", path.split('?').next().unwrap());
        let events = format!("{order}{:#}", self.get(&about).await.body);
        panic!("{path} never came to it: {found:#}\n{events}");
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        wait: Option<u32>,
    ) -> Answer {
        let url = format!("http://{}{path}", self.api);
        let mut request = self.http.request(method, url).bearer_auth(&self.key);
        if let Some(body) = body {
            request = request.json(body);
        }
        if let Some(seconds) = wait {
            request = request.header("prefer", format!("wait={seconds}"));
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Answer { status, body }
    }

    /// Starts again on what was stored.
    pub async fn start_again(&mut self) {
        self.stop = CancellationToken::new();
        let running = Box::pin(service::start(&self.config, self.stop.clone())).await.unwrap();
        self.api = running.api;
        self.running = Some(running);
    }

    /// Starts another replica on the same database; it ends with this one. Where its API is.
    pub async fn replica(&self) -> SocketAddr {
        let http01_listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let config = Config { http01_listen, ..self.config.clone() };
        Box::pin(service::start(&config, self.stop.clone())).await.unwrap().api
    }

    /// Stops as on SIGTERM.
    pub async fn stop(&mut self) {
        self.stop.cancel();
        if let Some(running) = self.running.take() {
            within("the stop", running.stopped()).await.unwrap();
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

impl Answer {
    #[track_caller]
    pub fn expect_status(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }

    pub fn text(&self) -> &str {
        self.body.as_str().unwrap_or_default()
    }
}
