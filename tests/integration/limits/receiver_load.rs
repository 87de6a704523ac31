//! How often a receiver is posted to, whoever asks for it: counted where it arrives, over simulated time.

use std::sync::Arc;

use axum::http::{HeaderMap, Method};
use bytes::Bytes;
use certwright::clock::ManualClock;
use certwright::outbound::{
    Allow, Guard, RECEIVER_PER_MINUTE, SendError, Sender, SenderSettings, resolver,
};
use serde_json::json;
use time::Duration;
use time::macros::datetime;

use crate::support::receiver::{Receiver, Reply};
use crate::support::world::{World, on_every_database};
use crate::webhooks::{deliveries, hooked, issued, only_delivery, path};

const MOST: usize = RECEIVER_PER_MINUTE as usize;

/// Posts as often as it is let, by every spelling of the URL in turn; says how many came.
async fn post_all(sender: &Sender, receiver: &Receiver, tries: usize) -> usize {
    let before = receiver.got().len();
    let port = receiver.url().rsplit(':').next().unwrap().to_owned();
    for n in 0..tries {
        let host = ["127.0.0.1", "127.1", "0x7f.0.0.1", "2130706433"][n % 4];
        let url = format!("http://{host}:{port}?n={n}").parse().unwrap();
        match sender.post(&url, HeaderMap::new(), Bytes::from_static(b"{}")).await {
            Ok(_) | Err(SendError::Broken(_)) => {}
            Err(SendError::Held { .. }) => break,
            Err(other) => panic!("{other}"),
        }
    }
    receiver.got().len() - before
}

#[tokio::test]
async fn a_host_is_posted_to_at_most_so_often_in_any_minute_whatever_it_answers() {
    let clock = Arc::new(ManualClock::at(datetime!(2026-11-27 12:00 UTC)));
    let guard = Guard::new(resolver(&[], true).unwrap(), Allow::parse(["127.0.0.0/8"]).unwrap());
    let settings = SenderSettings { allow_http: false, ports: [443].into() };
    let sender = Sender::new(guard, settings).unwrap().timed_by(clock.clone());
    let receiver = Receiver::start().await;
    let answers = [200, 500, 404, 429, 503, 410, 301, 204];
    receiver.will_answer((0..4 * MOST).map(|n| Reply::Status(answers[n % answers.len()])));

    let mut came = Vec::new();
    for _ in 0..20 {
        came.push(post_all(&sender.clone(), &receiver, 2 * MOST).await);
        clock.advance(Duration::seconds(10));
    }

    for minute in came.windows(6) {
        let posts: usize = minute.iter().sum();
        assert!(posts <= MOST, "{posts} within a minute: {came:?}");
    }
    assert!(came.iter().sum::<usize>() >= MOST, "nor is it posted to much less: {came:?}");
    assert!(came[7..].iter().all(|posts| *posts > 0), "{came:?}");
}

/// Has what is left of the host's share spent by others.
async fn exhaust(world: &World, receiver: &Receiver) {
    assert!(post_all(&world.outbound, receiver, 2 * MOST).await > 0);
}

on_every_database! {
    async fn a_message_that_may_not_be_posted_yet_waits_and_costs_no_try(world: World) {
        let (receiver, hook) = hooked(&world, json!({})).await;
        exhaust(&world, &receiver).await;
        let before = receiver.got().len();
        issued(&world, "web").await;

        world.deliver().await;
        assert_eq!(receiver.got().len(), before);
        let waiting = only_delivery(&world, &hook).await;
        assert_eq!((&waiting["state"], &waiting["attempts"]), (&json!("pending"), &json!(0)));
        assert_eq!(world.get(&path(&hook)).await.json()["status"]["consecutiveFailures"], json!(0));

        world.clock.advance(Duration::seconds(7));
        world.deliver().await;
        let sent = only_delivery(&world, &hook).await;
        assert_eq!((&sent["state"], &sent["attempts"]), (&json!("delivered"), &json!(1)));
    }

    async fn clients_who_send_again_and_test_in_a_loop_share_what_a_host_is_posted(world: World) {
        let (receiver, hook) = hooked(&world, json!({})).await;
        let mut others = Vec::new();
        for _ in 0..5 {
            let wanted = json!({"url": receiver.url(), "namespaces": ["*"]});
            others.push(world.post("/webhooks", wanted).await.accepted());
        }
        issued(&world, "web").await;
        world.deliver().await;
        exhaust(&world, &receiver).await;
        let before = receiver.got().len();

        for _ in 0..10 {
            for webhook in others.iter().chain([&hook]) {
                for delivery in deliveries(&world, webhook, "?type=certificate.issued").await {
                    let again = format!("{}/deliveries/{}/redeliver", path(webhook), delivery["id"].as_str().unwrap());
                    assert_eq!(world.post(&again, json!({})).await.status, 202);
                }
                let test = world.ask(Method::POST, &format!("{}/test", path(webhook)));
                assert_eq!(test.json(&json!({})).send().await.status, 202);
            }
            world.deliver().await;
        }

        assert_eq!(receiver.got().len(), before, "all of it waits");
        world.clock.advance(Duration::minutes(1));
        world.deliver().await;
        let came = receiver.got().len() - before;
        assert!((6..=MOST).contains(&came), "{came}");
    }
}
