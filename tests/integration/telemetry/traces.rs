//! One trace for each issuance: from the request to the webhook, through restarts and replicas, in problems, events and
//! the log, and with a collector where there is one.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};
use time::Duration;

use crate::support::ClosedPort;
use crate::support::collector::{Collected, Collector};
use crate::support::driven::Driven;
use crate::support::installation::{Database, Installation, items};
use crate::support::patience::until;
use crate::support::receiver::Receiver;
use crate::support::world::{World, certificate, cluster_issuer, id, on_every_database};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

fn traceparent() -> String {
    format!("00-{TRACE}-{CALLER}-01")
}

on_every_database! {
    async fn a_request_goes_on_in_the_trace_of_its_client(world: World) {
        let ask = world.ask(reqwest::Method::GET, "/certificates/nobody");

        let reply = ask.header("traceparent", &traceparent()).send().await;

        let problem = reply.json();
        assert_eq!(problem["traceId"], TRACE, "{problem}");
        let here = reply.header("traceresponse");
        assert!(here.starts_with(&format!("00-{TRACE}-")) && here.ends_with("-01"), "{here}");
        assert!(!here.contains(CALLER), "the answer has a span of its own: {here}");
    }

    async fn a_request_without_a_trace_that_counts_begins_one(world: World) {
        let mut seen = HashSet::new();
        for given in ["", "00-not-a-trace", "00-00000000000000000000000000000000-00f067aa0ba902b7-01"] {
            let reply = world.ask(reqwest::Method::GET, "/certificates/nobody").header("traceparent", given).send().await;

            let trace = reply.json()["traceId"].as_str().unwrap().to_owned();
            assert!(trace.len() == 32 && trace.bytes().any(|byte| byte != b'0'), "{trace}");
            // Nobody collects spans here: whoever is asked next need not either.
            assert!(reply.header("traceresponse").starts_with(&format!("00-{trace}-")));
            assert!(reply.header("traceresponse").ends_with("-00"));
            assert!(seen.insert(trace), "each has its own");
        }
        let twice = world.ask(reqwest::Method::GET, "/certificates/nobody").header("traceparent", &traceparent());
        let twice = twice.header("traceparent", &traceparent()).send().await;
        assert_ne!(twice.json()["traceId"], TRACE, "of several none counts");
    }

    async fn what_a_request_brings_about_names_its_trace(world: World) {
        world.post("/issuers", cluster_issuer("le")).await.accepted();
        let ask = world.ask(reqwest::Method::POST, "/certificates").json(&certificate("web"));
        ask.header("traceparent", &traceparent()).send().await.accepted();

        let web = id(&world.certificates().await[0]);
        let events = events_of(&world, &web).await;

        assert!(!events.is_empty());
        assert!(events.iter().all(|event| event["traceId"] == TRACE), "{events:#?}");
    }
}

async fn events_of(world: &World, certificate: &str) -> Vec<Value> {
    let found = world.get(&format!("/events?resource={certificate}&limit=500")).await.json();
    items(&found).to_vec()
}

#[tokio::test]
async fn every_attempt_that_comes_by_itself_has_a_trace_of_its_own_on_sqlite() {
    let (_folder, url) = crate::support::world::sqlite();
    assert_attempts_have_traces_of_their_own(&url).await;
}

#[tokio::test]
async fn every_attempt_that_comes_by_itself_has_a_trace_of_its_own_on_postgres() {
    let url = crate::support::postgres::fresh_database().await;
    assert_attempts_have_traces_of_their_own(&url).await;
}

