//! A clock that is two days off. What is off is the CA's, as we see it: the real program has no clock that a test could
//! set, and both look the same from here.

use certwright::clock::{Clock as _, SystemClock};
use http::header;
use serde_json::{Value, json};
use time::Duration;

use super::{found_by, said, warnings};
use crate::support::fault_proxy::FaultProxy;
use crate::support::installation::{Database, Installation, Program};
use crate::support::patience::until;
use crate::support::prometheus::Prometheus;
use crate::support::receiver::Receiver;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_two_days_ahead_on_sqlite() {
    drill(Database::Sqlite, Duration::days(2), "ClockAhead", "2 d ahead of").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_two_days_behind_on_postgres() {
    drill(Database::Postgres, -Duration::days(2), "ClockBehind", "2 d behind").await;
}

async fn drill(database: Database, ahead: Duration, reason: &str, words: &str) {
    let mut site = Installation::on(database).await;
    site.set("METRICS_LISTEN", "127.0.0.1:0");
    let proxy = FaultProxy::before(&site.pebble).await;
    // Seconds more than two days, whatever a `Date` rounds off.
    say_the_time(&proxy, ahead * 1.0001);
    let mut program = site.start().await;
    let receiver = Receiver::start().await;
    let events = ["certificate.issued", "certificate.failed", "certificate.blocked"];
    let hook = json!({"url": receiver.url(), "events": events});
    assert_eq!(site.post(&program, "/webhooks", &hook).await.unwrap().status, 201);
    let prometheus = Prometheus::scraping(&program.metrics()).await;
    site.set_up_at(&program, (proxy.directory_url(), proxy.ca_bundle())).await;
    site.ask_for(&program, "wrong").await.unwrap();
    site.until_all_ready(&mut program, 1).await;

    prometheus.until_alert("CertwrightClockOff", true).await;
    let off = seconds_ahead(&prometheus).await;
    assert!((off - ahead.as_seconds_f64()).abs() < 120.0, "{off}");
    // Answered with 200: nobody is taken out of service.
    site.until(&mut program, "/readyz", |ready| ready.to_string().contains(words)).await;
    assert!(
        warnings(&program).iter().any(|line| line.contains("see that the time is synchronized")),
        "{}",
        program.log()
    );
    let condition = skewed(&site, &program).await;
    assert_eq!((&condition["status"], &condition["reason"]), (&json!("True"), &json!(reason)));
    assert!(condition["message"].as_str().unwrap().contains(words), "{condition}");
    let shown = said(&site, &program, &["describe", "clusterissuer", "dns"]);
    for words in ["ClockSkewed", reason, words] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    let found = found_by(&program.doctor(&site));
    for what in ["service, clock", "ClusterIssuer dns"] {
        let named = found.iter().any(|line| {
            line.contains(what) && line.contains(words) && line.contains("timedatectl")
        });
        assert!(named, "{what}: {found:#?}");
    }

    say_the_time(&proxy, Duration::ZERO);
    site.ask_for(&program, "right").await.unwrap();
    site.until_all_ready(&mut program, 2).await;

    prometheus.until_alert("CertwrightClockOff", false).await;
    site.until(&mut program, "/readyz", |ready| !ready.to_string().contains(words)).await;
    assert_eq!(skewed(&site, &program).await, Value::Null, "it is over");
    let log = program.log();
    assert!(log.contains("our clock and the CAs' agree again"), "{log}");
    let found = found_by(&program.doctor(&site));
    assert!(!found.iter().any(|line| line.contains("timedatectl")), "{found:#?}");
    // It has kept nothing from being issued.
    let events = site.get(&program, "/events?type=Warning").await.unwrap().body;
    assert_eq!(events["items"], json!([]), "{events:#}");
    until("both messages", async || receiver.got().len() == 2).await;
    let told: Vec<_> = receiver.got().iter().map(|got| event_type(&got.body)).collect();
    assert_eq!(told, ["certificate.issued"; 2]);
}

fn event_type(message: &str) -> String {
    let message: Value = serde_json::from_str(message).unwrap();
    message["type"].as_str().unwrap().to_owned()
}

/// The CA's answers are dated so that our clock is ahead of it by so much.
fn say_the_time(proxy: &FaultProxy, ahead: Duration) {
    proxy.say_otherwise(move |_, _, mut answer| {
        let date = httpdate::fmt_http_date((SystemClock.now() - ahead).into());
        answer.headers_mut().insert(header::DATE, date.parse().unwrap());
        answer
    });
}

/// What the gauge says.
async fn seconds_ahead(prometheus: &Prometheus) -> f64 {
    let found = prometheus.ask("certwright_clock_ahead_seconds").await;
    found[0]["value"][1].as_str().unwrap().parse().unwrap()
}

async fn skewed(site: &Installation, program: &Program) -> Value {
    let found = site.get(program, "/issuers").await.unwrap().body;
    let conditions = found["items"][0]["status"]["conditions"].as_array().unwrap();
    conditions.iter().find(|one| one["type"] == "ClockSkewed").cloned().unwrap_or_default()
}
