//! A service without sockets: the real router on a real database, a clock that moves when told to,
//! and words for what clients do. Helpers that go past the API begin with `db_`.

use std::sync::{Arc, Mutex};

use certwright::api::{self, App, CallerLimits, LastUses, Metrics, MetricsSettings, Refusals};
use certwright::ca::{Authorities, Ca};
use certwright::clock::{Clock, ManualClock, SystemClock};
use certwright::domain::access_rule::Rule;
use certwright::domain::api_key::{self, ApiKey};
use certwright::domain::certificate::{Certificate, Issued, Transition};
use certwright::domain::challenge::{self, Challenge};
use certwright::domain::forwarded::{NotedIn, TrustedProxies};
use certwright::domain::id::{CertificateId, ChallengeId, OrderId, RequestId};
use certwright::domain::issuer::{self, Account, Issuer};
use certwright::domain::order::{self, Order, Stage};
use certwright::domain::token_issuer::TokenIssuer;
use certwright::health::{Health, Subjects};
use certwright::heavy::Pool;
use certwright::oidc::Issuers;
use certwright::outbound::{Allow, Guard, Sender, SenderSettings, resolver};
use certwright::secret::{Sealer, Secret};
use certwright::solver::{SolverSettings, Solvers};
use certwright::storage::requests::{self, RequestState};
use certwright::storage::revisions::{self, Revision};
use certwright::storage::{Db, Scope, api_keys, certificates, challenges, issuers, lease, orders};
use certwright::worker::{self, NewOrders, Pulse, Worker};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::datetime;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use super::asking::Reply;
use super::databases::SEALER;
use super::pebble::BEARS;

