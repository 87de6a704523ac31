//! The event stream: a reader misses nothing and gets nothing twice.

use std::time::Duration as Real;

use certwright::domain::event::Event;
use certwright::storage::events;
use serde_json::{Value, json};
use sqlx::Connection as _;
use time::Duration;

use crate::storage::events::{NOW, record, record_in, settled_end, someone};
use crate::support::sse::Served;
use crate::support::world::{World, id, on_every_database};

on_every_database! {
    async fn events_are_filtered_by_what_they_are(world: World) {
        let (one, other) = (someone(), someone());
        let mut tx = world.db.begin();
        let happened = [
            Event::normal(one, "Issuing", "begun"),
            Event::warning(one, "Failed", "over"),
            Event::warning(other, "Failed", "over, too"),
        ];
        events::record(&mut tx, "default", None, &happened, NOW);
        events::record(&mut tx, "team", None, &[Event::normal(other, "Issuing", "later")], NOW + Duration::hours(1));
        tx.commit().await.unwrap();

        for (query, count) in [
            ("", 4),
            ("?type=Warning", 2),
            ("?type=Normal", 2),
            ("?reason=Failed", 2),
            ("?reason=Issuing&type=Warning", 0),
            ("?namespace=team", 1),
            ("?since=2026-11-24T13:00:00Z", 1),
            (&format!("?resource={}&type=Warning", one.id()), 1),
        ] {
            let items = world.get(&format!("/events{query}")).await.json()["items"].clone();
            assert_eq!(items.as_array().unwrap().len(), count, "{query}: {items}");
        }
        let event = world.get("/events?limit=1").await.json()["items"][0].clone();
        assert_eq!((&event["count"], &event["firstSeen"], &event["lastSeen"], &event["createdAt"]),
            (&json!(1), &json!("2026-11-24T12:00:00Z"), &json!("2026-11-24T12:00:00Z"), &json!("2026-11-24T12:00:00Z")));
        world.get("/events?type=Bad").await.is_problem(400, "malformed_request");
    }

    async fn what_no_stream_can_do_is_refused_at_once(world: World) {
        for (query, last_seen) in [("?limit=5", ""), ("?sort=createdAt", ""), ("", "yesterday"), ("", "-1-2")] {
            let ask = world.ask(http::Method::GET, &format!("/events{query}"))
                .header("accept", "text/event-stream")
                .header("last-event-id", last_seen);
            ask.send().await.is_problem(400, "malformed_request");
        }
        let blind = world.key(&["certificates:read"], &["default"]).await;
        let ask = world.ask(http::Method::GET, "/events").header("accept", "text/event-stream");
        ask.with_key(&blind).send().await.is_problem(403, "permission_denied");
    }

    async fn a_stream_shows_what_happens_from_now_on(world: World) {
        record(&world.db, someone(), "before", NOW).await;
        settled_end(&world.db).await;
        let served = Served::of(&world).await;
        let (mut stream, _) = served.follow(&world.admin, "", None).await;

        world.create_issuer().await;
        let certificate = world.create_certificate("web").await;
        let (_, event) = stream.event().await;

        assert_eq!(event["resource"], format!("/certificates/{}", id(&certificate)));
        assert_eq!((&event["type"], &event["reason"], &event["count"]), (&json!("Normal"), &json!("Issuing"), &json!(1)));
    }

    async fn a_stream_shows_an_event_again_when_it_repeats_itself(world: World) {
        let (served, one) = (Served::of(&world).await, someone());
        let (mut stream, _) = served.follow(&world.admin, "", None).await;

        record(&world.db, one, "again", NOW).await;
        let (first_id, first) = stream.event().await;
        record(&world.db, one, "again", NOW + Duration::minutes(1)).await;
        let (second_id, second) = stream.event().await;

        assert_eq!(first["id"], second["id"], "it is the same event");
        assert_ne!(first_id, second_id, "at another place");
        assert_eq!((&first["count"], &second["count"]), (&json!(1), &json!(2)));
        assert_eq!((&second["firstSeen"], &second["lastSeen"]), (&json!("2026-11-24T12:00:00Z"), &json!("2026-11-24T12:01:00Z")));
    }

    async fn a_stream_goes_on_after_a_restart_without_loss_or_repetition(world: World) {
        let served = Served::of(&world).await;
        let (mut stream, begin) = served.follow(&world.admin, "", None).await;
        for message in ["one", "two", "three"] {
            record(&world.db, someone(), message, NOW).await;
        }
        let (last_seen, event) = stream.event().await;
        assert_eq!(event["message"], "one");
        // Events two and three may be on their way: the client's position counts.
        served.stop().await;
        while stream.next().await.is_some() {}
        record(&world.db, someone(), "four", NOW).await;

        let world = World::over(world.db.clone()).await;
        let served = Served::of(&world).await;
        let (mut stream, _) = served.follow(&world.admin, "", Some(&last_seen)).await;
        assert_eq!(stream.messages(3).await, ["two", "three", "four"]);
        record(&world.db, someone(), "five", NOW).await;
        assert_eq!(stream.messages(1).await, ["five"]);

        // A reader that has seen nothing yet continues from where it began.
        let (mut stream, _) = served.follow(&world.admin, "", Some(&begin.id)).await;
        assert_eq!(stream.messages(5).await, ["one", "two", "three", "four", "five"]);
    }

    async fn a_stream_begins_at_a_moment_if_asked_to(world: World) {
        record(&world.db, someone(), "long ago", NOW - Duration::days(1)).await;
        record(&world.db, someone(), "of late", NOW - Duration::minutes(1)).await;
        settled_end(&world.db).await;

        let served = Served::of(&world).await;
        let (mut stream, _) = served.follow(&world.admin, "?since=2026-11-24T11:00:00Z", None).await;

        assert_eq!(stream.messages(1).await, ["of late"]);
        record(&world.db, someone(), "now", NOW).await;
        assert_eq!(stream.messages(1).await, ["now"]);
    }

    async fn a_stream_keeps_to_the_keys_namespaces_and_to_the_filters(world: World) {
        let served = Served::of(&world).await;
        let team = world.key(&["events:read"], &["team"]).await;
        let (mut of_team, _) = served.follow(&team, "", None).await;
        let (mut of_nobody, _) = served.follow(&team, "?namespace=default", None).await;
        let (mut warnings, _) = served.follow(&world.admin, "?type=Warning", None).await;

        let mut tx = world.db.begin();
        for (namespace, message) in [("default", "theirs"), ("team", "ours"), ("", "everybody's")] {
            let about = someone();
            let event = [Event::normal(about, "Tested", message), Event::warning(about, "Tested", format!("{message}!"))];
            events::record(&mut tx, namespace, None, &event, NOW);
        }
        tx.commit().await.unwrap();

        assert_eq!(of_team.messages(4).await, ["ours", "ours!", "everybody's", "everybody's!"]);
        assert_eq!(warnings.messages(3).await, ["theirs!", "ours!", "everybody's!"]);
        served.stop().await;
        assert_eq!(of_nobody.next().await, None, "nothing but its end");
    }

    async fn a_slow_reader_gets_everything_in_order_page_by_page(world: World) {
        let served = Served::of(&world).await;
        let (mut stream, _) = served.follow(&world.admin, "", None).await;
        let expected: Vec<String> = (0..1050).map(|number| format!("event {number}")).collect();
        for part in expected.chunks(150) {
            let about = someone();
            let happened: Vec<_> = part.iter().map(|message| Event::normal(about, "Tested", message)).collect();
            let mut tx = world.db.begin();
            events::record(&mut tx, "default", None, &happened, NOW);
            tx.commit().await.unwrap();
        }

        assert_eq!(stream.messages(1050).await, expected);
    }
}

