//! What is forgotten in time, so that the rows of an installation that only renews stop growing.

use std::collections::BTreeMap;

use certwright::domain::certificate::Certificate;
use certwright::domain::id::{OrderId, RequestId, RevocationId, TaskId};
use certwright::domain::order::{End, Order, State};
use certwright::domain::revocation::Revocation;
use certwright::storage::requests::{self, RequestState};
use certwright::storage::revisions::{self, Revision};
use certwright::storage::{
    Db, Scope, certificates, copy, deliveries, orders, retention, revocations, tasks,
};
use serde_json::json;
use time::Duration;

use super::rows::{NOW, order, request, revocation};
use crate::support::databases::on_both_databases;
use crate::support::receiver::{Receiver, Reply};
use crate::support::world::World;
use crate::webhooks::{deliveries_path, fail, hooked, issued, renew};

/// Tables of which nothing is ever deleted, and why.
const KEPT_FOR_GOOD: [&str; 2] = ["audit_entries", "audit_seals"];

on_both_databases! {
    async fn what_is_over_and_old_is_forgotten_but_not_the_last_of_a_certificate(db: Db) {
        let world = World::over(db.clone()).await;
        world.create_issuer().await;
        let id = crate::support::world::id(&world.create_certificate("web").await);
        let mut kept = Vec::new();
        for _ in 0..3 {
            let order = world.db_order(&id).await;
            end(&world, &order, End::Invalid).await;
            kept.push((order.id, order.request));
            world.clock.advance(Duration::DAY);
        }
        // Whoever is gone needs no last order.
        let gone = gone(&db).await;
        let open = world.db_order(&id).await;

        let all = world.now() + Duration::DAY;
        assert_eq!(retention::forget_issuance(&db, NOW).await.unwrap(), 0, "nothing is so old");
        let forgotten = retention::forget_issuance(&db, all).await.unwrap();

        // Three orders and requests of the certificate, and an order and a revocation of the one that is gone.
        assert_eq!(forgotten, 2 * 3 + 2);
        let mut read = db.read().await.unwrap();
        for (order, request) in kept.into_iter().chain([gone]) {
            assert!(orders::find(&mut read, order, &Scope::Everything).await.unwrap().is_none());
            assert!(requests::find(&mut read, request, &Scope::Everything).await.unwrap().is_none());
        }
        assert!(orders::find(&mut read, open.id, &Scope::Everything).await.unwrap().is_some());
        assert!(requests::find(&mut read, open.request, &Scope::Everything).await.unwrap().is_some());
        drop(read);
        end(&world, &open, End::Invalid).await;
        assert_eq!(retention::forget_issuance(&db, all).await.unwrap(), 0, "the last of a certificate stays");
        assert_eq!(rows(&db).await["challenges"], 1);
    }

    async fn the_worker_forgets_what_is_over_each_hour(db: Db) {
        let world = World::over(db.clone()).await;
        gone(&db).await;
        world.clock.advance(Duration::days(100));
        let mut tx = db.begin();
        let task = TaskId::generate(world.now()).0;
        tasks::schedule(&mut tx, task, "forget_issuance", world.now()).await.unwrap();
        tx.commit().await.unwrap();

        assert_eq!(world.worker().work_due().await.unwrap(), 1);

        let rows = rows(&db).await;
        assert_eq!((rows["orders"], rows["revocations"], rows["tasks"]), (0, 0, 1));
        assert_eq!(world.worker().work_due().await.unwrap(), 0, "not before an hour has gone");
    }

    async fn after_a_year_of_renewals_and_failures_the_rows_grow_no_more(db: Db) {
        let world = World::over(db.clone()).await;
        let (receiver, hook) = hooked(&world, json!({})).await;
        let mut renewed = Vec::new();
        for n in 0..certificates_renewed() {
            renewed.push(issued(&world, &format!("c{n}")).await);
        }
        let broken = issued(&world, "broken").await;
        let mut after = Vec::new();
        for month in 0..18 {
            for certificate in &renewed {
                issue(&world, &world.db_order(certificate).await, month + 2).await;
                renew(&world, certificate).await;
            }
            end(&world, &world.db_order(&broken).await, End::Invalid).await;
            fail(&world, &broken).await;
            end_month(&world, &receiver, &hook).await;
            after.push(rows(&db).await);
        }

        let (year, later) = (&after[11], &after[17]);
        for (table, rows) in later.iter().filter(|(table, _)| !KEPT_FOR_GOOD.contains(&&***table)) {
            assert!(*rows <= year[table], "{table}: {:?}", after.iter().map(|all| all[table]).collect::<Vec<_>>());
        }
        // It is of such rows that a year has many.
        for table in ["orders", "challenges", "requests", "events", "deliveries", "messages"] {
            assert!(later[table] >= 4, "{table}: {later:?}");
        }
        let dead = world.get(&format!("{}?state=dead", deliveries_path(&hook))).await.json();
        assert_eq!(dead["items"].as_array().unwrap().len(), 6, "those of 180 days");
    }
}

