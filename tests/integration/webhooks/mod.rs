//! Delivery to a real receiver: in order, at least once, and independent of slow receivers.

pub(crate) mod endpoints;
pub(crate) mod receivers;
pub(crate) mod renewal;

use certwright::domain::backoff::Jitter;
use certwright::domain::certificate::{Certificate, Issued, Transition};
use certwright::domain::delivery::SCHEDULE;
use certwright::domain::failure::{Failure, code};
use certwright::domain::issuer::Account;
use certwright::domain::order::Outcome;
use certwright::storage::{Scope, issuers};
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use time::Duration;

use crate::support::receiver::{Got, Receiver, Reply};
use crate::support::stopped_clock::StoppedClock;
use crate::support::world::{World, certificate, id, on_every_database};

on_every_database! {
    async fn what_happens_to_a_certificate_is_told_signed_and_without_its_key(world: World) {
        let (receiver, hook) = hooked(&world, json!({})).await;
        let web = issued(&world, "web").await;

        world.deliver().await;

        let got = receiver.got();
        assert_eq!(receiver.types(), ["certificate.issued"]);
        let shown = world.get(&format!("/certificates/{web}")).await.json();
        assert_eq!(got[0].json()["data"], shown, "as GET shows it");
        assert!(got[0].json()["timestamp"].as_str().unwrap().ends_with('Z'));
        assert!(!got[0].body.contains("canary"), "{}", got[0].body);
        assert!(got[0].header("webhook-id").starts_with("msg_"));
        assert_eq!(got[0].header("content-type"), "application/json");
        assert!(is_signed(&got[0], secret(&hook)));
        let delivery = only_delivery(&world, &hook).await;
        assert_eq!((&delivery["state"], &delivery["responseStatus"]), (&json!("delivered"), &json!(204)));
        assert_eq!(delivery["messageId"], got[0].header("webhook-id"));
        assert_eq!(delivery["resource"], format!("/certificates/{web}"));
    }

    async fn what_is_not_committed_is_not_told(world: World) {
        let (receiver, hook) = hooked(&world, json!({})).await;
        let web = ordered(&world, "web").await;
        let mut tx = world.db.begin();
        let key = certwright::domain::id::CertificateId(web.parse().unwrap());
        let (found, lease) = certwright::storage::certificates::find(&mut tx, key, &Scope::Everything).await.unwrap().unwrap();
        let next = issue(&world, found);
        certwright::storage::certificates::save(&mut tx, &next, &lease, None).await.unwrap();
        drop(tx);

        world.deliver().await;

        assert!(receiver.got().is_empty());
        assert!(deliveries(&world, &hook, "").await.is_empty());
    }

    async fn every_try_has_the_same_id_and_body_and_a_signature_of_its_own_time(world: World) {
        let (receiver, hook) = hooked(&world, json!({})).await;
        receiver.will_answer([Reply::Status(500), Reply::Status(404)]);
        issued(&world, "web").await;

        world.deliver().await;
        world.deliver().await;
        assert_eq!(receiver.got().len(), 1, "the next try has its time");
        world.clock.advance(Duration::seconds(6));
        world.deliver().await;
        world.clock.advance(Duration::minutes(6));
        world.deliver().await;

        let got = receiver.got();
        assert_eq!(got.len(), 3);
        for again in &got[1..] {
            assert_eq!(again.body, got[0].body);
            assert_eq!(again.header("webhook-id"), got[0].header("webhook-id"));
            assert_ne!(again.header("webhook-timestamp"), got[0].header("webhook-timestamp"));
            assert_ne!(again.header("webhook-signature"), got[0].header("webhook-signature"));
            assert!(is_signed(again, secret(&hook)));
        }
        let delivery = only_delivery(&world, &hook).await;
        assert_eq!((&delivery["state"], &delivery["attempts"]), (&json!("delivered"), &json!(3)));
    }

    async fn who_died_before_marking_has_the_same_message_sent_again(world: World) {
        let (receiver, hook) = hooked(&world, json!({})).await;
        receiver.will_answer([Reply::Hang]);
        issued(&world, "web").await;

        let worker = world.worker();
        let dying = tokio::spawn(async move { worker.deliver_due().await.is_ok() });
        receiver.until(1).await;
        dying.abort();
        assert!(dying.await.unwrap_err().is_cancelled());
        world.deliver().await;
        assert_eq!(receiver.got().len(), 1, "its lease still holds");
        world.db_take_over().await;
        world.deliver().await;

        let got = receiver.got();
        assert_eq!(got.len(), 2);
        assert_eq!(got[0].body, got[1].body);
        assert_eq!(got[0].header("webhook-id"), got[1].header("webhook-id"));
        assert_eq!(only_delivery(&world, &hook).await["state"], "delivered");
    }

    async fn a_redirect_is_not_followed_and_its_answer_is_shown(world: World) {
        let (receiver, hook) = hooked(&world, json!({})).await;
        let elsewhere = Receiver::start().await;
        receiver.usually_answers(Reply::With(302, ("location", elsewhere.url()), "over\tthere\u{1b}"));
        issued(&world, "web").await;

        world.deliver().await;

        assert!(elsewhere.got().is_empty());
        let delivery = only_delivery(&world, &hook).await;
        assert_eq!((&delivery["state"], &delivery["responseStatus"]), (&json!("pending"), &json!(302)));
        assert_eq!(delivery["responseBody"], "over there");
        assert!(delivery["nextAttemptAt"].is_string());
    }

    async fn gone_disables_the_webhook_and_keeps_what_it_missed(world: World) {
        let (receiver, hook) = hooked(&world, json!({})).await;
        receiver.will_answer([Reply::Status(410)]);
        issued(&world, "one").await;
        world.deliver().await;
        issued(&world, "two").await;
        world.clock.advance(Duration::days(1));
        world.deliver().await;

        assert_eq!(receiver.got().len(), 1, "nothing is sent any more");
        let shown = show(&world, &hook).await;
        assert_eq!((&shown["disabled"], &shown["status"]["phase"]), (&json!(true), &json!("Disabled")));
        assert!(shown["status"]["message"].as_str().unwrap().contains("410"), "{shown}");
        assert!(reasons(&world, &hook).await.contains(&"Disabled".to_owned()));
        assert_eq!(deliveries(&world, &hook, "?state=held").await.len(), 2);
        let path = path(&hook);
        let since = json!({"since": "2026-11-24T00:00:00Z"});
        world.post(&format!("{path}/redeliver"), since.clone()).await.is_problem(409, "webhook_disabled");

        world.patch(&path, json!({"disabled": false})).await;
        let again = world.post(&format!("{path}/redeliver"), since).await.accepted();
        world.deliver().await;

        assert_eq!(again["redelivered"], 2);
        assert_eq!(receiver.got().len(), 3);
        assert_eq!(receiver.got()[0].header("webhook-id"), receiver.got()[1].header("webhook-id"));
    }

    async fn retry_after_is_kept_to(world: World) {
        let (receiver, hook) = hooked(&world, json!({})).await;
        receiver.will_answer([Reply::With(429, ("retry-after", "600".into()), "")]);
        issued(&world, "web").await;
        world.deliver().await;

        world.clock.advance(Duration::seconds(590));
        world.deliver().await;
        assert_eq!(receiver.got().len(), 1);
        world.clock.advance(Duration::seconds(11));
        world.deliver().await;

        assert_eq!(receiver.got().len(), 2);
        assert_eq!(only_delivery(&world, &hook).await["state"], "delivered");
    }

    async fn what_is_told_of_one_certificate_arrives_in_order(world: World) {
        let (receiver, hook) = hooked(&world, json!({})).await;
        receiver.will_answer([Reply::Status(503)]);
        let web = issued(&world, "web").await;
        fail(&world, &web).await;
        renew(&world, &web).await;
        let waiting = deliveries(&world, &hook, "?state=queued").await;
        assert_eq!(waiting.len(), 3);
        world.deliver().await;
        issued(&world, "other").await;

        world.deliver().await;
        assert_eq!(receiver.types(), ["certificate.issued", "certificate.issued"], "others go past");
        assert_ne!(receiver.got()[0].body, receiver.got()[1].body);
        world.clock.advance(Duration::seconds(6));
        world.deliver().await;

        let of_web: Vec<_> = receiver.got().iter().skip(2).map(Got::kind).collect();
        assert_eq!(of_web, ["certificate.issued", "certificate.failed", "certificate.renewed", "certificate.recovered"]);
    }

    async fn while_an_endpoint_is_down_it_is_probed_and_then_everything_flows(world: World) {
        let (receiver, hook) = hooked(&world, json!({})).await;
        receiver.usually_answers(Reply::Status(500));
        for n in 0..10 {
            issued(&world, &format!("web-{n}")).await;
        }

        world.deliver().await;
        let seen = receiver.got().len();
        assert!((3..=6).contains(&seen), "{seen}: it is left alone, whoever else waits");
        let shown = show(&world, &hook).await;
        assert_eq!(shown["status"]["phase"], "Failing");
        assert!(shown["status"]["lastError"].as_str().unwrap().contains("500"), "{shown}");
        world.clock.advance(Duration::minutes(1));
        world.deliver().await;
        assert_eq!(receiver.got().len(), seen + 1, "one probe");

        receiver.usually_answers(Reply::Status(200));
        world.clock.advance(Duration::minutes(5));
        world.deliver().await;

        assert_eq!(deliveries(&world, &hook, "?state=delivered").await.len(), 10);
        let shown = show(&world, &hook).await;
        assert_eq!((&shown["status"]["phase"], &shown["status"]["consecutiveFailures"]), (&json!("Ready"), &json!(0)));
        let reasons = reasons(&world, &hook).await;
        assert!(reasons.contains(&"Failing".into()) && reasons.contains(&"Recovered".into()), "{reasons:?}");
    }

    async fn a_receiver_that_hangs_keeps_nobody_else_waiting(world: World) {
        let (slow, _) = hooked(&world, json!({"description": "slow"})).await;
        slow.usually_answers(Reply::Hang);
        let (dead, dead_hook) = hooked(&world, json!({"description": "dead"})).await;
        drop(dead);
        let (quick, _) = hooked(&world, json!({"description": "quick"})).await;
        let running = tokio::spawn(world.worker().run_deliveries());
        // No time passes: a delivery that waited for the slow receiver would wait for ever.
        let clock = StoppedClock::stop();

        issued(&world, "one").await;
        slow.until(1).await;
        quick.until(1).await;
        issued(&world, "two").await;
        quick.until(2).await;

        drop(clock);
        assert_eq!(slow.got().len(), 1);
        let path = format!("{}?state=pending", deliveries_path(&dead_hook));
        assert!(!world.get(&path).await.json()["items"].as_array().unwrap().is_empty());
        running.abort();
    }

    async fn after_the_last_try_it_is_dead_kept_for_long_told_and_can_be_sent_again(world: World) {
        let (receiver, hook) = hooked(&world, json!({})).await;
        receiver.usually_answers(Reply::Status(500));
        issued(&world, "web").await;
        for pause in SCHEDULE {
            world.clock.advance(pause + pause / 5);
            world.deliver().await;
        }

        assert_eq!(receiver.got().len(), 10);
        let dead = only_delivery(&world, &hook).await;
        assert_eq!((&dead["state"], &dead["attempts"]), (&json!("dead"), &json!(10)));
        assert!(reasons(&world, &hook).await.contains(&"DeliveryFailed".to_owned()));
        world.clock.advance(Duration::days(170));
        world.worker().forget_deliveries().await.unwrap();
        assert_eq!(only_delivery(&world, &hook).await["state"], "dead", "kept");

        receiver.usually_answers(Reply::Status(200));
        let again = format!("{}/{}/redeliver", deliveries_path(&hook), id(&dead));
        assert_eq!(world.post(&again, json!({})).await.accepted()["state"], "pending");
        world.deliver().await;

        let got = receiver.got();
        assert_eq!(got[10].header("webhook-id"), got[0].header("webhook-id"));
        assert_eq!(got[10].body, got[0].body);
        assert_eq!(only_delivery(&world, &hook).await["state"], "delivered");
    }

    async fn an_endpoint_that_failed_for_five_days_is_disabled(world: World) {
        let (receiver, hook) = hooked(&world, json!({})).await;
        receiver.usually_answers(Reply::Status(500));
        for day in 0..6 {
            issued(&world, &format!("day-{day}")).await;
            for _ in 0..5 {
                world.clock.advance(Duration::hours(5));
                world.deliver().await;
            }
        }

        let shown = show(&world, &hook).await;
        assert_eq!((&shown["disabled"], &shown["status"]["phase"]), (&json!(true), &json!("Disabled")), "{shown}");
        assert!(shown["status"]["message"].as_str().unwrap().contains("five days"), "{shown}");
        assert!(reasons(&world, &hook).await.contains(&"Disabled".to_owned()));
        assert!(deliveries(&world, &hook, "?state=pending").await.is_empty());
        let seen = receiver.got().len();
        world.clock.advance(Duration::days(1));
        world.deliver().await;
        assert_eq!(receiver.got().len(), seen);
    }

    async fn failure_is_told_once_and_recovery_when_it_heals(world: World) {
        let (receiver, _) = hooked(&world, json!({})).await;
        let web = issued(&world, "web").await;
        for _ in 0..3 {
            fail(&world, &web).await;
        }
        renew(&world, &web).await;
        world.deliver().await;

        assert_eq!(
            receiver.types(),
            ["certificate.issued", "certificate.failed", "certificate.renewed", "certificate.recovered"]
        );
        let failed = receiver.got()[1].json();
        assert_eq!(failed["data"]["status"]["phase"], "Failed");
        assert_eq!(failed["data"]["status"]["lastError"]["code"], "acme_dns");
    }

    async fn an_issuer_is_told_of_to_all_that_its_certificates_concern(world: World) {
        let (receiver, _) = hooked(&world, json!({"events": ["issuer.ready", "issuer.failed"]})).await;
        let (labelled, _) = hooked(&world, json!({"labels": {"team": "web"}})).await;
        let issuer = id(&world.create_issuer().await);
        let mut tx = world.db.begin();
        let key = certwright::domain::id::IssuerId(issuer.parse().unwrap());
        let (found, lease) = issuers::find(&mut tx, key, &Scope::Everything).await.unwrap().unwrap();
        let failed = found.not_registered(failure(), world.now(), Jitter::NONE);
        issuers::save(&mut tx, &failed, &lease).await.unwrap();
        let (found, lease) = issuers::find(&mut tx, key, &Scope::Everything).await.unwrap().unwrap();
        let account = Account { url: "https://ca.example/a".into(), server: found.acme.server.clone(), email: None };
        issuers::save(&mut tx, &found.registered(account, world.now()), &lease).await.unwrap();
        tx.commit().await.unwrap();

        world.deliver().await;

        assert_eq!(receiver.types(), ["issuer.failed", "issuer.ready"]);
        assert_eq!(receiver.got()[1].json()["data"], world.get(&format!("/issuers/{issuer}")).await.json());
        assert!(labelled.got().is_empty(), "it asked for certificates with a label");
    }

    async fn what_ended_long_ago_is_forgotten(world: World) {
        let (receiver, hook) = hooked(&world, json!({})).await;
        issued(&world, "old").await;
        world.deliver().await;
        world.clock.advance(Duration::days(29));
        world.worker().forget_deliveries().await.unwrap();
        assert_eq!(deliveries(&world, &hook, "").await.len(), 1);
        issued(&world, "new").await;
        world.deliver().await;

        world.clock.advance(Duration::days(2));
        world.worker().forget_deliveries().await.unwrap();

        let left = deliveries(&world, &hook, "").await;
        assert_eq!(left.len(), 1);
        assert_eq!(left[0]["messageId"], receiver.got()[1].header("webhook-id"));
    }
}