/// PostgreSQL's notifications, and the order that all replicas see.
#[tokio::test]
async fn two_replicas_show_their_readers_the_same() {
    let url = crate::support::postgres::fresh_database().await;
    let (left, right) = (World::on(&url).await, World::on(&url).await);
    let (on_left, on_right) = (Served::of(&left).await, Served::of(&right).await);
    let (mut from_left, _) = on_left.follow(&left.admin, "", None).await;
    let (mut from_right, _) = on_right.follow(&left.admin, "", None).await;

    let writers = (0..40).map(|number| {
        let db = if number % 2 == 0 { left.db.clone() } else { right.db.clone() };
        async move { record(&db, someone(), &format!("event {number}"), NOW).await }
    });
    futures_util::future::join_all(writers).await;

    let (seen_left, seen_right) = (from_left.messages(40).await, from_right.messages(40).await);
    assert_eq!(seen_left, seen_right);
    let mut sorted = seen_left.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), 40, "each of them once");
}

/// A slow transaction on one replica while another writes, as a reader sees it.
#[tokio::test]
async fn a_stream_waits_for_a_transaction_that_commits_late() {
    let url = crate::support::postgres::fresh_database().await;
    let (left, right) = (World::on(&url).await, World::on(&url).await);
    let served = Served::of(&left).await;
    let (mut stream, _) = served.follow(&left.admin, "", None).await;

    let mut slow = right.db.begin();
    record_in(&mut slow, someone(), "slow", NOW).await;
    record(&left.db, someone(), "quick", NOW).await;
    let early = tokio::time::timeout(Real::from_millis(700), stream.event()).await;
    assert!(early.is_err(), "{early:?}");
    slow.commit().await.unwrap();

    assert_eq!(stream.messages(2).await, ["slow", "quick"]);
}

#[tokio::test]
async fn a_silent_stream_has_a_pulse_as_long_as_the_key_is_good() {
    let (_folder, url) = crate::support::world::sqlite();
    let world = World::on(&url).await;
    let served = Served::of(&world).await;
    let key = world.key(&["events:read"], &["team"]).await;
    let (mut stream, begin) = served.follow(&world.admin, "", None).await;
    let (mut refused, _) = served.follow(&key, "", None).await;
    let mut raw = sqlx::SqliteConnection::connect(&url).await.unwrap();
    sqlx::query("DELETE FROM api_keys WHERE name = 'limited'").execute(&mut raw).await.unwrap();
    raw.close().await.unwrap();

    let beat = stream.next().await.unwrap();

    assert_eq!((beat.event, beat.id), (None::<Value>, begin.id));
    assert_eq!(refused.next().await, None, "a deleted key hears nothing more");
}
