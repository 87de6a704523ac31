//! The public functions of `storage` that concern webhooks, on both databases.

use std::collections::BTreeMap;

use certwright::domain::backoff::Jitter;
use certwright::domain::delivery::{Answer, Attempt, State};
use certwright::domain::event_type::EventType;
use certwright::domain::id::WebhookId;
use certwright::domain::webhook::{Health, Selector, Spec, Transition, Webhook};
use certwright::secret::Sealed;
use certwright::storage::deliveries::Due;
use certwright::storage::lease::{self, Lease, Machine};
use certwright::storage::{Page, Scope, StorageError, Tx, deliveries, outbox, webhooks};
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

use crate::support::databases::on_both_databases;

const NOW: OffsetDateTime = datetime!(2026-11-25 12:00 UTC);

on_both_databases! {
    async fn webhooks_are_found_as_they_were_saved_and_only_by_who_may_see_all_of_them(db: Db) {
        let mut tx = db.begin();
        let (one, lease) = inserted(&mut tx, &["team", "web"]).await;
        let within = |names: &[&str]| Scope::Namespaces(names.iter().map(|name| (*name).to_owned()).collect());

        assert!(webhooks::find(&mut tx, one.id, &within(&["team"])).await.unwrap().is_none());
        let ours = within(&["team", "web"]);
        assert_eq!(webhooks::find(&mut tx, one.id, &ours).await.unwrap().unwrap().0, one);
        for (scope, count) in [(within(&["team"]), 0), (ours, 1), (Scope::Everything, 1)] {
            let wanted = webhooks::Wanted { namespace: Some("team".into()), name: Some(one.name.clone()) };
            let found = webhooks::list(&mut tx, &scope, &wanted, Page::first(10)).await.unwrap().rows;
            assert_eq!(found.len(), count, "{scope:?}");
            let named = webhooks::find_by_name(&mut tx, "team", &one.name, &scope).await.unwrap();
            assert_eq!(named.into_iter().collect::<Vec<_>>(), found, "{scope:?}");
            assert_eq!(webhooks::find_by_name(&mut tx, "web", &one.name, &scope).await.unwrap(), None);
        }

        tx.commit().await.unwrap();
        let again = async {
            let same_name = Webhook { id: WebhookId::generate(NOW), ..one.clone() };
            let mut tx = db.begin();
            webhooks::insert(&mut tx, &same_name, &Sealed(vec![1])).await?;
            tx.commit().await
        };
        // Noticed by the statement that follows it, or by the commit.
        let taken = again.await;
        assert!(matches!(taken, Err(StorageError::Conflict)), "a name is taken once: {taken:?}");
        let mut tx = db.begin();

        let failed = one.failed("it answered 500", None, NOW, Jitter::NONE);
        let next = webhooks::save(&mut tx, &failed, &lease, Some(NOW)).await.unwrap();
        let (found, current) = webhooks::find(&mut tx, failed.webhook.id, &Scope::Everything).await.unwrap().unwrap();
        assert_eq!((found, current), (failed.webhook.clone(), next));
        tx.commit().await.unwrap();
        let mut late = db.begin();
        webhooks::save(&mut late, &failed, &lease, None).await.unwrap();
        assert!(matches!(late.commit().await, Err(StorageError::LeaseLost(_))));
        let mut tx = db.begin();

        let spec = Spec { namespaces: vec!["other".into()], ..failed.webhook.spec.clone() };
        let moved = failed.webhook.respecified(spec, false, NOW);
        webhooks::respecify(&mut tx, &moved, &next).await.unwrap();
        let other = within(&["team", "other"]);
        let wanted = webhooks::Wanted::default();
        assert_eq!(webhooks::list(&mut tx, &other, &wanted, Page::first(10)).await.unwrap().rows, std::slice::from_ref(&moved.webhook));
        webhooks::delete(&mut tx, moved.webhook.id).await.unwrap();
        assert!(webhooks::find(&mut tx, moved.webhook.id, &Scope::Everything).await.unwrap().is_none());
    }

    async fn a_former_secret_is_kept_for_its_time(db: Db) {
        let mut tx = db.begin();
        let (one, lease) = inserted(&mut tx, &["team"]).await;
        let until = NOW + Duration::hours(24);
        let rotated = one.rotated(Some(until), NOW);
        let (new, former) = (Sealed(vec![2]), Sealed(vec![1]));
        webhooks::rotate(&mut tx, &rotated, &lease, &new, Some(&former)).await.unwrap();

        let id = rotated.webhook.id;
        let known = webhooks::secrets(&mut tx, id).await.unwrap().unwrap();
        assert_eq!((known.current, known.former), (new, Some((former, until))));
        assert_eq!(webhooks::forget_former(&mut tx, until - Duration::seconds(1)).await.unwrap(), 0);
        assert_eq!(webhooks::forget_former(&mut tx, until).await.unwrap(), 1);
        assert_eq!(webhooks::secrets(&mut tx, id).await.unwrap().unwrap().former, None);
    }

    async fn a_webhook_is_claimed_when_something_is_due_and_rests_until_the_next(db: Db) {
        let mut tx = db.begin();
        let (one, _) = inserted(&mut tx, &["team"]).await;
        assert_eq!(lease::next_delivery_due(&mut tx).await.unwrap(), None);
        let sent = outbox::try_out(&mut tx, &one, NOW).await.unwrap();
        tx.commit().await.unwrap();

        let mut tx = db.begin();
        assert_eq!(lease::next_delivery_due(&mut tx).await.unwrap(), Some(NOW));
        let leases = lease::claim(&mut tx, Machine::Delivery, "test", NOW, 5).await.unwrap();
        assert_eq!(leases.iter().map(|lease| lease.id).collect::<Vec<_>>(), [one.id.0]);
        assert!(lease::claim(&mut tx, Machine::Delivery, "other", NOW, 5).await.unwrap().is_empty());
        // Told meanwhile: the holder of the lease finds it.
        outbox::try_out(&mut tx, &one, NOW).await.unwrap();
        let due = deliveries::due(&mut tx, one.id, NOW, 10).await.unwrap();
        assert_eq!((due.len(), &due[0].delivery), (2, &sent));
        assert!(due[0].body.contains("webhook.test"), "{}", due[0].body);
        for Due { delivery, .. } in due {
            let done = delivery.apply(answer(200), NOW, Jitter::NONE).delivery;
            deliveries::save(&mut tx, &done, NOW).await.unwrap();
            assert_eq!(deliveries::find(&mut tx, one.id, done.id).await.unwrap(), Some(done));
        }
        webhooks::rest(&mut tx, &one, &leases[0], None, NOW).await.unwrap();
        assert_eq!(lease::next_delivery_due(&mut tx).await.unwrap(), None);
        let late = webhooks::rest(&mut tx, &one, &leases[0], None, NOW).await;
        assert!(matches!(late, Err(StorageError::LeaseLost(_))), "{late:?}");
    }

    async fn what_ended_goes_back_into_the_row_or_is_forgotten(db: Db) {
        let mut tx = db.begin();
        let (one, lease) = inserted(&mut tx, &["team"]).await;
        let sent = outbox::try_out(&mut tx, &one, NOW).await.unwrap();
        let done = sent.apply(answer(200), NOW, Jitter::NONE).delivery;
        deliveries::save(&mut tx, &done, NOW).await.unwrap();

        let later = NOW + Duration::minutes(1);
        deliveries::redeliver(&mut tx, &done, later).await.unwrap();
        let again = deliveries::find(&mut tx, one.id, done.id).await.unwrap().unwrap();
        assert_eq!((again.state, again.tries, again.attempts), (State::Pending, 0, 1));
        assert_eq!(again.next_action_at, Some(later));
        deliveries::save(&mut tx, &again.apply(answer(200), later, Jitter::NONE).delivery, later).await.unwrap();
        let (count, last) = deliveries::redeliver_since(&mut tx, one.id, NOW, None, 10).await.unwrap();
        assert_eq!((count, last), (0, None), "a test is not sent again with the rest");
        deliveries::go_on(&mut tx, one.id, later).await.unwrap();

        let wanted = |state| deliveries::Wanted { state: Some(state), event_type: Some(EventType::WebhookTest), subject: Some(one.id.0), since: Some(NOW) };
        let found = async |tx: &mut Tx, state| deliveries::list(tx, one.id, &Scope::Everything, &wanted(state), Page::first(10)).await.unwrap().rows.len();
        assert_eq!((found(&mut tx, State::Delivered).await, found(&mut tx, State::Dead).await), (1, 0));
        assert_eq!(outbox::forget(&mut tx, later + Duration::hours(1), 10).await.unwrap(), 0, "it has a delivery");
        assert_eq!(deliveries::forget(&mut tx, later, 10).await.unwrap(), 0, "not yet");
        assert_eq!(deliveries::forget_dead(&mut tx, later + Duration::DAY, 10).await.unwrap(), 0, "it is not dead");
        assert_eq!(deliveries::forget(&mut tx, later + Duration::hours(1), 10).await.unwrap(), 1);
        assert_eq!(outbox::forget(&mut tx, later + Duration::hours(1), 10).await.unwrap(), 1);
        assert_eq!(deliveries::find(&mut tx, one.id, done.id).await.unwrap(), None);
        webhooks::save(&mut tx, &Transition::silent(one, NOW), &lease, None).await.unwrap();
    }
}

pub async fn inserted(tx: &mut Tx, namespaces: &[&str]) -> (Webhook, Lease) {
    let id = WebhookId::generate(NOW);
    let webhook = Webhook {
        id,
        namespace: "team".into(),
        name: Webhook::default_name(id),
        spec: Spec {
            url: "https://hooks.example/".into(),
            description: None,
            events: vec![EventType::CertificateIssued],
            namespaces: namespaces.iter().map(|name| (*name).to_owned()).collect(),
            labels: BTreeMap::new(),
            selector: Selector::All,
        },
        disabled: None,
        health: Health::default(),
        former_until: None,
        created_at: NOW,
        updated_at: NOW,
    };
    webhooks::insert(tx, &webhook, &Sealed(vec![1])).await.unwrap();
    let (_, lease) = webhooks::find(tx, webhook.id, &Scope::Everything).await.unwrap().unwrap();
    (webhook, lease)
}

fn answer(status: u16) -> Answer {
    let attempt = Attempt {
        at: NOW,
        took: Duration::milliseconds(7),
        status: Some(status),
        error: None,
        answer: Some("thanks".into()),
    };
    Answer { attempt, retry_at: None }
}