/// A receiver, and a webhook that leads to it.
pub(crate) async fn hooked(world: &World, more: Value) -> (Receiver, Value) {
    let receiver = Receiver::start().await;
    let mut wanted = json!({"url": receiver.url()});
    for (key, value) in more.as_object().unwrap() {
        wanted[key] = value.clone();
    }
    let hook = world.post("/webhooks", wanted).await.accepted();
    (receiver, hook)
}

/// A certificate with an open order.
pub(crate) async fn ordered(world: &World, name: &str) -> String {
    ordered_as(world, certificate(name)).await
}

pub(crate) async fn ordered_as(world: &World, wanted: Value) -> String {
    if world.get("/issuers").await.json()["items"].as_array().unwrap().is_empty() {
        world.create_issuer().await;
    }
    let created = world.post("/certificates", wanted).await.accepted();
    world.db_order(&id(&created)).await;
    id(&created)
}

/// A certificate that was issued.
pub(crate) async fn issued(world: &World, name: &str) -> String {
    let web = ordered(world, name).await;
    renew(world, &web).await;
    web
}

pub(crate) async fn renew(world: &World, web: &str) {
    world.db_let(web, |found| issue(world, found)).await;
}

pub(crate) async fn fail(world: &World, web: &str) {
    let now = world.now();
    let outcome = || Outcome::Failed(failure());
    world.db_let(web, |found| found.order_failed(outcome(), 0, now, Jitter::NONE)).await;
}

