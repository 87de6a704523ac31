//! Issuance at a real CA in single steps, by a clock that is moved: what takes minutes out there takes none
//! here, and time that passes by itself does not count.

use std::sync::Arc;

use certwright::api::CallerLimits;
use certwright::clock::{Clock as _, SystemClock};
use certwright::storage::lease;
use certwright::worker::{NewOrders, Worker};
use futures_util::future::join_all;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use super::cloudflare::Cloudflare;
use super::fault_proxy::FaultProxy;
use super::patience::within;
use super::pebble::{BEARS, Pebble, PebbleOptions};
use super::world::{World, cluster_issuer, id};

/// Rows that are worked on at the same time.
const AT_ONCE: usize = 32;

/// Many more moves of the clock than anything takes.
const MOVES: usize = 5_000;

/// A world whose `ClusterIssuer` `le` proves by DNS, through a proxy that goes by the world's clock.
pub struct Driven {
    pub world: World,
    pub pebble: Pebble,
    pub proxy: FaultProxy,
    /// Where the issuer is.
    pub issuer: String,
    worker: Arc<Worker>,
    pub cloudflare: Cloudflare,
}

impl Driven {
    /// The same with limits for those who call.
    pub fn limited(self, limits: CallerLimits) -> Self {
        Self { world: self.world.limited(limits), ..self }
    }

    /// With `more` in the issuer's `acme`; `propagation` is its solver's.
    pub async fn on(database: &str, more: &Value) -> Self {
        Self::ordering(database, more, BEARS).await
    }

    /// The same with so many new orders at once.
    pub async fn ordering(database: &str, more: &Value, new_orders: NewOrders) -> Self {
        Self::at(database, more, new_orders, PebbleOptions::default()).await
    }

    /// At a CA that calls itself so in CAA records.
    pub async fn called(database: &str, identity: &str) -> Self {
        let caa_identities = vec![identity.to_owned()];
        let options = PebbleOptions { caa_identities, ..PebbleOptions::default() };
        Self::at(database, &json!({}), BEARS, options).await
    }

    async fn at(
        database: &str,
        more: &Value,
        new_orders: NewOrders,
        options: PebbleOptions,
    ) -> Self {
        let cloudflare = Cloudflare::start(&["example.com"]).await;
        let dns = Some(cloudflare.dns_addr());
        let pebble = Pebble::start(PebbleOptions { dns, ..options }).await;
        let proxy = FaultProxy::before(&pebble).await;
        let world = World::on(database).await.with_account_keys();
        // The CA dates what it issues by a clock of its own.
        world.clock.advance(SystemClock.now() - world.now());
        proxy.follow(world.clock.clone());
        let token = json!({"namespace": "certwright", "name": "cloudflare",
            "stringData": {"api-token": cloudflare.token()}});
        world.post("/secrets", token).await.accepted();
        let mut issuer = cluster_issuer("le");
        issuer["acme"]["server"] = json!(proxy.directory_url());
        issuer["acme"]["caBundle"] = json!(proxy.ca_bundle());
        let nameservers = json!([cloudflare.dns_addr()]);
        issuer["acme"]["solvers"] = json!([{"dns01": {"nameservers": nameservers, "propagation": {"mode": "none"}, "cloudflare": {
            "baseURL": cloudflare.base_url(),
            "apiTokenSecretRef": {"name": "cloudflare", "key": "api-token"}}}}]);
        for (key, value) in more.as_object().unwrap() {
            let of = match key.as_str() {
                "propagation" => &mut issuer["acme"]["solvers"][0]["dns01"],
                _ => &mut issuer["acme"],
            };
            of[key] = value.clone();
        }
        let issuer = format!("/issuers/{}", id(&world.post("/issuers", issuer).await.accepted()));
        let worker = world.worker_for(AT_ONCE, new_orders);
        let driven = Self { world, pebble, proxy, issuer, worker, cloudflare };
        driven.step().await;
        driven
    }

    /// Asks for a certificate for `NAME.example.com`.
    pub async fn ask_for(&self, name: &str) {
        self.world.create_certificate(name).await;
    }

    /// Works until there is nothing left to be done at this moment.
    pub async fn step(&self) {
        let work = async || while self.worker.work_due().await.unwrap() > 0 {};
        within("the end of what is due", join_all((0..AT_ONCE).map(|_| work()))).await;
    }

    /// Works, and lets time pass, until every certificate is ready; the certificates.
    pub async fn until_all_ready(&self) -> Vec<Value> {
        for _ in 0..MOVES {
            self.step().await;
            let all = self.world.certificates().await;
            if all.iter().all(|one| one["status"]["phase"] == "Ready") {
                return all;
            }
            self.pass().await;
        }
        panic!("it never came to that: {:#?}", self.world.certificates().await);
    }

    /// Moves the clock to when there is something to do again.
    pub async fn pass(&self) {
        let mut tx = self.world.db.read().await.unwrap();
        let due = lease::next_due(&mut tx).await.unwrap();
        let next = due.into_iter().map(|(_, at)| at).min();
        self.move_to(next.expect("there is something to wait for"));
    }

    /// The same, messages included, but to `end` at the latest.
    pub async fn pass_until(&self, end: OffsetDateTime) {
        let mut tx = self.world.db.read().await.unwrap();
        let due = lease::next_due(&mut tx).await.unwrap();
        let delivery = lease::next_delivery_due(&mut tx).await.unwrap();
        let next = due.into_iter().map(|(_, at)| at).chain(delivery).min();
        self.move_to(next.map_or(end, |at| at.min(end)));
    }

    fn move_to(&self, at: OffsetDateTime) {
        self.world.clock.advance((at - self.world.now()).max(Duration::ZERO));
    }
}