async fn assert_attempts_have_traces_of_their_own(url: &str) {
    let driven = Driven::on(url, &json!({})).await;
    driven.ask_for("web").await;
    let web = id(&driven.until_all_ready().await[0]);
    let begun = driven.world.now();

    let mut traces = traces_by_resource(&driven.world, &web).await;
    while traces.keys().filter(|about| about.starts_with("/requests/")).count() < 2 {
        driven.pass_until(begun + Duration::days(400)).await;
        driven.step().await;
        traces = traces_by_resource(&driven.world, &web).await;
    }

    let of = |kind: &str| -> Vec<&String> {
        let about = traces.iter().filter(|(about, _)| about.starts_with(kind));
        about.flat_map(|(_, traces)| traces).collect()
    };
    let attempts = of("/requests/");
    let distinct: HashSet<_> = attempts.iter().copied().collect();
    assert_eq!((attempts.len(), distinct.len()), (2, 2), "one for each attempt: {traces:#?}");
    for kind in ["/orders/", "/challenges/"] {
        let of_kind: HashSet<_> = of(kind).into_iter().collect();
        assert_eq!(of_kind, distinct, "what belongs to an attempt is in its trace: {traces:#?}");
    }
}

/// The traces that a certificate's request, orders and challenges tell of, each once.
async fn traces_by_resource(world: &World, certificate: &str) -> HashMap<String, HashSet<String>> {
    let mut traces: HashMap<String, HashSet<String>> = HashMap::new();
    for event in events_of(world, certificate).await {
        let about = event["resource"].as_str().unwrap().to_owned();
        let trace = event["traceId"].as_str().unwrap_or("none").to_owned();
        traces.entry(about).or_default().insert(trace);
    }
    traces
}

#[tokio::test]
async fn an_issuance_is_one_tree_from_the_request_to_the_webhook_on_sqlite() {
    assert_one_tree(Database::Sqlite).await;
}

#[tokio::test]
async fn an_issuance_is_one_tree_from_the_request_to_the_webhook_on_postgres() {
    assert_one_tree(Database::Postgres).await;
}

async fn assert_one_tree(database: Database) {
    let collector = Collector::start().await;
    let mut site = Installation::on(database).await;
    site.set("TELEMETRY_OTLP_ENDPOINT", &collector.url());
    site.set("TELEMETRY_OTLP_HEADERS", "x-scope-orgid=night-shift");
    let mut program = site.start().await;
    site.set_up(&program).await;
    let receiver = Receiver::start().await;
    site.post(
        &program,
        "/webhooks",
        &json!({"url": receiver.url(), "events": ["certificate.issued"]}),
    )
    .await
    .unwrap();

    site.ask_in(&program, "web", &traceparent()).await;
    site.until_all_ready(&mut program, 1).await;
    let told = receiver.until(1).await;
    let spans = collector
        .until("the delivery", |spans| spans.iter().any(|span| span.name == "deliver webhook"))
        .await;

    let ours = |span: &&Collected| span.trace == TRACE;
    let tree: Vec<_> = spans.iter().filter(ours).collect();
    assert_is_tree(&tree);
    for name in [
        "POST /certificates",
        "begin issuance",
        "order",
        "create order",
        "ACME newOrder",
        "solve challenges",
        "cloudflare",
        "dns",
        "finalize order",
        "ACME finalize",
        "download certificate",
        "deliver webhook",
    ] {
        assert!(tree.iter().any(|span| span.name == name), "{name}: {}", drawn(&tree));
    }
    let strangers = spans.iter().filter(|span| !ours(span));
    for span in strangers {
        assert_eq!(span.field("certwright.certificate"), "", "it is in no other trace: {span:?}");
    }
    assert_says_what_was_asked(&tree);
    let delivered = tree.iter().find(|span| span.name == "deliver webhook").unwrap();
    assert_eq!(told[0].header("traceparent"), format!("00-{TRACE}-{}-01", delivered.id));
    assert_eq!(collector.headers()["x-scope-orgid"], "night-shift");
    assert_eq!(delivered.sender["service.name"], "certwright");

    let events = site.get(&program, "/events?limit=500").await.unwrap().body;
    let of_others = |event: &&Value| {
        let about = event["resource"].as_str().unwrap();
        ["/issuers/", "/webhooks/"].iter().any(|kind| about.starts_with(kind))
    };
    for event in items(&events).iter().filter(|event| !of_others(event)) {
        assert_eq!(event["traceId"], TRACE, "{event}");
    }
    let log = program.log();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let issued: Vec<_> =
        lines.filter(|line| line["message"] == "the certificate was issued").collect();
    assert_eq!(issued.len(), 1);
    assert_eq!(issued[0]["trace_id"], TRACE, "{}", issued[0]);
}

