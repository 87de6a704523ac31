//! A namespace asks for far more than all others: that is nobody's trouble. That the others do not wait for all of it is
//! held by `limits::fairness` and by the gate of new orders (`worker::limits::order_gate`), whatever the machine's speed.

use serde_json::json;

use super::{ALARMING, TOLD, found_by, warnings};
use crate::support::installation::{Database, Installation, is_ready, items};
use crate::support::prometheus::Prometheus;
use crate::support::receiver::Receiver;

/// Certificates of the hot namespace, which are all taken up at once.
const HOT: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hot_namespace_on_sqlite() {
    drill(Database::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hot_namespace_on_postgres() {
    drill(Database::Postgres).await;
}

async fn drill(database: Database) {
    let mut site = Installation::on(database).await;
    site.set("METRICS_LISTEN", "127.0.0.1:0");
    let mut program = site.start().await;
    let prometheus = Prometheus::scraping(&program.metrics()).await;
    let receiver = Receiver::start().await;
    // The calm one hears of its own certificate, and somebody else of what goes wrong anywhere.
    for hook in [
        json!({"url": receiver.url(), "namespaces": ["calm"], "events": TOLD}),
        json!({"url": receiver.url(), "namespaces": ["*"], "events": ALARMING}),
    ] {
        assert_eq!(site.post(&program, "/webhooks", &hook).await.unwrap().status, 201);
    }
    site.set_up(&program).await;
    let wanted = |namespace: &str, name: String| {
        json!({"namespace": namespace, "name": name, "issuerRef": {"name": "dns", "kind": "ClusterIssuer"},
            "dnsNames": [format!("{name}.{namespace}.example.com")]})
    };
    let mut all: Vec<_> = (0..HOT).map(|n| wanted("hot", format!("c{n}"))).collect();
    all.push(wanted("calm", "www".to_owned()));

    let taken = site.post(&program, "/certificates/batch", &json!({"items": all})).await.unwrap();

    assert_eq!(taken.status, 207, "{taken:?}");
    site.until(&mut program, "/certificates/by-name/calm/www", is_ready).await;
    let ready = site.get(&program, "/readyz").await.unwrap();
    assert_eq!(ready.status, 200, "{ready:?}");
    site.until_all_ready(&mut program, HOT + 1).await;
    assert_eq!(warnings(&program), [""; 0], "waiting for one's turn is no trouble");
    // What else writes to this machine's disk meanwhile looks as if it would go on so for a day. Rules that wait for nothing
    // miss their target before it is scraped first.
    let query =
        r#"ALERTS{alertstate="firing", alertname!~"CertwrightDiskFilling|CertwrightAbsent"}"#;
    let alerts = prometheus.ask(query).await;
    assert!(alerts.is_empty(), "{alerts:#?}");
    receiver.until(1).await;
    assert_eq!(receiver.types(), ["certificate.issued"], "of the calm one, and nothing else");
    let events = site.get(&program, "/events?type=Warning&limit=500").await.unwrap().body;
    assert!(items(&events).is_empty(), "{events:#}");
    let found = found_by(&program.doctor(&site));
    assert!(!found.iter().any(|line| line.starts_with("fail")), "{found:#?}");
}
