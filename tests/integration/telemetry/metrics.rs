//! The metrics say what happened.

use axum::http::Method;
use certwright::domain::certificate::{Certificate, Issued, State, Trigger};
use certwright::domain::delivery::SCHEDULE;
use serde_json::{Value, json};
use time::Duration;

use super::prometheus::assert_taken;
use crate::support::installation::{Database, Installation, Program};
use crate::support::receiver::Reply;
use crate::support::world::{World, id, on_every_database};
use crate::webhooks::{hooked, issued};

on_every_database! {
    async fn metrics_need_their_permission_and_are_for_nobody_who_is_bound(world: World) {
        let unbound = world.ask(Method::GET, "/metrics").without_key().send().await;
        unbound.is_problem(401, "unauthenticated");
        for (permission, status) in [("certificates:read", 403), ("metrics:read", 403)] {
            let key = world.key(&[permission], &["default"]).await;
            let refused = world.ask(Method::GET, "/metrics").with_key(&key).send().await;
            refused.is_problem(status, "permission_denied");
        }

        let scrape = world.get("/metrics").await;

        assert_eq!(scrape.status, 200);
        assert!(scrape.header("content-type").starts_with("text/plain; version=0.0.4"));
        assert_taken(&scrape.text);
    }

    async fn what_is_due_and_taken_by_nobody_is_counted_with_its_age(world: World) {
        world.create_issuer().await;
        world.db_register().await;
        world.create_certificate("web").await;
        world.clock.advance(Duration::seconds(90));

        let page = scrape(&world).await;

        // An issuer that is ready looks after those that wait for it once more, after five seconds.
        for (queue, since) in [("certificate", 90), ("issuer", 85)] {
            assert_eq!(value(&page, &format!("certwright_queue_due{{queue=\"{queue}\"}}")), 1);
            let age = value(&page, &format!("certwright_queue_oldest_due_seconds{{queue=\"{queue}\"}}"));
            assert_eq!(age, since);
        }
        assert_eq!(value(&page, "certwright_queue_due{queue=\"order\"}"), 0);
        assert_eq!(value(&page, "certwright_issuer_ready{issuer=\"le\",kind=\"ClusterIssuer\"}"), 1);
    }

    async fn certificates_are_counted_by_phase_and_those_that_end_next_are_known(world: World) {
        world.create_issuer().await;
        world.create_certificate("wanted").await;
        for (name, days) in [("late", 90), ("soon", 10)] {
            let certificate = id(&world.create_certificate(name).await);
            let now = world.now();
            let served = Issued {
                revision: 1,
                serial: "0abc".into(),
                not_before: now,
                not_after: now + Duration::days(days),
                renewal_time: now + Duration::days(days),
            };
            world.db_let(&certificate, |found| found.issued(served, None, now)).await;
        }
        let page = scrape(&world).await;
        assert_eq!(phase(&page, "Issuing"), 1);
        assert_eq!(phase(&page, "Ready"), 2);
        let soonest = world.now() + Duration::days(10);
        let end = value(&page, "certwright_certificate_soonest_end_timestamp_seconds");
        assert_eq!(end, soonest.unix_timestamp());
        assert!(!page.contains("name=\"soon\""), "no certificate is named unless it is asked for");

        world.clock.advance(Duration::days(11));

        let page = scrape(&world).await;
        assert_eq!((phase(&page, "Ready"), phase(&page, "Expired")), (1, 1));
        assert_eq!(value(&page, "certwright_certificates_ended"), 1);
    }

    /// Between its attempts and in their midst: an alert that waits for an hour would never come otherwise.
    async fn a_failing_renewal_is_counted_through_all_of_its_attempts(world: World) {
        world.create_issuer().await;
        let certificate = id(&world.create_certificate("web").await);
        let (now, failing) = (world.now(), "certwright_certificates_renewal_failing");
        let served = Issued {
            revision: 1,
            serial: "0abc".into(),
            not_before: now,
            not_after: now + Duration::days(90),
            renewal_time: now,
        };
        world.db_let(&certificate, |found| found.issued(served, None, now)).await;
        assert_eq!(value(&scrape(&world).await, failing), 0);
        let attempt = |state, failed_attempts| move |found| Certificate { state, failed_attempts, ..found };

        for (state, failed_attempts, count) in [
            (State::Triggered(Trigger::Renewing), 0, 0),
            (State::Backoff, 1, 1),
            (State::Triggered(Trigger::Renewing), 1, 1),
            (State::Backoff, 2, 1),
            (State::Blocked, 3, 1),
            (State::Idle, 0, 0),
        ] {
            world.db_change(&certificate, attempt(state, failed_attempts)).await;
            assert_eq!(value(&scrape(&world).await, failing), count, "{state:?}");
        }
    }

    async fn what_was_never_issued_is_counted_by_its_age(world: World) {
        world.create_issuer().await;
        world.create_certificate("web").await;
        let page = scrape(&world).await;
        for outcome in ["class=\"\",issuer=\"le\",kind=\"ClusterIssuer\",outcome=\"issued\"", "class=\"validation\",issuer=\"le\",kind=\"ClusterIssuer\",outcome=\"failed\""] {
            let series = format!("certwright_orders_total{{{outcome}}}");
            assert!(page.contains(&series), "an increase has to begin somewhere: {series}");
        }

        world.clock.advance(Duration::hours(2));

        assert_eq!(value(&scrape(&world).await, "certwright_certificate_unissued_oldest_seconds"), 7_200);
    }

    async fn a_dead_letter_and_an_endpoint_that_fails_are_counted(world: World) {
        let dead = "certwright_webhook_deliveries_total{outcome=\"dead\"}";
        let before = value(&scrape(&world).await, dead);
        let (receiver, _) = hooked(&world, json!({})).await;
        receiver.usually_answers(Reply::Status(500));
        issued(&world, "web").await;
        world.deliver().await;
        let page = scrape(&world).await;
        assert_eq!(value(&page, "certwright_webhooks{state=\"not_answering\"}"), 1);
        assert_eq!(value(&page, "certwright_webhook_deliveries_open"), 1);

        for pause in SCHEDULE {
            world.clock.advance(pause + pause / 5);
            world.deliver().await;
        }

        // Other tests may have had one meanwhile.
        assert!(value(&scrape(&world).await, dead) > before);
    }

    async fn an_issuers_budget_shows_what_is_left_of_it(world: World) {
        let mut issuer = crate::support::world::cluster_issuer("limited");
        issuer["acme"]["limits"] = json!({"newOrders": {"count": 10, "per": "1h"}});
        world.post("/issuers", issuer).await.accepted();

        let page = scrape(&world).await;

        let left = "certwright_budget_remaining_ratio{issuer=\"limited\",kind=\"ClusterIssuer\",limit=\"newOrders\"}";
        assert_eq!(value(&page, left), 1);
    }
}

