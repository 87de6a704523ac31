//! Tickets for streams of events, as a browser uses them.

use axum::http::Method;
use serde_json::{Value, json};
use time::Duration;

use crate::storage::events::{record, someone};
use crate::support::sse::Served;
use crate::support::world::{Reply, World, id, on_every_database};

/// What a browser gets that shows a ticket.
async fn shown(world: &World, ticket: &str) -> Reply {
    let path = format!("/events?ticket={ticket}");
    let ask = world.ask(Method::GET, &path).without_key();
    ask.header("accept", "text/event-stream").send().await
}

async fn ticket_of(world: &World, key: &str) -> String {
    let made = world.ask(Method::POST, "/events/ticket").with_key(key).send().await;
    assert_eq!((made.status, made.header("cache-control")), (201, "no-store"), "{}", made.text);
    made.json()["ticket"].as_str().unwrap().to_owned()
}

on_every_database! {
    async fn a_ticket_opens_one_stream_of_what_its_holder_may_see(world: World) {
        let key = world.key(&["events:read"], &["shop"]).await;
        let ticket = ticket_of(&world, &key).await;
        let served = Served::of(&world).await;

        let (mut stream, _) = served.follow("", &format!("?ticket={ticket}"), None).await;
        record(&world.db, someone(), "of default", world.now()).await;
        let mut tx = world.db.begin();
        let ours = certwright::domain::event::Event::normal(someone(), "Issuing", "of shop");
        certwright::storage::events::record(&mut tx, "shop", None, &[ours], world.now());
        tx.commit().await.unwrap();
        assert_eq!(stream.messages(1).await, ["of shop"]);

        let again = shown(&world, &ticket).await.is_problem(401, "unauthenticated");
        assert_eq!(again["detail"], "The ticket was used, has expired, or never was one. Ask for a new one: POST /events/ticket.");
    }

    async fn a_ticket_lets_nobody_in_whose_time_is_over(world: World) {
        let admin = world.key(&["*"], &[]).await;
        let late = ticket_of(&world, &admin).await;
        world.clock.advance(Duration::seconds(60));
        shown(&world, &late).await.is_problem(401, "unauthenticated");
        shown(&world, "made-up").await.is_problem(401, "unauthenticated");
        shown(&world, "").await.is_problem(401, "unauthenticated");

        let wanted = json!({"name": "short", "role": "reader"});
        let made = world.post("/api-keys", wanted).await.accepted();
        let ticket = ticket_of(&world, made["key"].as_str().unwrap()).await;
        assert_eq!(world.delete(&format!("/api-keys/{}", id(&made))).await.status, 204);
        let ended = shown(&world, &ticket).await.is_problem(401, "unauthenticated");
        assert_eq!(ended["detail"], "The API key is not known (any more).");
    }

    async fn a_ticket_is_for_streams_and_for_whoever_may_see_events(world: World) {
        let blind = world.key(&["certificates:read"], &["default"]).await;
        let refused = world.ask(Method::POST, "/events/ticket").with_key(&blind).send().await;
        refused.is_problem(403, "permission_denied");

        let key = world.key(&["events:read"], &["default"]).await;
        let ticket = ticket_of(&world, &key).await;
        let page = world.ask(Method::GET, &format!("/events?ticket={ticket}")).without_key().send().await;
        page.is_problem(400, "malformed_request");
        let ticket = ticket_of(&world, &key).await;
        let elsewhere = world.ask(Method::GET, &format!("/certificates?ticket={ticket}")).without_key().send().await;
        elsewhere.is_problem(401, "unauthenticated");
    }

    async fn a_ticket_is_shown_once_and_never_stored(world: World) {
        let ask = |query: &str| world.ask(Method::POST, &format!("/events/ticket{query}")).header("idempotency-key", "one");
        let tried = ask("?dryRun=true").send().await;
        assert_eq!((tried.status, tried.json().get("ticket")), (201, None), "{}", tried.text);
        let ticket = ask("").send().await.json()["ticket"].as_str().unwrap().to_owned();
        let replay = ask("").send().await;
        assert_eq!((replay.status, replay.json().get("ticket")), (201, None), "{}", replay.text);

        let entries = world.get("/audit?action=events.ticket").await.json()["items"].clone();
        assert_eq!(entries.as_array().map(Vec::len), Some(1), "{entries}");
        let read: Value = world.get("/events?limit=500").await.json();
        assert!(!read.to_string().contains(&ticket) && !entries.to_string().contains(&ticket));
    }
}