/// One span is below the caller's, and every other below one of the tree; none is there twice.
fn assert_is_tree(tree: &[&Collected]) {
    let ids: HashSet<_> = tree.iter().map(|span| span.id.as_str()).collect();
    assert_eq!(ids.len(), tree.len(), "each was sent once: {}", drawn(tree));
    let roots: Vec<_> = tree.iter().filter(|span| !ids.contains(span.parent.as_str())).collect();
    let [root] = &roots[..] else { panic!("one root: {}", drawn(tree)) };
    assert_eq!((root.name.as_str(), root.parent.as_str()), ("POST /certificates", CALLER));
    assert!(tree.iter().all(|span| span.start <= span.end), "{}", drawn(tree));
}

/// Calls say whom they asked and what came of it; steps say for which order, and who took them.
fn assert_says_what_was_asked(tree: &[&Collected]) {
    let named = |name: &str| tree.iter().find(|span| span.name == name).unwrap();
    let asked = named("ACME newOrder");
    assert_eq!(asked.field("http.request.method"), "POST");
    assert_eq!(asked.field("http.response.status_code"), "201");
    assert!(!asked.field("server.address").is_empty());
    assert_eq!(named("cloudflare").field("http.response.status_code"), "200");
    assert_eq!(named("deliver webhook").field("http.response.status_code"), "204");
    assert_eq!(named("POST /certificates").field("http.response.status_code"), "202");
    let order = named("order");
    assert_eq!(order.field("certwright.certificate"), "default/web");
    assert_eq!(order.field("certwright.outcome"), "issued");
    for step in tree.iter().filter(|span| span.parent == order.id && span.name != "deliver webhook")
    {
        assert_eq!(step.field("certwright.order"), order.field("certwright.order"), "{step:?}");
        assert!(step.field("certwright.replica").starts_with("pid "), "{step:?}");
        assert!(!step.has_failed, "{step:?}");
    }
    assert_eq!(asked.parent, named("create order").id);
}

/// A line for each span, for the message of a failed test.
fn drawn(tree: &[&Collected]) -> String {
    let names: HashMap<_, _> = tree.iter().map(|span| (&span.id, &span.name)).collect();
    let line = |span: &&Collected| {
        let parent = names.get(&span.parent).map_or(span.parent.as_str(), |name| name.as_str());
        format!("\n  {} below {parent}", span.name)
    };
    tree.iter().map(line).collect()
}

#[tokio::test]
async fn an_order_goes_on_in_its_trace_after_a_crash() {
    assert_goes_on(Database::Sqlite).await;
}

#[tokio::test]
async fn another_replica_goes_on_in_the_trace_of_an_order() {
    assert_goes_on(Database::Postgres).await;
}

async fn assert_goes_on(database: Database) {
    let collector = Collector::start().await;
    let mut site = Installation::on(database).await;
    site.set("TELEMETRY_OTLP_ENDPOINT", &collector.url());
    let dies = site.start_with("after_finalize=return").await;
    site.set_up(&dies).await;
    site.ask_in(&dies, "web", &traceparent()).await;
    dies.die().await;

    let mut other = site.start().await;
    site.until_all_ready(&mut other, 1).await;
    collector.until("the order", |spans| spans.iter().any(|span| span.name == "order")).await;
    other.stop().await;

    let spans = collector.of_trace(TRACE);
    let orders: Vec<_> = spans.iter().filter(|span| span.name == "order").collect();
    let [order] = &orders[..] else { panic!("{orders:#?}") };
    let download = spans.iter().find(|span| span.name == "download certificate").unwrap();
    assert_eq!(download.parent, order.id, "the steps of both are below the same order");
    assert_eq!(order.field("certwright.outcome"), "issued");
    let foreign = collector.spans().into_iter().filter(|span| span.trace != TRACE);
    for span in foreign {
        assert_eq!(span.field("certwright.certificate"), "", "it is in no other trace: {span:?}");
    }
}

