//! A CA that takes its time is polled when it is likely to be done.

use std::sync::{Arc, Mutex};

use certwright::clock::Clock as _;
use serde_json::json;
use time::{Duration, OffsetDateTime};

use crate::support::databases;
use crate::support::driven::Driven;
use crate::support::fault_proxy::Kind;
use crate::support::fault_proxy::words::with_json;
use crate::support::patience::until;

/// Validation takes so long at this CA, by the clock that is moved.
const TAKES: Duration = Duration::seconds(30);

const ORDERS: usize = 40;

/// What was asked since the last challenge was accepted.
#[derive(Default)]
struct Watch {
    accepted: Option<OffsetDateTime>,
    /// How long after that the order was polled, until it was ready.
    polls: Vec<Duration>,
}

#[tokio::test]
async fn a_ca_that_takes_half_a_minute_is_polled_ever_better() {
    let (_folder, url) = databases::sqlite_url();
    let site = Driven::on(&url, &json!({})).await;
    let watch = slow_validation(&site);
    let mut orders = Vec::new();
    for asked in 1..=ORDERS {
        *watch.lock().unwrap() = Watch::default();
        site.ask_for(&format!("n{asked}")).await;
        while watch.lock().unwrap().accepted.is_none() {
            site.step().await;
            site.pass().await;
        }
        until("the CA's own validation", async || validated(&site) >= asked).await;
        site.until_all_ready().await;
        orders.push(std::mem::take(&mut watch.lock().unwrap().polls));
    }
    let polls: Vec<_> = orders.iter().map(Vec::len).collect();
    assert!(polls[0] <= 10, "{polls:?}");
    let last = &orders[ORDERS - 10..];
    // A client that looks after 25 ms, and then after 1.5 times as long each time, needs 16.
    assert!(last.iter().map(Vec::len).sum::<usize>() <= 10 * 8, "{polls:?}");
    let mut waited: Vec<_> = last.iter().map(|polls| polls[polls.len() - 1]).collect();
    waited.sort_unstable();
    assert!(waited[5] < TAKES * 1.1, "at the median less than a tenth is lost: {waited:?}");
}

/// Names that the CA has validated, and what it will say of them when it is time.
fn validated(site: &Driven) -> usize {
    site.pebble.log().matches("set VALID by completed challenge").count()
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
                    order["status"] = json!(if is_due { "ready" } else { "pending" });
                }
            }),
            _ => answer,
        }
    });
    watch
}
