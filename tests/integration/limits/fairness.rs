//! One tenant's trouble is not another's.

use std::net::UdpSocket;

use certwright::clock::{Clock as _, SystemClock};
use certwright::domain::certificate::Certificate;
use certwright::domain::id::CertificateId;
use certwright::storage::{Db, certificates};
use serde_json::json;

use crate::issuance::assert_ready;
use crate::support::pebble::PebbleOptions;
use crate::support::postgres::fresh_database;
use crate::support::site::{Site, SiteOptions};
use crate::support::{databases, fixtures};

mod tenants_with_a_thousand_dead_names {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn do_not_hold_up_another_on_sqlite() {
        let (_folder, url) = databases::sqlite_url();
        do_not_hold_up_another(&url).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn do_not_hold_up_another_on_postgres() {
        do_not_hold_up_another(&fresh_database().await).await;
    }

    async fn do_not_hold_up_another(database: &str) {
        let port = crate::support::free_port();
        let responder = ([127, 0, 0, 1], port).into();
        let options =
            SiteOptions { pebble: PebbleOptions::default(), http01_port: port, responder };
        let site = Site::with(database, options).await;
        // It takes questions, and answers none.
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut solver = site.dns_solver();
        solver["dns01"]["nameservers"] = json!([silent.local_addr().unwrap().to_string()]);
        solver["dns01"]["propagation"] = json!({"mode": "recursive", "timeout": "1h"});
        site.create_issuer("dead", &json!([solver]), &json!({})).await;
        insert_dead(database, 999).await;
        let last = json!({"namespace": "dead-0", "name": "last",
            "issuerRef": {"name": "dead", "kind": "ClusterIssuer"}, "dnsNames": ["last.example.com"]});
        site.post("/certificates", &last).await.expect_status(202);
        // As many as may be (56 of 64 slots) are hanging, and all the others are due.
        site.until("/challenges?limit=500", |found| found["items"].as_array().unwrap().len() >= 50)
            .await;

        let more = json!({"namespace": "alive"});
        let issued =
            site.ask_for("dns", &["alive.example.com"], &more, 240).await.expect_status(202);

        assert_ready(&issued);
        // Ten seconds each, over 64 slots: who waits for its turn behind them sees all of them first.
        let seen = site.get("/challenges?limit=500").await.body;
        let seen = seen["items"].as_array().unwrap().len();
        assert!(seen < 500, "it waited until others had their turn");
    }
}

/// Certificates of three namespaces, which together could hold more than the whole pool; all due.
async fn insert_dead(database: &str, count: u32) {
    let now = SystemClock.now();
    let db = Db::connect(database).await.unwrap();
    let mut tx = db.begin();
    for n in 0..count {
        let spec = json!({"issuerRef": {"name": "dead", "kind": "ClusterIssuer"},
            "dnsNames": [format!("dead-{n}.example.com")]});
        let spec = serde_json::from_value(spec).unwrap();
        let (namespace, name) = (format!("dead-{}", n % 3), format!("dead-{n}"));
        let id = CertificateId::generate(now);
        let by = fixtures::by_the_administrator();
        let certificate = Certificate::wanted(id, (&namespace, &name), spec, by, now);
        certificates::insert(&mut tx, &certificate).await.unwrap();
    }
    tx.commit().await.unwrap();
    db.close().await;
}