#[tokio::test]
async fn the_order_of_a_certificate_that_is_deleted_is_sent_with_its_steps() {
    let collector = Collector::start().await;
    let mut site = Installation::on(Database::Sqlite).await;
    site.set("TELEMETRY_OTLP_ENDPOINT", &collector.url());
    let program = site.start().await;
    site.set_up(&program).await;
    site.cloudflare.hide_records();
    site.ask_in(&program, "web", &traceparent()).await;
    collector.until("a step", |spans| spans.iter().any(|span| span.name == "create order")).await;
    let certificates = site.get(&program, "/certificates").await.unwrap().body;

    let web = format!("/certificates/{}", id(&items(&certificates)[0]));
    assert_eq!(site.delete(&program, &web).await.unwrap().status, 204);

    let is_order = |span: &Collected| span.name == "order";
    let spans = collector.until("the order", |spans| spans.iter().any(is_order)).await;
    let order = spans.iter().find(|span| is_order(span)).unwrap();
    assert_eq!(order.field("certwright.outcome"), "order_cancelled");
    assert!(order.has_failed && order.trace == TRACE, "{order:?}");
    let step = spans.iter().find(|span| span.name == "create order").unwrap();
    assert_eq!(step.parent, order.id);
}

#[tokio::test]
async fn a_collector_that_is_away_is_told_of_once_and_holds_nothing_up() {
    let nobody = ClosedPort::new();
    let mut site = Installation::on(Database::Sqlite).await;
    site.set("TELEMETRY_OTLP_ENDPOINT", &format!("http://{}", nobody.address()));
    let mut program = site.start().await;
    site.set_up(&program).await;

    for name in ["one", "two", "three"] {
        site.ask_for(&program, name).await.unwrap();
    }
    site.until_all_ready(&mut program, 3).await;
    until("the warning", async || warnings(&program.log()).len() == 1).await;
    let log = program.log();
    program.send(rustix::process::Signal::TERM);

    assert!(program.end().await.success(), "it stops without the collector");
    let told = warnings(&program.log());
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("the collector takes no spans"), "{told:?}");
    assert!(!log.contains("opentelemetry"), "the library says nothing by itself: {log}");
}

#[tokio::test]
async fn a_collector_that_comes_back_gets_what_was_kept_for_it() {
    let collector = Collector::start().await;
    collector.answers(503);
    let mut site = Installation::on(Database::Sqlite).await;
    site.set("TELEMETRY_OTLP_ENDPOINT", &collector.url());
    let program = site.start().await;
    site.post(&program, "/certificates", &json!({})).await.unwrap();
    until("the warning", async || warnings(&program.log()).len() == 1).await;

    collector.answers(200);

    collector
        .until("the request", |spans| spans.iter().any(|span| span.name == "POST /certificates"))
        .await;
    until("the word", async || program.log().contains("the collector takes spans again")).await;
}

#[tokio::test]
async fn only_what_is_sampled_is_sent() {
    let collector = Collector::start().await;
    let mut site = Installation::on(Database::Sqlite).await;
    site.set("TELEMETRY_OTLP_ENDPOINT", &collector.url());
    site.set("TELEMETRY_OTLP_SAMPLE_RATIO", "0");
    let mut program = site.start().await;
    site.set_up(&program).await;

    site.ask_for(&program, "unseen").await.unwrap();
    site.ask_in(&program, "web", &traceparent()).await;
    site.until_all_ready(&mut program, 2).await;
    program.stop().await;

    let spans = collector.spans();
    assert!(spans.iter().any(|span| span.name == "order"), "the client's own trace is sampled");
    assert!(spans.iter().all(|span| span.trace == TRACE), "{spans:#?}");
}

fn warnings(log: &str) -> Vec<String> {
    log.lines().filter(|line| !line.contains("\"level\":\"INFO\"")).map(str::to_owned).collect()
}
