//! One of two replicas is stuck: it holds what it was at, and answers nobody.

use std::collections::HashSet;

use rustix::process::Signal;
use serde_json::json;

use super::watched::subject;
use super::{TOLD, found_by, warnings};
use crate::support::installation::{Database, Installation};
use crate::support::patience::until;
use crate::support::prometheus::Prometheus;
use crate::support::receiver::Receiver;

const COUNT: usize = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_stuck() {
    let mut site = Installation::on(Database::Postgres).await;
    site.set("METRICS_LISTEN", "127.0.0.1:0");
    let stuck = site.start_with("after_finalize=1*return(stop)").await;
    let prometheus = Prometheus::scraping(&stuck.metrics()).await;
    let receiver = Receiver::start().await;
    let hook = json!({"url": receiver.url(), "events": TOLD});
    assert_eq!(site.post(&stuck, "/webhooks", &hook).await.unwrap().status, 201);
    site.set_up(&stuck).await;
    // In one request: the first certificate may stop the process before a second one is sent.
    let wanted = |n| {
        json!({"name": format!("c{n}"), "issuerRef": {"name": "dns", "kind": "ClusterIssuer"},
            "dnsNames": [format!("c{n}.example.com")]})
    };
    let items: Vec<_> = (0..COUNT).map(wanted).collect();
    let taken = site.post(&stuck, "/certificates/batch", &json!({"items": items})).await.unwrap();
    assert_eq!(taken.status, 207, "{taken:?}");
    stuck.until_stopped().await;
    prometheus.until_alert("CertwrightDown", true).await;

    let mut other = site.start().await;
    let ready = site.until_all_ready(&mut other, COUNT).await;

    assert_eq!(site.get(&other, "/readyz").await.unwrap().status, 200, "it is not its trouble");
    let silent: Vec<_> =
        warnings(&other).into_iter().filter(|line| line.contains("fallen silent")).collect();
    assert!(!silent.is_empty(), "{}", other.log());
    assert_eq!(warnings(&other), silent, "that, and nothing else");
    for one in &ready {
        assert_eq!(one["status"]["failedIssuanceAttempts"], 0, "{one:#}");
    }
    assert_eq!(site.pebble.certificates_issued(), COUNT);
    let events = site.get(&other, "/events?limit=500").await.unwrap().body;
    let failed =
        events["items"].as_array().unwrap().iter().find(|event| event["type"] == "Warning");
    assert_eq!(failed, None, "to who asked nothing has happened");
    let found = found_by(&other.doctor(&site));
    assert!(!found.iter().any(|line| line.starts_with("fail")), "{found:#?}");

    let told = async || {
        let all = receiver.got();
        all.iter().map(|got| subject(&got.body)).collect::<HashSet<_>>().len() == COUNT
    };
    until("a message of each certificate", told).await;
    assert!(receiver.types().iter().all(|kind| kind == "certificate.issued"), "nobody is alarmed");

    stuck.send(Signal::CONT);

    prometheus.until_alert("CertwrightDown", false).await;
    until("the fence", async || {
        !prometheus.ask("certwright_leases_lost_total > 0").await.is_empty()
    })
    .await;
    until("readiness", async || site.get(&stuck, "/readyz").await.unwrap().status == 200).await;
    assert_eq!(site.pebble.certificates_issued(), COUNT, "what it was at was done by the other");
}
