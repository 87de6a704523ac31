//! A clock that was wrong for a while leaves no wounds.

use certwright::clock::{Clock as _, SystemClock};
use certwright::domain::backoff::Jitter;
use certwright::domain::certificate::{Certificate, Transition};
use certwright::domain::failure::{Failure, code};
use certwright::domain::order::Outcome;
use certwright::storage::{Db, Scope, certificates};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use crate::support::site::{Site, on_each_site};

on_each_site! {
    async fn what_a_clock_that_was_ahead_has_put_off_is_looked_at_by_the_next_start(site: Site) {
        let mut site = site;
        // Nobody may edit the zone, so that an attempt fails for as long as that lasts.
        site.cloudflare.forbid_edits("example.com");
        let made = site.ask_for("dns", &["wound.example.com"], &json!({"name": "wound"}), 240).await.expect_status(202);
        assert_eq!(made["status"]["phase"], "Blocked", "{made}");
        site.stop().await;
        site.cloudflare.allow_edits("example.com");
        let id = made["id"].as_str().unwrap().parse().unwrap();
        let db = site.database().await;
        let wrong = SystemClock.now() + Duration::days(2);
        change(&db, id, |found| failed_at(found, wrong)).await;
        db.close().await;

        site.start_again().await;

        let path = format!("/certificates/{id}");
        let ready = site.until(&path, |found| found["status"]["phase"] == "Ready").await;
        assert_eq!(ready["status"]["revision"], Value::from(1));
    }
}

/// An attempt that failed at `at`, by the clock of then.
fn failed_at(found: Certificate, at: OffsetDateTime) -> Transition {
    let failure = Failure::of(code::ACME_DNS, "It was not there.");
    found.order_failed(Outcome::Failed(failure), 0, at, Jitter::NONE)
}

async fn change(db: &Db, id: uuid::Uuid, happen: impl FnOnce(Certificate) -> Transition) {
    let id = certwright::domain::id::CertificateId(id);
    let mut tx = db.begin();
    let found = certificates::find(&mut tx, id, &Scope::Everything).await.unwrap();
    let (found, lease) = found.unwrap();
    certificates::save(&mut tx, &happen(found), &lease, None).await.unwrap();
    tx.commit().await.unwrap();
}
