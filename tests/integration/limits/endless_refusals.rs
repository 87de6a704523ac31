//! A CA that refuses the same thing for ever: gently asked, truly explained, and given up in time.

use certwright::worker::Worker;
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use crate::support::fault_proxy::{FaultProxy, Kind};
use crate::support::pebble::{Pebble, PebbleOptions};
use crate::support::world::{World, cluster_issuer, id, on_every_database};

on_every_database! {
    async fn a_csr_that_is_refused_for_ever_costs_few_requests_and_half_an_hour(world: World) {
        let pebble = Pebble::start(PebbleOptions::default()).await;
        let proxy = FaultProxy::before(&pebble).await;
        let world = world.with_account_keys();
        let worker = world.worker();
        let mut issuer = cluster_issuer("le");
        issuer["acme"]["server"] = json!(proxy.directory_url());
        issuer["acme"]["caBundle"] = json!(proxy.ca_bundle());
        world.post("/issuers", issuer).await.accepted();
        assert_eq!(worker.work_due().await.unwrap(), 1, "the account is registered");
        // It says ready, and does not let itself be finalized.
        proxy.call_all_ready();
        let certificate = format!("/certificates/{}", id(&world.create_certificate("stuck").await));
        let (begun, before) = (world.now(), proxy.all_requests());
        let sent = || proxy.all_requests() - before;
        let mut in_first_minute = 0;

        let over = loop {
            worker.work_due().await.unwrap();
            let order = only_order(&world).await;
            if order["state"] != "ready" && order["state"] != "processing" {
                break order;
            }
            if world.now() - begun < Duration::minutes(1) {
                in_first_minute = sent();
            }
            let next = time(&order["nextActionAt"]);
            assert!(next > world.now(), "{order}");
            let told = world.get(&format!("{certificate}/explain")).await.json();
            assert_eq!(time(&told["next"]["at"]), next, "{told}");
            assert_eq!(told["why"]["code"], "acme_order_not_ready", "{told}");
            is_idle_until(&world, &worker, next, &sent).await;
        };

        assert!(in_first_minute <= 20 && proxy.requests(Kind::Finalize) > 3, "{in_first_minute}");
        assert!(sent() <= 60, "{} requests", sent());
        assert!(world.now() - begun <= Duration::minutes(30), "{}", world.now() - begun);
        assert_eq!(over["state"], "errored", "{over}");
        let certificate = world.get(&certificate).await.json();
        assert_eq!(certificate["status"]["failedIssuanceAttempts"], 1, "{certificate}");
        assert_eq!(certificate["status"]["phase"], "Failed");
    }
}

/// Nothing is sent before the time that was told.
async fn is_idle_until(
    world: &World,
    worker: &Worker,
    next: OffsetDateTime,
    sent: &impl Fn() -> usize,
) {
    let before = sent();
    let just_before = next - Duration::milliseconds(1);
    if just_before > world.now() {
        world.clock.advance(just_before - world.now());
        worker.work_due().await.unwrap();
        assert_eq!(sent(), before, "it was asked before {next}");
    }
    world.clock.advance(next - world.now());
}

async fn only_order(world: &World) -> Value {
    let found = world.get("/orders?limit=10").await.json();
    let orders = found["items"].as_array().unwrap();
    assert_eq!(orders.len(), 1, "{found}");
    orders[0].clone()
}

fn time(text: &Value) -> OffsetDateTime {
    OffsetDateTime::parse(text.as_str().unwrap(), &Rfc3339).unwrap()
}
