//! Tickets for streams of events, on both databases.

use certwright::domain::event_ticket::{EventTicket, Granted, Holder};
use certwright::domain::id::EventTicketId;
use certwright::domain::principal::PrincipalKind;
use certwright::domain::role::Role;
use certwright::storage::event_tickets;
use time::Duration;

use super::rows::NOW;
use crate::support::databases::on_both_databases;

on_both_databases! {
    async fn a_ticket_is_taken_once_with_all_that_it_has(db: Db) {
        let granted = Granted {
            kind: PrincipalKind::Token, id: uuid::Uuid::nil(), name: "repo:org/web".into(),
            issuer: Some("https://ci.example".into()), role: Role::Reader,
            namespaces: Some(vec!["shop".into()]), expires_at: NOW + Duration::HOUR,
        };
        let holders = [Holder::Granted(granted), Holder::ApiKey { hash: vec![3; 32] }];
        for (number, holder) in (1..).zip(holders) {
            let expires_at = NOW + Duration::seconds(60);
            let ticket = EventTicket { id: EventTicketId::generate(NOW), holder, expires_at };
            let mut tx = db.begin();
            event_tickets::insert(&mut tx, &ticket, &[number; 32]).await.unwrap();
            tx.commit().await.unwrap();

            let mut tx = db.begin();
            assert_eq!(event_tickets::take(&mut tx, &[9; 32]).await.unwrap(), None);
            assert_eq!(event_tickets::take(&mut tx, &[number; 32]).await.unwrap(), Some(ticket));
            tx.commit().await.unwrap();
            let mut tx = db.begin();
            assert_eq!(event_tickets::take(&mut tx, &[number; 32]).await.unwrap(), None, "once");
        }
    }

    async fn tickets_that_have_expired_are_forgotten(db: Db) {
        let expires_at = NOW + Duration::seconds(60);
        let holder = Holder::ApiKey { hash: vec![3; 32] };
        let ticket = EventTicket { id: EventTicketId::generate(NOW), holder, expires_at };
        let mut tx = db.begin();
        event_tickets::insert(&mut tx, &ticket, &[1; 32]).await.unwrap();

        let before = expires_at - Duration::milliseconds(1);
        assert_eq!(event_tickets::forget(&mut tx, before).await.unwrap(), 0);
        assert_eq!(event_tickets::forget(&mut tx, expires_at).await.unwrap(), 1);
        assert_eq!(event_tickets::take(&mut tx, &[1; 32]).await.unwrap(), None);
    }
}