#[tokio::test]
async fn an_issuance_and_a_failure_are_counted_on_sqlite() {
    assert_issuance_and_failure_are_counted(Database::Sqlite).await;
}

#[tokio::test]
async fn an_issuance_and_a_failure_are_counted_on_postgres() {
    assert_issuance_and_failure_are_counted(Database::Postgres).await;
}

async fn assert_issuance_and_failure_are_counted(database: Database) {
    let installation = Installation::on(database).await;
    let mut program = installation.start().await;
    installation.set_up(&program).await;
    installation.ask_for(&program, "web").await.unwrap();
    installation.until_all_ready(&mut program, 1).await;
    // Of a zone that the provider does not have.
    let foreign = json!({"name": "foreign", "issuerRef": {"name": "dns", "kind": "ClusterIssuer"}, "dnsNames": ["www.elsewhere.test"]});
    installation.post(&program, "/certificates", &foreign).await.unwrap();
    let is_blocked = |found: &Value| {
        found["items"].as_array().unwrap().iter().any(|one| one["status"]["phase"] == "Blocked")
    };
    installation.until(&mut program, "/certificates", is_blocked).await;

    let page = page_of(&installation, &program).await;

    assert_taken(&page);
    let issuer = "issuer=\"dns\",kind=\"ClusterIssuer\"";
    assert_eq!(
        value(&page, &format!("certwright_orders_total{{class=\"\",{issuer},outcome=\"issued\"}}")),
        1
    );
    assert_eq!(
        value(
            &page,
            &format!("certwright_orders_total{{class=\"blocked\",{issuer},outcome=\"blocked\"}}")
        ),
        1
    );
    assert_eq!(
        value(
            &page,
            "certwright_step_failures_total{class=\"blocked\",code=\"cloudflare_zone_not_found\"}"
        ),
        1
    );
    assert_eq!(value(&page, &format!("certwright_issuance_duration_seconds_count{{{issuer}}}")), 1);
    assert_eq!(value(&page, &format!("certwright_issuer_ready{{{issuer}}}")), 1);
    for stage in ["new", "presenting", "validating", "downloading"] {
        let count = value(
            &page,
            &format!("certwright_order_stage_duration_seconds_count{{stage=\"{stage}\"}}"),
        );
        assert!(count >= 1, "{stage}");
    }
    assert_eq!(
        value(&page, "certwright_acme_requests_total{action=\"newOrder\",status=\"201\"}"),
        2
    );
    assert!(
        value(
            &page,
            "certwright_dns_provider_requests_total{method=\"POST\",provider=\"cloudflare\",status=\"200\"}"
        ) >= 1
    );
    assert!(value(&page, "certwright_dns_queries_total{status=\"found\",type=\"TXT\"}") >= 1);
    assert!(
        value(
            &page,
            "certwright_http_requests_total{method=\"POST\",route=\"/certificates\",status=\"202\"}"
        ) >= 2
    );
    assert!(value(&page, "certwright_database_commit_duration_seconds_count") >= 5);
    assert_eq!((phase(&page, "Ready"), phase(&page, "Blocked")), (1, 1));
    assert_eq!(page.contains("certwright_database_wal_size_bytes"), database == Database::Sqlite);
    assert!(
        !page.contains("example.com") && !page.contains("elsewhere"),
        "no name of a domain: {page}"
    );
}

