//! Certificates, on both databases.

use std::collections::BTreeMap;

use certwright::domain::certificate::{Certificate, Issued, Phase, State};
use certwright::domain::id::{CertificateId, OrderId, RequestId};
use certwright::domain::principal::{PrincipalKind, PrincipalRef};
use certwright::domain::selector::Selector;
use certwright::storage::lease::{self, Machine};
use certwright::storage::{
    Page, Scope, StorageError, Tx, certificates, challenges, events, namespaces, orders, requests,
};
use futures_util::future::FutureExt as _;
use time::Duration;
use uuid::Uuid;

use super::rows::{NOW, all, certificate, failure, is_lost, page, silent, under_way};
use crate::support::databases::on_both_databases;

on_both_databases! {
    async fn certificates_are_found_as_they_were_inserted(db: Db) {
        let certificate = certificate("web");
        let mut tx = db.begin();
        certificates::insert(&mut tx, &certificate).await.unwrap();
        tx.commit().await.unwrap();

        let mut tx = db.read().await.unwrap();
        let (found, _) = certificates::find(&mut tx, certificate.id, &all()).await.unwrap().unwrap();
        assert_eq!(found, certificate);
        let (found, _) = certificates::find_by_name(&mut tx, "default", "web").await.unwrap().unwrap();
        assert_eq!(found, certificate);
        assert!(certificates::find_by_name(&mut tx, "other", "web").await.unwrap().is_none());
    }

    async fn a_certificate_that_waits_for_approval_counts_as_blocked_and_is_read_back_as_it_is(db: Db) {
        let by = PrincipalRef { kind: PrincipalKind::Token, id: Some(Uuid::from_u128(1)), name: "ann".into() };
        let wanted = certificate("web").requested_by(by);
        let mut tx = db.begin();
        certificates::insert(&mut tx, &wanted).await.unwrap();
        let (found, lease) = certificates::find(&mut tx, wanted.id, &all()).await.unwrap().unwrap();
        let waiting = found.await_approval(RequestId(Uuid::from_u128(2)), NOW + Duration::days(7), NOW);
        certificates::save(&mut tx, &waiting, &lease, None).await.unwrap();

        let (found, lease) = certificates::find(&mut tx, wanted.id, &all()).await.unwrap().unwrap();
        assert_eq!(found, waiting.certificate);
        let blocked = certificates::Wanted { phase: Some((Phase::Blocked, NOW)), ..certificates::Wanted::default() };
        assert_eq!(certificates::list(&mut tx, &all(), &blocked, page()).await.unwrap().rows, std::slice::from_ref(&found));
        let approved = Certificate { approved: Some(1), ..found.released(NOW).certificate };
        certificates::save(&mut tx, &silent(&approved), &lease, None).await.unwrap();
        assert_eq!(certificates::find(&mut tx, wanted.id, &all()).await.unwrap().unwrap().0, approved);
    }

    async fn who_adds_to_a_namespace_counts_what_others_add_at_the_same_time(db: Db) {
        let add = async |tx: &mut Tx, name: &str| {
            certificates::insert(tx, &certificate(name)).await.unwrap();
            namespaces::take_turn(tx, "default").await.unwrap();
            namespaces::count_certificates(tx, "default", 9).await.unwrap()
        };
        let mut one = db.begin();
        assert_eq!(add(&mut one, "one").await, 1);

        let (counted, ()) = tokio::join!(
            async {
                let mut other = db.begin();
                let counted = add(&mut other, "other").await;
                other.commit().await.unwrap();
                counted
            },
            async { one.commit().await.unwrap() }
        );

        assert_eq!(counted, 2);
        let mut tx = db.read().await.unwrap();
        assert_eq!(namespaces::count_certificates(&mut tx, "default", 1).await.unwrap(), 1, "and no further");
        assert_eq!(namespaces::count_certificates(&mut tx, "team", 9).await.unwrap(), 0);
    }

    async fn what_is_under_way_in_a_namespace_is_counted_until_it_is_over(db: Db) {
        let mut tx = db.begin();
        for name in ["one", "other"] {
            certificates::insert(&mut tx, &certificate(name)).await.unwrap();
        }
        assert_eq!(namespaces::count_under_way(&mut tx, "default", 9).await.unwrap(), 2);
        assert_eq!(namespaces::count_under_way(&mut tx, "team", 9).await.unwrap(), 0);

        let (found, lease) = certificates::find_by_name(&mut tx, "default", "one").await.unwrap().unwrap();
        let over = Certificate { state: State::Blocked, ..found };
        certificates::save(&mut tx, &silent(&over), &lease, None).await.unwrap();
        assert_eq!(namespaces::count_under_way(&mut tx, "default", 9).await.unwrap(), 1);
    }

    async fn a_respecified_certificate_is_found_by_what_it_is_now(db: Db) {
        let before = certificate("web");
        let mut tx = db.begin();
        certificates::insert(&mut tx, &before).await.unwrap();
        let (mut after, lease) = certificates::find(&mut tx, before.id, &all()).await.unwrap().unwrap();
        after.spec.issuer_ref.name = "other".into();
        after.spec.dns_names = vec!["new.example.com".into()];
        after.labels = [("team".to_owned(), "new".to_owned())].into();
        certificates::respecify(&mut tx, &silent(&after), &lease).await.unwrap();
        tx.commit().await.unwrap();
        let mut tx = db.begin();
        let again = certificates::respecify(&mut tx, &silent(&after), &lease).await;
        assert!(matches!(again, Err(StorageError::LeaseLost(_))));

        let mut tx = db.read().await.unwrap();

        for (wanted, found) in [
            (certificates::Wanted { issuer: Some((None, "other".into())), ..Default::default() }, 1),
            (certificates::Wanted { dns_name: Some("new.example.com".into()), ..Default::default() }, 1),
            (certificates::Wanted { selector: Selector::parse("team=new").unwrap(), ..Default::default() }, 1),
            (certificates::Wanted { dns_name: before.spec.dns_names.first().cloned(), ..Default::default() }, 0),
        ] {
            let listed = certificates::list(&mut tx, &all(), &wanted, page()).await.unwrap().rows;
            assert_eq!(listed.len(), found, "{wanted:?}");
        }
    }

    // A row that is due before its document says so would be claimed and put back, over and over.
    async fn a_certificate_is_not_due_before_the_moment_that_its_document_holds(db: Db) {
        let check = NOW + Duration::nanoseconds(393_388_821);
        let mut certificate = certificate("web");
        certificate.next_action_at = check;
        let mut tx = db.begin();
        certificates::insert(&mut tx, &certificate).await.unwrap();
        tx.commit().await.unwrap();

        let mut read = db.read().await.unwrap();
        let due = lease::next_due(&mut read).await.unwrap();
        let (_, at) = due.into_iter().find(|(machine, _)| *machine == Machine::Certificate).unwrap();
        assert_eq!(at, NOW + Duration::milliseconds(394));
    }

    async fn another_namespace_sees_nothing(db: Db) {
        let mut tx = db.begin();
        let (certificate, order, _) = under_way(&mut tx).await;
        let others = Scope::Namespaces(vec!["other".into()]);

        assert!(certificates::find(&mut tx, certificate.id, &others).await.unwrap().is_none());
        assert!(orders::find(&mut tx, order.id, &others).await.unwrap().is_none());
        assert!(requests::find(&mut tx, order.request, &others).await.unwrap().is_none());
        let wanted = certificates::Wanted::default();
        assert!(certificates::list(&mut tx, &others, &wanted, page()).await.unwrap().rows.is_empty());
        let wanted = orders::Wanted::default();
        assert!(orders::list(&mut tx, &others, &wanted, page()).await.unwrap().rows.is_empty());
        let wanted = challenges::Wanted::default();
        assert!(challenges::list(&mut tx, &others, &wanted, page()).await.unwrap().rows.is_empty());
        let wanted = requests::Wanted::default();
        assert!(requests::list(&mut tx, &others, &wanted, page()).await.unwrap().rows.is_empty());
        let wanted = events::Wanted::default();
        assert!(events::list(&mut tx, &others, &wanted, page()).await.unwrap().rows.is_empty());
        let id = order.challenges[0].id;
        assert!(challenges::find(&mut tx, id, &others).await.unwrap().is_none());
    }

    async fn a_name_is_taken_once(db: Db) {
        let mut tx = db.begin();
        certificates::insert(&mut tx, &certificate("web")).await.unwrap();

        let again = match certificates::insert(&mut tx, &certificate("web")).await {
            Ok(()) => tx.commit().await,
            refused => refused,
        };

        assert!(matches!(again, Err(StorageError::Conflict)), "{again:?}");
    }

    async fn a_saved_certificate_reads_back_as_saved(db: Db) {
        let mut tx = db.begin();
        let (mut certificate, _, lease) = under_way(&mut tx).await;
        certificate.state = State::Idle;
        certificate.current = Some(Issued {
            revision: 1,
            serial: "0a".into(),
            not_before: NOW,
            not_after: NOW + Duration::days(90),
            renewal_time: NOW + Duration::days(60),
        });
        certificate.last_error = Some(failure());
        certificate.told.failed = true;
        certificate.next_action_at = NOW + Duration::days(60);

        let next = certificates::save(&mut tx, &silent(&certificate), &lease, None).await.unwrap();

        let (found, current) = certificates::find(&mut tx, certificate.id, &all()).await.unwrap().unwrap();
        assert_eq!(found, certificate);
        assert_eq!(current, next);
    }

    async fn an_orders_trouble_is_noted_only_while_it_is_the_present_one(db: Db) {
        let mut tx = db.begin();
        let (certificate, order, lease) = under_way(&mut tx).await;
        let noted = async |tx: &mut Tx| {
            certificates::find(tx, certificate.id, &all()).await.unwrap().unwrap()
        };

        let other = OrderId::generate(NOW);
        certificates::note(&mut tx, certificate.id, other, Some(&failure())).await.unwrap();
        assert_eq!(noted(&mut tx).await.0.last_error, None);
        certificates::note(&mut tx, certificate.id, order.id, Some(&failure())).await.unwrap();
        assert_eq!(noted(&mut tx).await, (Certificate { last_error: Some(failure()), ..certificate.clone() }, lease));
        certificates::note(&mut tx, certificate.id, order.id, None).await.unwrap();
        assert_eq!(noted(&mut tx).await.0.last_error, None);
    }

    async fn a_changed_spec_is_found_by_its_new_names(db: Db) {
        let mut tx = db.begin();
        let mut certificate = certificate("web");
        certificates::insert(&mut tx, &certificate).await.unwrap();
        let (_, lease) = certificates::find(&mut tx, certificate.id, &all()).await.unwrap().unwrap();
        certificate.spec.dns_names = vec!["new.example.com".into()];
        certificate.labels = BTreeMap::from([("team".into(), "new".into())]);

        certificates::respecify(&mut tx, &silent(&certificate), &lease).await.unwrap();

        for (name, label, count) in [("new.example.com", "team=new", 1), ("a.example.com", "team=web", 0)] {
            let by_name = certificates::Wanted { dns_name: Some(name.into()), ..Default::default() };
            let by_label = certificates::Wanted { selector: Selector::parse(label).unwrap(), ..Default::default() };
            for wanted in [by_name, by_label] {
                let found = certificates::list(&mut tx, &all(), &wanted, page()).await.unwrap().rows;
                assert_eq!(found.len(), count, "{wanted:?}");
            }
        }
    }

    async fn whoever_missed_a_change_cannot_save_over_it(db: Db) {
        let mut tx = db.begin();
        let (certificate, order, lease) = under_way(&mut tx).await;
        certificates::save(&mut tx, &silent(&certificate), &lease, None).await.unwrap();

        let late = certificates::save(&mut tx, &silent(&certificate), &lease, None).await;
        assert!(is_lost(&mut tx, late).await);

        let (_, lease) = orders::find(&mut tx, order.id, &all()).await.unwrap().unwrap();
        orders::save(&mut tx, &order, &[], &lease, None).await.unwrap();
        let late = orders::save(&mut tx, &order, &[], &lease, None).await;
        assert!(is_lost(&mut tx, late).await);
    }

    async fn certificates_are_filtered_and_paged(db: Db) {
        let mut tx = db.begin();
        for n in 0..5_i64 {
            let mut one = certificate(&format!("web-{n}"));
            one.id = CertificateId::generate(NOW + Duration::seconds(n));
            one.spec.dns_names = vec![format!("{n}.example.com")];
            one.labels = BTreeMap::from([("n".into(), n.to_string())]);
            certificates::insert(&mut tx, &one).await.unwrap();
        }
        let mut seen = Vec::new();
        let mut next = Page::first(2);
        loop {
            let wanted = certificates::Wanted::default();
            let mut found = certificates::list(&mut tx, &all(), &wanted, next).await.unwrap().rows;
            let more = found.len() > 2;
            found.truncate(2);
            seen.extend(found.iter().map(|one| one.name.clone()));
            if !more { break }
            next.after = found.last().map(|one| one.id.0);
        }
        assert_eq!(seen, ["web-0", "web-1", "web-2", "web-3", "web-4"]);

        let by = |wanted: certificates::Wanted| wanted;
        for (wanted, count) in [
            (by(certificates::Wanted { dns_name: Some("3.example.com".into()), ..Default::default() }), 1),
            (by(certificates::Wanted { selector: Selector::parse("n=2").unwrap(), ..Default::default() }), 1),
            (by(certificates::Wanted { issuer: Some((None, "le".into())), ..Default::default() }), 5),
            (by(certificates::Wanted { ready: Some((true, NOW)), ..Default::default() }), 0),
            (by(certificates::Wanted { ready: Some((false, NOW)), ..Default::default() }), 5),
            (by(certificates::Wanted { expires_before: Some(NOW), ..Default::default() }), 0),
            (by(certificates::Wanted { namespace: Some("default".into()), name: Some("web-1".into()), ..Default::default() }), 1),
        ] {
            let found = certificates::list(&mut tx, &all(), &wanted, page()).await.unwrap().rows;
            assert_eq!(found.len(), count, "{wanted:?}");
        }
        let wanted = certificates::Wanted::default();
        let counted = Page { counted: true, ..Page::first(1) };
        let found = certificates::list(&mut tx, &all(), &wanted, counted).await.unwrap();
        assert_eq!((found.rows.len(), found.count), (2, Some(5)), "one more than the page, and all");
        for sort in [certificates::Sort::Name, certificates::Sort::NotAfter] {
            let mut after = None;
            for n in 0..5 {
                let found = certificates::list_by(&mut tx, &all(), &wanted, (sort, after), Page::first(1)).await.unwrap().rows;
                assert_eq!(found[0].name, format!("web-{n}"), "{sort:?}");
                after = Some(certificates::Position::of(&found[0], sort));
            }
            let end = certificates::list_by(&mut tx, &all(), &wanted, (sort, after), page()).await.unwrap().rows;
            assert!(end.is_empty(), "{sort:?}");
        }
        let backwards = Page { descending: true, ..page() };
        let wanted = certificates::Wanted::default();
        let found = certificates::list(&mut tx, &all(), &wanted, backwards).await.unwrap().rows;
        assert_eq!(found[0].name, "web-4");
    }

    async fn a_deleted_certificate_is_gone_and_its_order_stays_to_be_cleaned_up(db: Db) {
        let mut tx = db.begin();
        let (certificate, order, _) = under_way(&mut tx).await;

        certificates::delete(&mut tx, certificate.id).await.unwrap();

        assert!(certificates::find(&mut tx, certificate.id, &all()).await.unwrap().is_none());
        assert!(requests::find(&mut tx, order.request, &all()).await.unwrap().is_none());
        assert!(orders::find(&mut tx, order.id, &all()).await.unwrap().is_some());
    }

    async fn what_is_not_committed_never_was(db: Db) {
        let mut tx = db.begin();
        certificates::insert(&mut tx, &certificate("web")).await.unwrap();
        drop(tx);

        let mut tx = db.read().await.unwrap();
        assert!(certificates::find_by_name(&mut tx, "default", "web").await.unwrap().is_none());
    }

    async fn a_commit_wakes_workers_and_tells_who_waits(db: Db) {
        let mut tx = db.begin();
        let (certificate, _, lease) = under_way(&mut tx).await;
        let mut waiter = db.signals().wait_for(certificate.id.0);
        let lease = certificates::save(&mut tx, &silent(&certificate), &lease, None).await.unwrap();
        tx.commit().await.unwrap();
        db.signals().due().notified().await;
        assert!(waiter.settled().now_or_never().is_none(), "it is still on its way");

        let mut tx = db.begin();
        let at_rest = Certificate { state: State::Backoff, ..certificate };
        certificates::save(&mut tx, &silent(&at_rest), &lease, None).await.unwrap();
        tx.commit().await.unwrap();
        waiter.settled().await;
    }
}
