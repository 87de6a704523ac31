//! What is remembered for a while: events, and answers that may be asked for again.

use certwright::domain::event::{Event, Resource};
use certwright::domain::id::{CertificateId, OrderId, PrincipalId};
use certwright::storage::idempotency_keys;
use certwright::storage::idempotency_keys::Answered;
use certwright::storage::{StorageError, events};
use time::Duration;

use super::rows::{NOW, all, page};
use crate::support::databases::on_both_databases;

on_both_databases! {
    async fn events_are_found_by_resource_and_by_certificate(db: Db) {
        let mut tx = db.begin();
        let certificate = CertificateId::generate(NOW);
        let order = OrderId::generate(NOW);
        let happened = [
            Event::normal(Resource::Certificate(certificate), "Issuing", "begun"),
            Event::warning(Resource::Order(order), "OrderFailed", "over"),
        ];
        events::record(&mut tx, "default", Some(certificate), &happened, NOW);
        tx.commit().await.unwrap();
        let mut tx = db.read().await.unwrap();

        let of = |resource| events::Wanted { resource: Some(resource), ..Default::default() };
        let whole = events::list(&mut tx, &all(), &of(certificate.0), page()).await.unwrap().rows;
        assert_eq!(whole.iter().map(|event| event.reason.as_str()).collect::<Vec<_>>(), ["Issuing", "OrderFailed"]);
        let part = events::list(&mut tx, &all(), &of(order.0), page()).await.unwrap().rows;
        assert_eq!((part.len(), part[0].first_seen(), part[0].severity.as_str()), (1, NOW, "Warning"));
        let later = events::Wanted { since: Some(NOW + Duration::seconds(1)), namespace: Some("default".into()), ..Default::default() };
        assert!(events::list(&mut tx, &all(), &later, page()).await.unwrap().rows.is_empty());
    }

    async fn an_answer_is_remembered_once_and_for_a_while(db: Db) {
        let mut tx = db.begin();
        let caller = PrincipalId::generate(NOW);
        let answered = Answered { request_hash: vec![1], status: 202, location: "/x".into(), body: "{}".into() };
        let kept_since = NOW - Duration::hours(24);
        idempotency_keys::insert(&mut tx, caller, "k", &answered, NOW, kept_since).await.unwrap();

        assert_eq!(idempotency_keys::find(&mut tx, caller, "k", kept_since).await.unwrap(), Some(answered.clone()));
        assert_eq!(idempotency_keys::find(&mut tx, caller, "k", NOW + Duration::seconds(1)).await.unwrap(), None);
        let other = PrincipalId::generate(NOW);
        assert_eq!(idempotency_keys::find(&mut tx, other, "k", kept_since).await.unwrap(), None);
        let again = idempotency_keys::insert(&mut tx, caller, "k", &answered, NOW, kept_since).await;
        assert!(matches!(again, Err(StorageError::Conflict)));
    }
}