#[tokio::test]
async fn a_listener_for_the_metrics_has_them_openly_and_the_api_has_not() {
    let mut installation = Installation::on(Database::Sqlite).await;
    installation.set("METRICS_LISTEN", "127.0.0.1:0");
    let program = installation.start().await;
    let address = program.metrics();

    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let open = client.get(format!("http://{address}/metrics")).send().await.unwrap();
    let other = client.get(format!("http://{address}/certificates")).send().await.unwrap();

    assert_taken(&open.text().await.unwrap());
    assert_eq!(other.status(), 404, "and nothing else");
    assert_eq!(installation.get(&program, "/metrics").await.unwrap().status, 404);
}

#[tokio::test]
async fn certificates_that_end_next_are_listed_where_that_is_wanted() {
    let mut installation = Installation::on(Database::Sqlite).await;
    installation.set("METRICS_CERTIFICATES", "1");
    let mut program = installation.start().await;
    installation.set_up(&program).await;
    for name in ["one", "two"] {
        installation.ask_for(&program, name).await.unwrap();
    }
    installation.until_all_ready(&mut program, 2).await;

    let page = page_of(&installation, &program).await;

    let named = page
        .lines()
        .filter(|line| line.starts_with("certwright_certificate_expiration_timestamp_seconds{"));
    assert_eq!(named.count(), 1, "{page}");
}

pub(crate) async fn page_of(installation: &Installation, program: &Program) -> String {
    let scrape = installation.get(program, "/metrics").await.unwrap();
    assert_eq!(scrape.status, 200, "{scrape:?}");
    scrape.body.as_str().unwrap().to_owned()
}

async fn scrape(world: &World) -> String {
    let scrape = world.get("/metrics").await;
    assert_eq!(scrape.status, 200, "{}", scrape.text);
    scrape.text
}

fn phase(page: &str, phase: &str) -> i64 {
    value(page, &format!("certwright_certificates{{phase=\"{phase}\"}}"))
}

/// The value of a series, which is whole.
#[track_caller]
pub(crate) fn value(page: &str, series: &str) -> i64 {
    let found = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("{series} is not there: {page}")).parse().unwrap()
}