/// Expands each test once per database.
macro_rules! on_every_database {
    ($($(#[$attribute:meta])* async fn $name:ident($world:ident: World) $body:block)*) => {
        mod sqlite {
            use super::*;
            $($(#[$attribute])* #[tokio::test] async fn $name() {
                let (_folder, url) = $crate::support::world::sqlite();
                let $world = World::on(&url).await;
                $body
            })*
        }
        mod postgres {
            use super::*;
            $($(#[$attribute])* #[tokio::test] async fn $name() {
                let url = $crate::support::postgres::fresh_database().await;
                let $world = World::on(&url).await;
                $body
            })*
        }
    };
}
pub(crate) use on_every_database;

/// What must not show in any answer.
pub const CANARIES: [&str; 3] = ["canary-account-key", "canary-secret-value", "canary-private-key"];

pub struct World {
    pub router: axum::Router,
    pub db: Db,
    pub clock: Arc<ManualClock>,
    pub sealer: Arc<Sealer>,
    pub outbound: Sender,
    pub shutdown: CancellationToken,
    /// What was refused within the minute.
    pub refusals: Refusals,
    /// Each time that somebody asks, it looks.
    pub health: Health,
    pub authorities: Arc<Authorities>,
    pulse: Arc<Pulse>,
    limits: CallerLimits,
    /// A key that may do everything everywhere.
    pub admin: String,
    /// Every answer that was given: path and text.
    pub answers: Arc<Mutex<Vec<(String, String)>>>,
}

pub fn sqlite() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/certwright.db", folder.path().display());
    (folder, url)
}

impl World {
    pub async fn on(url: &str) -> Self {
        Self::over(Db::connect(url).await.unwrap()).await
    }

    /// A world on a database that is open already.
    pub async fn over(db: Db) -> Self {
        Self::posting(db, sender()).await
    }

    /// A world that posts to webhooks by `outbound`.
    pub async fn posting(db: Db, outbound: Sender) -> Self {
        let clock = Arc::new(ManualClock::at(datetime!(2026-11-24 12:00 UTC)));
        let sealer = Arc::clone(&SEALER);
        db.authenticate_rows(Arc::clone(&sealer));
        let shutdown = CancellationToken::new();
        let (router, answers, admin) = (axum::Router::new(), Arc::default(), String::new());
        let outbound = outbound.timed_by(clock.clone());
        let refusals = Refusals::default();
        let pulse = Arc::<Pulse>::default();
        let counted: Arc<dyn Clock> = clock.clone();
        let authorities = Arc::new(Authorities::new(&counted, outbound.guard().clone()));
        let subjects = Subjects {
            db: db.clone(),
            clock: counted,
            sealer: sealer.clone(),
            pulse: pulse.clone(),
            lease: std::time::Duration::from_secs(15),
            authorities: authorities.clone(),
        };
        let health = Health::fresh_for(subjects, std::time::Duration::ZERO);
        let mut world = Self {
            router,
            db,
            clock,
            sealer,
            outbound,
            shutdown,
            refusals,
            health,
            authorities,
            pulse,
            limits: CallerLimits::default(),
            admin,
            answers,
        };
        world.router = api::router(world.state().into());
        world.admin = world.db_key("admin", &["*"], Scope::Everything).await;
        world
    }

    fn state(&self) -> App {
        App {
            db: self.db.clone(),
            clock: self.clock.clone(),
            sealer: self.sealer.clone(),
            outbound: self.outbound.clone(),
            cluster_namespace: "certwright".into(),
            tokens: Issuers::default(),
            client_rules: Arc::default(),
            limits: self.limits.clone(),
            trusted_proxies: TrustedProxies::default(),
            cors_origins: Arc::default(),
            refusals: self.refusals.clone(),
            last_uses: LastUses::default(),
            heavy: Pool::default(),
            metrics: Metrics::new(MetricsSettings {
                fresh_for: std::time::Duration::ZERO,
                ..MetricsSettings::default()
            }),
            health: self.health.clone(),
            account_key: Arc::new(|| Ok(Secret::new(b"canary-account-key".to_vec()))),
            preflight: Arc::new(|_| Box::pin(async { Vec::new() })),
            shutdown: self.shutdown.clone(),
        }
    }

    /// The same with account keys that a CA takes.
    pub fn with_account_keys(mut self) -> Self {
        let make = || Ca::generate_account_key().map_err(|failure| failure.to_string().into());
        self.router = api::router(App { account_key: Arc::new(make), ..self.state() }.into());
        self
    }

    /// The same that takes the tokens of these issuers, on a clock that goes with theirs.
    pub fn trusting(self, issuers: Vec<TokenIssuer>) -> Self {
        self.recognising(issuers, Vec::new())
    }

    /// The same that also takes client certificates by these rules.
    pub fn recognising(mut self, issuers: Vec<TokenIssuer>, client_rules: Vec<Rule>) -> Self {
        self.clock.advance(SystemClock.now() - self.now());
        let (tokens, client_rules) = (Issuers::new(issuers).unwrap(), client_rules.into());
        self.router = api::router(App { tokens, client_rules, ..self.state() }.into());
        self
    }

    /// The same behind proxies of these networks.
    pub fn behind(mut self, networks: &[&str]) -> Self {
        let networks = networks.iter().map(|network| network.parse().unwrap()).collect();
        let trusted_proxies = TrustedProxies::new(networks, NotedIn::default());
        self.router = api::router(App { trusted_proxies, ..self.state() }.into());
        self
    }

    /// The same that web pages of these origins may ask.
    pub fn open_to_pages_of(mut self, origins: &[&str]) -> Self {
        let cors_origins = origins.iter().map(|origin| (*origin).to_owned()).collect();
        self.router = api::router(App { cors_origins, ..self.state() }.into());
        self
    }

    /// The same with limits for those who call.
    pub fn limited(mut self, limits: CallerLimits) -> Self {
        self.limits = limits;
        self.router = api::router(self.state().into());
        self
    }

    /// A worker whose single steps a test takes.
    pub fn worker(&self) -> Arc<Worker> {
        self.worker_with(4, 4, BEARS)
    }

    /// A worker that takes one row at a time, so that a test may have so many at work on it.
    pub fn worker_for(&self, many: usize, new_orders: NewOrders) -> Arc<Worker> {
        self.worker_with(1, many, new_orders)
    }

    fn worker_with(&self, concurrency: usize, share: usize, new_orders: NewOrders) -> Arc<Worker> {
        let clock: Arc<dyn Clock> = self.clock.clone();
        let solvers = Solvers::new(SolverSettings {
            clock: self.clock.clone(),
            installation: "test".into(),
            nameservers: vec!["127.0.0.1:0".parse().unwrap()],
            authority_port: 9,
            self_check_port: 9,
            guard: self.outbound.guard().clone(),
        });
        let quota = worker::Quota::new(share, share);
        let settings = worker::Settings {
            name: "test".into(),
            shared: false,
            alone: true,
            lease: std::time::Duration::from_secs(15),
            sweep_interval: std::time::Duration::from_hours(1),
            concurrency,
            cluster_namespace: "certwright".into(),
            delivery_concurrency: 4,
            delivery_retention: time::Duration::days(30),
            dead_delivery_retention: time::Duration::days(180),
            approval_timeout: time::Duration::days(7),
            event_retention: time::Duration::days(30),
            order_retention: time::Duration::days(90),
        };
        Worker::new(worker::Context {
            db: self.db.clone(),
            clock: self.clock.clone(),
            sealer: self.sealer.clone(),
            ca: self.authorities.clone(),
            solvers: Arc::new(solvers.unwrap()),
            outbound: self.outbound.clone(),
            settings,
            limits: worker::Limits::new(&self.db, &clock, quota, new_orders),
            heavy: Pool::default(),
            pulse: Arc::clone(&self.pulse),
            stop: self.shutdown.clone(),
        })
    }

    /// What others do once they have noticed that the worker is dead.
    pub async fn db_take_over(&self) {
        // Leases on PostgreSQL end by its own clock; from now on the world's is not behind it.
        let now = self.db.clock().await.unwrap().unwrap_or_else(|| self.now());
        self.clock.advance((now - self.now()).max(time::Duration::ZERO));
        let mut tx = self.db.begin();
        lease::give_back(&mut tx, Some("test"), self.now()).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Delivers whatever is due at this moment.
    pub async fn deliver(&self) {
        self.worker().deliver_due().await.unwrap();
    }

    pub fn now(&self) -> OffsetDateTime {
        self.clock.now()
    }

    /// A key with these permissions in these namespaces.
    pub async fn key(&self, permissions: &[&str], namespaces: &[&str]) -> String {
        let names = namespaces.iter().map(|name| (*name).to_owned()).collect();
        self.db_key("limited", permissions, Scope::Namespaces(names)).await
    }

    /// A key with these permissions everywhere.
    pub async fn unbound_key(&self, permissions: &[&str]) -> String {
        self.db_key("limited", permissions, Scope::Everything).await
    }

    async fn db_key(&self, name: &str, permissions: &[&str], scope: Scope) -> String {
        let text = api_key::generate_key().unwrap().expose().clone();
        let permissions = permissions.iter().map(|word| (*word).to_owned()).collect();
        let key = ApiKey::new(name, permissions, scope, self.now());
        let mut tx = self.db.begin();
        api_keys::insert(&mut tx, &key, &api_key::hash_key(&text)).await.unwrap();
        tx.commit().await.unwrap();
        text
    }

    /// The `ClusterIssuer` `le`, which proves names of `example.com` by DNS and others by HTTP.
    pub async fn create_issuer(&self) -> Value {
        self.post("/issuers", cluster_issuer("le")).await.accepted()
    }

    /// A certificate for `NAME.example.com` from `le`.
    pub async fn create_certificate(&self, name: &str) -> Value {
        self.post("/certificates", certificate(name)).await.accepted()
    }

    pub async fn certificates(&self) -> Vec<Value> {
        self.get("/certificates?limit=500").await.json()["items"].as_array().unwrap().clone()
    }

    /// Saves what a worker would have made of the issuer `le`.
    pub async fn db_let_issuer(&self, happen: impl FnOnce(Issuer) -> issuer::Transition) {
        let mut tx = self.db.begin();
        let kind = issuer::Kind::ClusterIssuer;
        let found = issuers::find_by_name(&mut tx, kind, "", "le").await.unwrap();
        let (found, lease) = found.unwrap();
        issuers::save(&mut tx, &happen(found), &lease).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// The issuer `le` has its account, and is ready.
    pub async fn db_register(&self) {
        let now = self.now();
        self.db_let_issuer(|found| {
            let (url, server) = ("https://ca.example/a".into(), found.acme.server.clone());
            found.registered(Account { url, server, email: None }, now)
        })
        .await;
    }

    /// Saves what a worker would have made of the certificate.
    pub async fn db_change(&self, id: &str, change: impl FnOnce(Certificate) -> Certificate) {
        let now = self.now();
        self.db_let(id, |found| Transition::silent(change(found), now)).await;
    }

    /// Saves what something made of the certificate, with all that there is to tell.
    pub async fn db_let(&self, id: &str, happen: impl FnOnce(Certificate) -> Transition) {
        let mut tx = self.db.begin();
        let (found, lease) = certificates::find(&mut tx, certificate_id(id), &Scope::Everything)
            .await
            .unwrap()
            .unwrap();
        certificates::save(&mut tx, &happen(found), &lease, None).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// An order under way for the certificate, with a challenge whose record is written.
    pub async fn db_order(&self, id: &str) -> Order {
        let now = self.now();
        let mut tx = self.db.begin();
        let (found, lease) = certificates::find(&mut tx, certificate_id(id), &Scope::Everything)
            .await
            .unwrap()
            .unwrap();
        let issuer = &found.spec.issuer_ref;
        let (issuer, _) =
            issuers::find_by_name(&mut tx, issuer.kind, &found.namespace, &issuer.name)
                .await
                .unwrap()
                .unwrap();
        let request = requests::Request {
            id: RequestId::generate(now),
            name: found.request_name(),
            certificate: found.id,
            namespace: found.namespace.clone(),
            revision: 1,
            csr: b"csr".to_vec(),
            state: RequestState::Pending,
            message: "Waiting on certificate issuance".into(),
            order: OrderId::generate(now),
            requested_by: None,
            approval: None,
            created_at: now,
            finished_at: None,
        };
        let place = requests::private_key_place(&found.namespace, found.id, request.id);
        let sealed = self.sealer.seal(&place, b"canary-private-key").unwrap();
        requests::insert(&mut tx, &request, &sealed).await.unwrap();
        let challenge = challenge(&found, now);
        let order = Order {
            state: order::State::Open {
                url: "https://ca.example/order/1".into(),
                stage: Stage::Presenting,
            },
            challenges: vec![challenge.clone()],
            attempts: 2,
            ..Order::placed(request.order, &found, request.id, issuer.id, now)
        };
        orders::insert(&mut tx, &order, None).await.unwrap();
        challenges::insert(&mut tx, order.id, &[challenge]).await.unwrap();
        let placed = found.order_placed(request.id, order.id, now);
        certificates::save(&mut tx, &placed, &lease, None).await.unwrap();
        tx.commit().await.unwrap();
        order
    }

    /// Ends the order with a certificate, served from now on.
    pub async fn db_issue(&self, order: &Order) {
        let now = self.now();
        let issued = Issued {
            revision: 1,
            serial: "0abc".into(),
            not_before: now,
            not_after: now + time::Duration::days(90),
            renewal_time: now + time::Duration::days(60),
        };
        let mut tx = self.db.begin();
        let revision = Revision {
            certificate: order.certificate,
            revision: 1,
            request: order.request,
            order: order.id,
            chain: [pem("leaf"), pem("uppr")].concat(),
            serial: issued.serial.clone(),
            fingerprint: "f00d".into(),
            not_before: issued.not_before,
            not_after: issued.not_after,
            issued_at: now,
            revoked_at: None,
        };
        revisions::insert(&mut tx, &revision, 1, "done").await.unwrap();
        tx.commit().await.unwrap();
        self.db_let(&order.certificate.to_string(), |found| found.issued(issued, None, now)).await;
    }
}

/// Posts to this machine, and to nobody else.
fn sender() -> Sender {
    let allow = Allow::parse(["127.0.0.0/8"]).unwrap();
    let guard = Guard::new(resolver(&[], true).unwrap(), allow);
    let settings = SenderSettings { allow_http: false, ports: [443].into() };
    Sender::new(guard, settings).unwrap()
}

pub fn cluster_issuer(name: &str) -> Value {
    json!({"kind": "ClusterIssuer", "name": name, "acme": acme()})
}

pub fn acme() -> Value {
    json!({
        "server": "https://ca.example/directory",
        "email": "user@example.com",
        "solvers": [
            {"selector": {"dnsZones": ["example.com"]},
             "dns01": {"cloudflare": {"apiTokenSecretRef": {"name": "cloudflare", "key": "api-token"}}}},
            {"http01": {}}
        ]
    })
}

pub fn certificate(name: &str) -> Value {
    json!({
        "name": name,
        "issuerRef": {"name": "le", "kind": "ClusterIssuer"},
        "dnsNames": [format!("{name}.example.com")]
    })
}

pub fn pem(text: &str) -> String {
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

pub fn id(resource: &Value) -> String {
    resource["id"].as_str().unwrap().to_owned()
}

fn certificate_id(text: &str) -> CertificateId {
    CertificateId(text.parse::<Uuid>().unwrap())
}

fn challenge(certificate: &Certificate, now: OffsetDateTime) -> Challenge {
    let domain = certificate.spec.dns_names[0].trim_start_matches("*.").to_owned();
    let record = challenge::Record {
        name: format!("_acme-challenge.{domain}"),
        value: "value".into(),
        zone: "zone".into(),
        id: "record".into(),
    };
    Challenge {
        id: ChallengeId::generate(now),
        domain,
        state: challenge::State::Presented,
        record: Some(record),
        deadline: now + time::Duration::minutes(5),
        ..super::fixtures::challenge(1, now)
    }
}