/// How many are renewed each month beside one that fails. `make soak` has a thousand.
fn certificates_renewed() -> usize {
    std::env::var("RETENTION_CERTIFICATES").map_or(3, |number| number.parse().unwrap())
}

/// What there is to tell is told, one message is given up, and what is old is forgotten.
async fn end_month(world: &World, receiver: &Receiver, hook: &serde_json::Value) {
    deliver_all(world).await;
    // A test is tried once.
    receiver.will_answer([Reply::Status(400)]);
    world
        .post(&format!("/webhooks/{}/test", crate::support::world::id(hook)), json!({}))
        .await
        .accepted();
    deliver_all(world).await;
    world.clock.advance(Duration::days(30));
    let now = world.now();
    world.worker().forget_deliveries().await.unwrap();
    retention::forget(&world.db, now - Duration::days(30)).await.unwrap();
    retention::forget_issuance(&world.db, now - Duration::days(90)).await.unwrap();
}

/// Delivers what is there, however many runs of the deliverer that takes: none is late because of the clock's next leap.
async fn deliver_all(world: &World) {
    while deliveries::open(&mut world.db.read().await.unwrap()).await.unwrap() > 0 {
        world.deliver().await;
    }
}

/// The order is over, and its proofs are taken away.
async fn end(world: &World, order: &Order, end: End) {
    let mut tx = world.db.begin();
    let (mut found, lease) =
        orders::find(&mut tx, order.id, &Scope::Everything).await.unwrap().unwrap();
    let before = found.challenges.clone();
    found.state = State::Done { url: Some("https://ca.example/order/1".into()), end };
    found.next_action_at = None;
    for challenge in &mut found.challenges {
        (challenge.clean, challenge.next_action_at) = (true, None);
    }
    orders::save(&mut tx, &found, &before, &lease, None).await.unwrap();
    if end == End::Invalid {
        let (state, now) = (RequestState::Failed, world.now());
        requests::progress(&mut tx, order.request, state, "failed", order.id, now).await.unwrap();
    }
    tx.commit().await.unwrap();
}

async fn issue(world: &World, order: &Order, revision: i64) {
    end(world, order, End::Valid).await;
    let now = world.now();
    let revision = Revision {
        certificate: order.certificate,
        revision,
        request: order.request,
        order: order.id,
        chain: "PEM".into(),
        serial: format!("{revision:02x}"),
        fingerprint: "f".into(),
        not_before: now,
        not_after: now + Duration::days(90),
        issued_at: now,
        revoked_at: None,
    };
    let mut tx = world.db.begin();
    revisions::insert(&mut tx, &revision, 2, "done").await.unwrap();
    tx.commit().await.unwrap();
}

/// An order and a revocation, both over, of a certificate that is deleted.
async fn gone(db: &Db) -> (OrderId, RequestId) {
    let mut tx = db.begin();
    let certificate: Certificate = super::rows::certificate("gone");
    let mut order = order(certificate.id);
    order.challenges.clear();
    order.state = State::Done { url: None, end: End::Errored };
    order.next_action_at = None;
    certificates::insert(&mut tx, &certificate).await.unwrap();
    requests::insert(&mut tx, &request(&certificate, &order), &certwright::secret::Sealed(vec![9]))
        .await
        .unwrap();
    orders::insert(&mut tx, &order, None).await.unwrap();
    revisions::insert(&mut tx, &super::rows::revision(&certificate, &order, 1), 1, "done")
        .await
        .unwrap();
    let over = Revocation {
        id: RevocationId::generate(NOW),
        state: certwright::domain::revocation::State::Done,
        next_action_at: None,
        ..revocation(&certificate, order.issuer)
    };
    let wanted = Revocation {
        state: certwright::domain::revocation::State::Pending,
        next_action_at: Some(NOW),
        ..over.clone()
    };
    revocations::insert(&mut tx, &wanted, &[5]).await.unwrap();
    certificates::delete(&mut tx, certificate.id).await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = db.begin();
    let claimed = certwright::storage::lease::claim(
        &mut tx,
        certwright::storage::lease::Machine::Revocation,
        "test",
        super::rows::now(db).await,
        1,
    );
    let lease = claimed.await.unwrap().remove(0);
    revocations::save(&mut tx, &over, &lease).await.unwrap();
    tx.commit().await.unwrap();
    (order.id, order.request)
}

async fn rows(db: &Db) -> BTreeMap<String, u64> {
    let mut read = db.read().await.unwrap();
    let mut counted = BTreeMap::new();
    for table in copy::tables(&mut read).await.unwrap() {
        let rows = copy::count(&mut read, &table).await.unwrap();
        counted.insert(table.name, rows);
    }
    counted
}
