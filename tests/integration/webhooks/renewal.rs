//! Messages about a failing renewal, from a whole installation.

use std::net::SocketAddr;

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::issuance::assert_ready;
use crate::support::pebble::PebbleOptions;
use crate::support::receiver::Receiver;
use crate::support::site::{Site, SiteOptions};
use crate::support::{databases, free_port};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_that_fails_unattended_is_told_once_and_so_is_its_healing_on_sqlite() {
    for _ in 0..TRIES {
        let (_folder, url) = databases::sqlite_url();
        if fails_and_heals(&url).await {
            return;
        }
    }
    panic!("the CA never wants a proof");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_that_fails_unattended_is_told_once_and_so_is_its_healing_on_postgres() {
    for _ in 0..TRIES {
        if fails_and_heals(&crate::support::postgres::fresh_database().await).await {
            return;
        }
    }
    panic!("the CA never wants a proof");
}

/// Pebble takes one order in a hundred for proved, even if it is told to take none.
const TRIES: usize = 5;

/// Whether it could be seen: not where the CA wanted no proof.
async fn fails_and_heals(url: &str) -> bool {
    let site = site(url).await;
    let receiver = Receiver::start().await;
    let events = ["issued", "renewed", "failed", "blocked", "recovered"];
    let events = events.map(|word| format!("certificate.{word}"));
    let hook = json!({"url": receiver.url(), "events": events});
    site.post("/webhooks", &hook).await.expect_status(201);
    // No check before the CA's.
    let mut solver = site.dns_solver();
    solver["dns01"]["propagation"] = json!({"mode": "none"});
    site.create_issuer("blind", &json!([solver]), &json!({})).await;
    let issued = site.issue("blind", &["heals.example.com"]).await;
    assert_ready(&issued);
    let path = format!("/certificates/{}", issued["id"].as_str().unwrap());

    // The renewal is due, and the CA finds no proof.
    site.cloudflare.hide_records();
    site.patch(&path, &json!({"renewBefore": almost_all_of_it(&issued)})).await.expect_status(200);
    let was_issued = |now: &Value| now["status"]["revision"] == 2;
    let failed = |now: &Value, times: i64| now["status"]["failedIssuanceAttempts"] == times;
    if was_issued(&site.until(&path, |now| failed(now, 1) || was_issued(now)).await) {
        return false;
    }
    site.post(&format!("{path}/renew"), &json!({})).await.expect_status(202);
    if was_issued(&site.until(&path, |now| failed(now, 2) || was_issued(now)).await) {
        return false;
    }

    site.patch(&path, &json!({"renewBefore": null})).await.expect_status(200);
    site.cloudflare.show_records();
    site.post(&format!("{path}/renew"), &json!({})).await.expect_status(202);
    site.until(&path, |now| now["status"]["revision"] == 2).await;

    receiver.until(4).await;
    assert_eq!(
        receiver.types(),
        [
            "certificate.issued",
            "certificate.failed",
            "certificate.renewed",
            "certificate.recovered"
        ]
    );
    true
}

/// A renewal time that lies in the past.
fn almost_all_of_it(issued: &Value) -> String {
    let moment = |field: &str| {
        OffsetDateTime::parse(issued["status"][field].as_str().unwrap(), &Rfc3339).unwrap()
    };
    let lifetime = moment("notAfter") - moment("notBefore");
    format!("{}s", lifetime.whole_seconds() - 1)
}

/// A CA that wants everything proved anew.
async fn site(url: &str) -> Site {
    let port = free_port();
    let responder = SocketAddr::from(([127, 0, 0, 1], port));
    let pebble = PebbleOptions { authz_reuse: Some(0), ..Default::default() };
    Site::with(url, SiteOptions { pebble, http01_port: port, responder }).await
}
