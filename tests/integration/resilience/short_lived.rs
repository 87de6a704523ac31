//! Certificates that live a minute, while the process is killed again and again: there is never a
//! moment without a valid one. `make soak` runs it.

use std::time::{Duration, Instant};

use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::support::installation::{Installation, is_ready, items, pass};
use crate::support::pebble::PebbleOptions;

const COUNT: usize = 50;
const TIME: Duration = Duration::from_mins(10);
/// Ten minutes have room for twenty renewals at half a minute; kills may cost some.
const RENEWALS: i64 = 8;

#[tokio::test]
#[ignore = "takes more than ten minutes: make soak"]
async fn fifty_certificates_of_a_minute_are_always_valid_however_often_the_process_is_killed() {
    let pebble = PebbleOptions { validity: Some(60), nonce_reject: 5, ..Default::default() };
    let site = Installation::with(None, pebble).await;
    let mut program = site.start().await;
    site.set_up(&program).await;
    let known = site.get(&program, "/issuers?name=dns").await.unwrap().body;
    let mut acme = items(&known)[0]["acme"].clone();
    acme["profile"] = json!("default");
    // By their own schedule, at half a minute.
    acme["renewalInformationSource"] = json!("None");
    let issuer = json!({"kind": "ClusterIssuer", "name": "minute", "acme": acme});
    assert_eq!(site.post(&program, "/issuers", &issuer).await.unwrap().status, 202);
    for n in 0..COUNT {
        let wanted = json!({"issuerRef": {"name": "minute", "kind": "ClusterIssuer"},
            "dnsNames": [format!("m{n}.example.com")]});
        assert_eq!(site.post(&program, "/certificates", &wanted).await.unwrap().status, 202);
    }
    site.until(&mut program, "/certificates?limit=500", |found| items(found).iter().all(is_ready))
        .await;

    let (begun, mut dies, mut kills) = (Instant::now(), Instant::now() + Duration::from_secs(7), 0);
    let mut found = Vec::new();
    while begun.elapsed() < TIME {
        if let Ok(answer) = site.get(&program, "/certificates?limit=500").await {
            found = items(&answer.body).to_vec();
        }
        // What was seen last counts while nobody answers.
        for one in &found {
            let end = one["status"]["notAfter"].as_str().unwrap();
            let end = OffsetDateTime::parse(end, &Rfc3339).unwrap();
            assert!(
                end > now(),
                "not valid any more after {:?}, {kills} kills: {one:#}",
                begun.elapsed()
            );
        }
        if Instant::now() > dies {
            program.kill();
            kills += 1;
            // Now this, now that much of the half minute between two renewals.
            dies = Instant::now() + Duration::from_secs(7 + kills * 5 % 19);
            program = site.start().await;
        }
        pass(Duration::from_millis(500)).await;
    }
    let revisions: Vec<_> =
        found.iter().map(|one| one["status"]["revision"].as_i64().unwrap()).collect();
    eprintln!("{kills} kills; revisions {revisions:?}");
    assert_eq!(revisions.len(), COUNT);
    assert!(revisions.iter().all(|revision| *revision > RENEWALS), "{revisions:?}");
}

fn now() -> OffsetDateTime {
    certwright::clock::Clock::now(&certwright::clock::SystemClock)
}
