//! The trace of what is done stands on what it brings about.

use certwright::domain::certificate::{State, Trigger};
use certwright::domain::event::{Event, Resource};
use certwright::domain::trace::{SpanId, Trace};
use certwright::storage::events::{self, Wanted};
use certwright::storage::{Page, Scope, certificates, deliveries, orders, outbox};
use certwright::telemetry::trace;

use super::rows::{self, NOW, all};
use super::webhooks::inserted;
use crate::support::databases::on_both_databases;

on_both_databases! {
    async fn an_issuance_that_begins_belongs_to_what_is_done(db: Db) {
        let request = Trace::begin(1.0);
        let web = rows::certificate("web");
        let mut order = rows::order(web.id);
        order.trace = Some(request);
        trace::within(Some(request), async {
            let mut tx = db.begin();
            certificates::insert(&mut tx, &web).await.unwrap();
            orders::insert(&mut tx, &order, None).await.unwrap();
            tx.commit().await.unwrap();
        })
        .await;

        let mut read = db.read().await.unwrap();
        let (found, _) = certificates::find(&mut read, web.id, &all()).await.unwrap().unwrap();
        let (placed, _) = orders::find(&mut read, order.id, &all()).await.unwrap().unwrap();

        assert_eq!((found.trace, placed.trace), (Some(request), Some(request)));
        assert_eq!(placed.own_trace(), Some(request.at(SpanId::of(order.id.0))));
    }

    async fn an_issuance_keeps_its_trace_whoever_changes_it_and_none_gets_one(db: Db) {
        let (begun, other) = (Trace::begin(1.0), Trace::begin(0.0));
        let (mut known, mut idle) = (rows::certificate("known"), rows::certificate("idle"));
        known.trace = Some(begun);
        idle.state = State::Blocked;
        trace::within(Some(other), async {
            let mut tx = db.begin();
            for one in [&known, &idle] {
                certificates::insert(&mut tx, one).await.unwrap();
                let (found, lease) = certificates::find(&mut tx, one.id, &all()).await.unwrap().unwrap();
                certificates::save(&mut tx, &rows::silent(&found), &lease, None).await.unwrap();
            }
            tx.commit().await.unwrap();
        })
        .await;

        let mut read = db.read().await.unwrap();
        for (one, expected) in [(known, Some(begun)), (idle, None)] {
            let (found, _) = certificates::find(&mut read, one.id, &all()).await.unwrap().unwrap();
            assert_eq!(found.trace, expected);
        }
    }

    async fn events_and_messages_name_what_brought_them_about(db: Db) {
        let about = Resource::Certificate(rows::certificate("web").id);
        let [first, second] = [(); 2].map(|()| Trace::begin(1.0));
        let mut webhook = None;
        for (one, same) in [(None, "before"), (Some(first), "again"), (Some(second), "again")] {
            trace::within(one, async {
                let mut tx = db.begin();
                events::record(&mut tx, "default", None, &[Event::normal(about, "Tested", same)], NOW);
                if one == Some(first) {
                    let (hook, _) = inserted(&mut tx, &["team"]).await;
                    outbox::try_out(&mut tx, &hook, NOW).await.unwrap();
                    webhook = Some(hook);
                }
                tx.commit().await.unwrap();
            })
            .await;
        }

        let mut read = db.read().await.unwrap();
        let listed = events::list(&mut read, &Scope::Everything, &Wanted::default(), Page::first(9)).await.unwrap();
        let due = deliveries::due(&mut read, webhook.unwrap().id, NOW, 9).await.unwrap();

        let mut told: Vec<_> = listed.rows.iter().map(|event| (event.count, event.trace_id.clone())).collect();
        told.sort();
        // What repeats itself names the last.
        assert_eq!(told, [(1, None), (2, Some(second.id.to_string()))]);
        assert_eq!(due[0].trace, Some(first));
    }
}

#[test]
fn what_is_triggered_anew_has_a_trace_of_its_own_and_what_is_released_keeps_it() {
    let known = Some(Trace::begin(1.0));
    let mut failed = rows::certificate("web");
    (failed.state, failed.trace) = (State::Backoff, known);
    let mut awaiting = failed.clone();
    awaiting.state = State::AwaitingApproval(Trigger::DoesNotExist);

    assert_eq!(failed.trigger(Trigger::ManuallyTriggered, NOW).certificate.trace, None);
    assert_eq!(awaiting.released(NOW).certificate.trace, known);
}