fn issue(world: &World, found: Certificate) -> Transition {
    let now = world.now();
    let revision = found.current.as_ref().map_or(0, |issued| issued.revision) + 1;
    let issued = Issued {
        revision,
        serial: format!("0{revision}"),
        not_before: now,
        not_after: now + Duration::days(90),
        renewal_time: now + Duration::days(60),
    };
    found.issued(issued, None, now)
}

fn failure() -> Failure {
    Failure::of(code::ACME_DNS, "NXDOMAIN").titled("The CA found no proof")
}

pub(crate) fn secret(hook: &Value) -> &str {
    hook["secret"].as_str().unwrap()
}

/// True if the receiver's library accepts the signature. It compares times with the real clock,
/// and the test's clock differs, so the signature is computed again, and compared.
pub(crate) fn is_signed(got: &Got, secret: &str) -> bool {
    let at = got.header("webhook-timestamp").parse().unwrap();
    let library = Webhook::new(secret).unwrap();
    let good = library.sign(got.header("webhook-id"), at, got.body.as_bytes()).unwrap();
    got.header("webhook-signature").split(' ').any(|signature| signature == good)
}

pub(crate) fn path(hook: &Value) -> String {
    format!("/webhooks/{}", id(hook))
}

pub(crate) fn deliveries_path(hook: &Value) -> String {
    format!("{}/deliveries", path(hook))
}

pub(crate) async fn show(world: &World, hook: &Value) -> Value {
    world.get(&path(hook)).await.json()
}

pub(crate) async fn deliveries(world: &World, hook: &Value, query: &str) -> Vec<Value> {
    let path = format!("{}{query}", deliveries_path(hook));
    world.get(&path).await.json()["items"].as_array().unwrap().clone()
}

pub(crate) async fn only_delivery(world: &World, hook: &Value) -> Value {
    let all = deliveries(world, hook, "").await;
    assert_eq!(all.len(), 1, "{all:#?}");
    all[0].clone()
}

pub(crate) async fn reasons(world: &World, hook: &Value) -> Vec<String> {
    let path = format!("/events?resource=webhooks/{}", id(hook));
    let found = world.get(&path).await.json();
    let items = found["items"].as_array().unwrap();
    items.iter().map(|event| event["reason"].as_str().unwrap().to_owned()).collect()
}
