//! A CA that takes its time is polled when it is likely to be done.

use std::sync::{Arc, Mutex};

use certwright::clock::Clock as _;
use serde_json::json;
use time::{Duration, OffsetDateTime};

use crate::support::databases;
use crate::support::driven::Driven;
use crate::support::fault_proxy::Kind;
use crate::support::fault_proxy::words::with_json;

/// Validation takes so long at this CA, by the clock that is moved.
const TAKES: Duration = Duration::seconds(30);

/// What was asked since the last challenge was accepted.
#[derive(Default)]
struct Watch {
    accepted: Option<OffsetDateTime>,
    /// How long after that the order was polled, until it was ready.
    polls: Vec<Duration>,
    /// The test's CA itself was not done when it might have said so.
    is_late: bool,
}

#[tokio::test]
async fn a_ca_that_takes_half_a_minute_is_polled_ever_better() {
    let (_folder, url) = databases::sqlite_url();
    let site = Driven::on(&url, &json!({})).await;
    let watch = slow_validation(&site);
    let mut orders = Vec::new();
    let mut asked = 0;
    while orders.len() < 12 {
        asked += 1;
        assert!(asked < 100, "the test's CA is always late");
        *watch.lock().unwrap() = Watch::default();
        site.ask_for(&format!("n{asked}")).await;
        site.until_all_ready().await;
        let mut watch = watch.lock().unwrap();
        if !watch.is_late {
            orders.push(std::mem::take(&mut watch.polls));
        }
    }

    let polls: Vec<_> = orders.iter().map(Vec::len).collect();
    assert!(polls[0] <= 10, "{polls:?}");
    assert!(polls[6..].iter().sum::<usize>() <= 6 * 6, "{polls:?}");
    let mut waited: Vec<_> = orders[6..].iter().map(|polls| polls[polls.len() - 1]).collect();
    waited.sort_unstable();
    assert!(waited[5] < TAKES * 1.2, "at first a fifth is lost at most: {waited:?}");
}

/// Has orders call themselves pending until their time.
fn slow_validation(site: &Driven) -> Arc<Mutex<Watch>> {
    let watch = Arc::new(Mutex::new(Watch::default()));
    let (watched, clock) = (Arc::clone(&watch), Arc::clone(&site.world.clock));
    site.proxy.say_otherwise(move |kind, _, answer| {
        let (mut watch, now) = (watched.lock().unwrap(), clock.now());
        match (kind, watch.accepted) {
            (Kind::Challenge, _) => {
                watch.accepted = Some(now);
                answer
            }
            (Kind::Order, Some(accepted)) => with_json(answer, |order| {
                let is_ready = order["status"] == "ready";
                if is_ready || order["status"] == "pending" {
                    watch.polls.push(now - accepted);
                    let is_due = now - accepted >= TAKES;
                    watch.is_late |= is_due && !is_ready;
                    order["status"] = json!(if is_due && is_ready { "ready" } else { "pending" });
                }
            }),
            _ => answer,
        }
    });
    watch
}
