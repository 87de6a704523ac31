//! What attempts have brought: requests, revisions, revocations.

use certwright::domain::approval::{Approval, Decision, Verdict};
use certwright::domain::backoff::Jitter;
use certwright::domain::certificate::Revoked;
use certwright::domain::id::{OrderId, RequestId};
use certwright::domain::principal::{PrincipalKind, PrincipalRef};
use certwright::domain::revocation::Reason;
use certwright::secret::Sealed;
use certwright::storage::lease::{self, Machine};
use certwright::storage::requests::{self, Request, RequestState};
use certwright::storage::revisions::{self, Revision};
use certwright::storage::{
    Page, Scope, StorageError, certificates, orders, revocations, sealed_columns,
};
use time::Duration;
use uuid::Uuid;

use super::rows::{NOW, all, ari, failure, page, request, revision, revocation, silent, under_way};
use crate::support::databases::on_both_databases;

on_both_databases! {
    async fn what_a_certificates_life_has_brought_is_read_as_it_was_saved(db: Db) {
        let mut tx = db.begin();
        let (mut certificate, order, lease) = under_way(&mut tx).await;
        certificate.ari = Some(ari());
        certificate.revocation = Some(Revoked {
            revision: 1,
            reason: Reason::Superseded,
            requested_at: NOW,
            revoked_at: Some(NOW),
            last_error: Some(failure()),
        });
        certificate.deleting_since = Some(NOW);
        certificates::save(&mut tx, &silent(&certificate), &lease, None).await.unwrap();
        let (found, _) = certificates::find(&mut tx, certificate.id, &all()).await.unwrap().unwrap();
        assert_eq!(found, certificate);

        let (mut order, lease) = orders::find(&mut tx, order.id, &all()).await.unwrap().unwrap();
        (order.replaces, order.not_after) = (None, order.not_after.map(|end| end + Duration::hours(1)));
        orders::save(&mut tx, &order, &order.challenges, &lease, None).await.unwrap();
        let (found, _) = orders::find(&mut tx, order.id, &all()).await.unwrap().unwrap();
        assert_eq!((found.replaces, found.not_after), (None, order.not_after));
        let busy = orders::any_under_way_of_issuer(&mut tx, order.issuer).await.unwrap();
        assert_eq!(busy, Some(order.id));
    }

    async fn a_revocation_outlives_its_revision_and_forgets_the_key_at_its_end(db: Db) {
        let mut tx = db.begin();
        let (certificate, order, _) = under_way(&mut tx).await;
        revisions::insert(&mut tx, &revision(&certificate, &order, 1), 1, "done").await.unwrap();
        let wanted = revocation(&certificate, order.issuer);
        revocations::insert(&mut tx, &wanted, &[5]).await.unwrap();
        certificates::delete(&mut tx, certificate.id).await.unwrap();
        tx.commit().await.unwrap();

        let mut tx = db.begin();
        let lease = lease::claim(&mut tx, Machine::Revocation, "test", NOW, 9).await.unwrap().remove(0);
        lease::extend(&mut tx, &lease, NOW).await.unwrap();
        let (mut found, evidence) = revocations::find(&mut tx, wanted.id).await.unwrap().unwrap();
        assert_eq!((evidence.leaf, evidence.request), (vec![5], order.request));
        assert_eq!(evidence.private_key, Some(Sealed(vec![9])));
        assert!(revocations::is_pending(&mut tx, certificate.id, 1).await.unwrap());
        assert!(!revocations::is_pending(&mut tx, certificate.id, 2).await.unwrap());
        assert!(revocations::any_pending(&mut tx, certificate.id).await.unwrap());
        assert_eq!(revocations::any_of_issuer(&mut tx, order.issuer).await.unwrap(), Some(wanted.id));

        found.next_action_at = wanted.next_action_at;
        assert_eq!(found, wanted);
        let copies = &sealed_columns::COLUMNS[7];
        let copy = sealed_columns::list(&mut tx, copies, (Uuid::nil(), i64::MIN), 9).await.unwrap();
        assert_eq!(copy[0].place, requests::private_key_place(&wanted.namespace, certificate.id, order.request));
        assert!(sealed_columns::replace(&mut tx, copies, &copy[0], &Sealed(vec![8])).await.unwrap());
        let over = found.apply(Ok(()), NOW, Jitter::NONE);
        revocations::save(&mut tx, &over, &lease).await.unwrap();
        let (found, evidence) = revocations::find(&mut tx, wanted.id).await.unwrap().unwrap();
        assert_eq!((found, evidence.private_key), (over.clone(), None));
        assert!(!revocations::any_pending(&mut tx, certificate.id).await.unwrap());
        let late = revocations::save(&mut tx, &over, &lease).await;
        assert!(matches!(late, Err(StorageError::LeaseLost(_))));
    }

    async fn a_revoked_revision_and_a_key_that_a_client_holds_are_known_as_such(db: Db) {
        let mut tx = db.begin();
        let (certificate, mut order, _) = under_way(&mut tx).await;
        let request = Request { id: RequestId::generate(NOW), ..request(&certificate, &order) };
        order.request = request.id;
        requests::insert(&mut tx, &request, None).await.unwrap();
        revisions::insert(&mut tx, &revision(&certificate, &order, 1), 1, "done").await.unwrap();

        assert!(requests::private_key(&mut tx, request.id).await.unwrap().is_none());
        for column in &sealed_columns::COLUMNS[4..6] {
            let found = sealed_columns::list(&mut tx, column, (Uuid::nil(), i64::MIN), 9).await.unwrap();
            assert!(found.iter().all(|one| one.sealed == Sealed(vec![9])), "what is not there is not sealed");
        }
        let held = revisions::private_key(&mut tx, certificate.id, 1).await.unwrap();
        assert_eq!(held, Some((None, request.id)));
        revisions::revoked(&mut tx, certificate.id, 1, NOW).await.unwrap();
        let found = revisions::find(&mut tx, certificate.id, 1).await.unwrap().unwrap();
        assert_eq!(found.revoked_at, Some(NOW));
    }

    async fn a_revision_takes_its_key_from_its_request(db: Db) {
        let mut tx = db.begin();
        let (certificate, order, _) = under_way(&mut tx).await;
        for number in 1..=3 {
            revisions::insert(&mut tx, &revision(&certificate, &order, number), 3, "done").await.unwrap();
        }

        let (key, request) = revisions::private_key(&mut tx, certificate.id, 2).await.unwrap().unwrap();
        assert_eq!((key, request), (Some(Sealed(vec![9])), order.request));
        let found = revisions::find(&mut tx, certificate.id, 2).await.unwrap();
        assert_eq!(found, Some(revision(&certificate, &order, 2)));
        let elsewhere = Scope::Namespaces(vec!["elsewhere".into()]);
        for (number, scope, is_seen) in [(2, all(), true), (2, elsewhere, false), (4, all(), false)] {
            let shown = revisions::show(&mut tx, certificate.id, Some(number), &scope).await.unwrap();
            assert_eq!(shown, is_seen.then(|| revision(&certificate, &order, 2)));
        }
        let present = revisions::show(&mut tx, certificate.id, None, &all()).await.unwrap();
        assert_eq!(present, None, "none is served yet");
        let earlier = revisions::list(&mut tx, certificate.id, Some(3), Page::first(10)).await.unwrap().rows;
        assert_eq!(earlier.len(), 2);
        let request = requests::find(&mut tx, order.request, &all()).await.unwrap().unwrap();
        assert_eq!((request.state, request.message.as_str()), (RequestState::Issued, "done"));
        assert_eq!(request.finished_at, Some(revision(&certificate, &order, 3).issued_at));

        revisions::insert(&mut tx, &revision(&certificate, &order, 4), 2, "done").await.unwrap();
        let kept = revisions::list(&mut tx, certificate.id, None, Page::first(10)).await.unwrap().rows;
        assert_eq!(kept.iter().map(|one| one.revision).collect::<Vec<_>>(), [4, 3]);
    }

    async fn attempts_are_forgotten_with_their_keys(db: Db) {
        let mut tx = db.begin();
        let (certificate, order, _) = under_way(&mut tx).await;
        let first = requests::find(&mut tx, order.request, &all()).await.unwrap().unwrap();
        let attempts: Vec<_> = (0..4).map(|n| if n == 0 { first.id } else { RequestId::generate(NOW) }).collect();
        tx.commit().await.unwrap();

        // What is there before; the one of them that brings a revision; what is left then, of two that are kept.
        for (number, there, brings, left) in [
            (1, vec![0, 1], 0, vec![0]),
            (2, vec![0, 2], 2, vec![0, 2]),
            (3, vec![0, 2, 3], 3, vec![2, 3]),
        ] {
            for n in there {
                let mut tx = db.begin();
                if requests::find(&mut tx, attempts[n], &all()).await.unwrap().is_none() {
                    let request = Request { id: attempts[n], name: format!("web-{n}"), ..first.clone() };
                    requests::insert(&mut tx, &request, &Sealed(vec![9])).await.unwrap();
                }
                tx.commit().await.unwrap();
            }
            // As the worker does it: nothing is asked in between.
            let mut tx = db.begin();
            let issued = Revision { request: attempts[brings], ..revision(&certificate, &order, number) };
            revisions::insert(&mut tx, &issued, 2, "done").await.unwrap();
            tx.commit().await.unwrap();
            let (mut tx, mut there) = (db.read().await.unwrap(), Vec::new());
            for (n, attempt) in attempts.iter().enumerate() {
                if requests::find(&mut tx, *attempt, &all()).await.unwrap().is_some() {
                    there.push(n);
                }
            }
            assert_eq!(there, left, "with revision {number}");
        }
    }

    async fn requests_keep_key_csr_and_progress(db: Db) {
        let mut tx = db.begin();
        let (certificate, order, _) = under_way(&mut tx).await;
        let request = order.request;
        requests::progress(&mut tx, request, RequestState::Issued, "done", order.id, NOW).await.unwrap();

        let found = requests::find(&mut tx, request, &all()).await.unwrap().unwrap();
        assert_eq!((found.state, found.message.as_str(), found.finished_at), (RequestState::Issued, "done", Some(NOW)));
        assert_eq!(requests::private_key(&mut tx, request).await.unwrap(), Some(Sealed(vec![9])));
        let wanted = requests::Wanted {
            namespace: Some("default".into()),
            name: Some("web-1".into()),
            certificate: Some(certificate.id),
        };
        assert_eq!(requests::list(&mut tx, &all(), &wanted, page()).await.unwrap().rows, [found]);
    }

    async fn a_decision_about_a_request_is_kept_and_one_that_is_denied_is_over(db: Db) {
        let by = PrincipalRef { kind: PrincipalKind::ApiKey, id: Some(Uuid::from_u128(1)), name: "boss".into() };
        let mut tx = db.begin();
        let (certificate, mut order, _) = under_way(&mut tx).await;
        for (verdict, state, is_over) in [
            (Verdict::Approved, RequestState::Pending, false),
            (Verdict::Denied, RequestState::Failed, true),
        ] {
            order.request = RequestId::generate(NOW);
            let asked = Approval::until(NOW + Duration::days(7));
            let waiting = Request {
                order: OrderId(Uuid::nil()),
                requested_by: Some(by.clone()),
                approval: Some(asked.clone()),
                ..request(&certificate, &order)
            };
            requests::insert(&mut tx, &waiting, &Sealed(vec![9])).await.unwrap();
            let found = requests::find(&mut tx, waiting.id, &all()).await.unwrap().unwrap();
            assert!(found == waiting && found.waits());

            let decision = Decision { verdict, by: Some(by.clone()), at: NOW, reason: "as agreed".into() };
            let decided = asked.decided(decision);
            requests::decide(&mut tx, waiting.id, &decided, NOW).await.unwrap();

            let found = requests::find(&mut tx, waiting.id, &all()).await.unwrap().unwrap();
            assert_eq!((found.state, found.finished_at.is_some()), (state, is_over));
            assert_eq!((found.approval, found.order.0), (Some(decided), Uuid::nil()));
        }
    }
}
