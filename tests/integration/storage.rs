//! Every public function of `storage`, on both databases.

use futures_util::future::FutureExt as _;
use std::collections::{BTreeMap, HashSet};

use certwright::domain::ari::{self, Ari, Window};
use certwright::domain::backoff::Jitter;
use certwright::domain::certificate::{
    Certificate, Issued, Revoked, State, Told, Transition, Trigger,
};
use certwright::domain::challenge::{self, Challenge, Kind, Record};
use certwright::domain::event::{Event, Resource};
use certwright::domain::failure::{Class, Failure};
use certwright::domain::id::{
    ApiKeyId, CertificateId, ChallengeId, IssuerId, OrderId, RequestId, RevocationId, SecretId,
};
use certwright::domain::issuer::{self, Account, Issuer};
use certwright::domain::order::{self, End, ORDER_DEADLINE, Order, Stage};
use certwright::domain::revocation::{self, Reason, Revocation};
use certwright::secret::Sealed;
use certwright::storage::api_keys::{self, ApiKey};
use certwright::storage::idempotency::{self, Answered};
use certwright::storage::lease::{self, LEASE, Lease, Machine};
use certwright::storage::requests::{self, Request, RequestState};
use certwright::storage::revisions::{self, Revision};
use certwright::storage::secrets::{self, SecretEntry};
use certwright::storage::{
    Db, Page, Scope, StorageError, Tx, certificates, challenges, clean_ups, events, housekeeping,
    issuers, orders, revocations, sealed, settings, workers,
};
use futures_util::future::join_all;
use sqlx::{Connection as _, PgConnection};
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

use crate::support::databases::on_both_databases;

pub(super) const NOW: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);

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
            (certificates::Wanted { issuer: Some("other".into()), ..Default::default() }, 1),
            (certificates::Wanted { dns_name: Some("new.example.com".into()), ..Default::default() }, 1),
            (certificates::Wanted { label: Some("team=new".into()), ..Default::default() }, 1),
            (certificates::Wanted { dns_name: before.spec.dns_names.first().cloned(), ..Default::default() }, 0),
        ] {
            let listed = certificates::list(&mut tx, &all(), &wanted, page()).await.unwrap();
            assert_eq!(listed.len(), found, "{wanted:?}");
        }
    }

    async fn another_namespace_sees_nothing(db: Db) {
        let mut tx = db.begin();
        let (certificate, order, _) = under_way(&mut tx).await;
        let others = Scope::Namespaces(vec!["other".into()]);

        assert!(certificates::find(&mut tx, certificate.id, &others).await.unwrap().is_none());
        assert!(orders::find(&mut tx, order.id, &others).await.unwrap().is_none());
        assert!(requests::find(&mut tx, order.request, &others).await.unwrap().is_none());
        let wanted = certificates::Wanted::default();
        assert!(certificates::list(&mut tx, &others, &wanted, page()).await.unwrap().is_empty());
        let wanted = orders::Wanted::default();
        assert!(orders::list(&mut tx, &others, &wanted, page()).await.unwrap().is_empty());
        let wanted = challenges::Wanted::default();
        assert!(challenges::list(&mut tx, &others, &wanted, page()).await.unwrap().is_empty());
        let wanted = requests::Wanted::default();
        assert!(requests::list(&mut tx, &others, &wanted, page()).await.unwrap().is_empty());
        let wanted = events::Wanted::default();
        assert!(events::list(&mut tx, &others, &wanted, page()).await.unwrap().is_empty());
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
            let by_label = certificates::Wanted { label: Some(label.into()), ..Default::default() };
            for wanted in [by_name, by_label] {
                let found = certificates::list(&mut tx, &all(), &wanted, page()).await.unwrap();
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
            let mut found = certificates::list(&mut tx, &all(), &wanted, next).await.unwrap();
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
            (by(certificates::Wanted { label: Some("n=2".into()), ..Default::default() }), 1),
            (by(certificates::Wanted { issuer: Some("le".into()), ..Default::default() }), 5),
            (by(certificates::Wanted { ready: Some((true, NOW)), ..Default::default() }), 0),
            (by(certificates::Wanted { ready: Some((false, NOW)), ..Default::default() }), 5),
            (by(certificates::Wanted { expires_before: Some(NOW), ..Default::default() }), 0),
            (by(certificates::Wanted { namespace: Some("default".into()), name: Some("web-1".into()), ..Default::default() }), 1),
        ] {
            let found = certificates::list(&mut tx, &all(), &wanted, page()).await.unwrap();
            assert_eq!(found.len(), count, "{wanted:?}");
        }
        let backwards = Page { descending: true, ..page() };
        let wanted = certificates::Wanted::default();
        let found = certificates::list(&mut tx, &all(), &wanted, backwards).await.unwrap();
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

    async fn a_ready_issuer_wakes_those_who_wait_for_it(db: Db) {
        let mut tx = db.begin();
        let mut waiting = certificate("waiting");
        waiting.state = State::AwaitingIssuer(Trigger::DoesNotExist);
        waiting.next_action_at = NOW + Duration::hours(1);
        let mut backing_off = certificate("failed");
        backing_off.state = State::Backoff;
        backing_off.next_action_at = NOW + Duration::hours(1);
        for one in [&waiting, &backing_off] {
            certificates::insert(&mut tx, one).await.unwrap();
        }

        let kind = issuer::Kind::ClusterIssuer;
        let woken = certificates::wake_waiting(&mut tx, kind, "", "le", NOW).await.unwrap();

        assert_eq!(woken, 1);
        let (found, _) = certificates::find(&mut tx, waiting.id, &all()).await.unwrap().unwrap();
        assert_eq!(found.next_action_at, NOW);
        assert!(certificates::any_of_issuer(&mut tx, kind, "", "le").await.unwrap().is_some());
        assert!(certificates::any_of_issuer(&mut tx, kind, "", "other").await.unwrap().is_none());
    }

    async fn what_is_due_is_claimed_once_and_again_when_the_lease_runs_out(db: Db) {
        let now = now(&db).await;
        let mut one = certificate("web");
        one.next_action_at = now;
        let mut tx = db.begin();
        certificates::insert(&mut tx, &one).await.unwrap();
        tx.commit().await.unwrap();

        assert_eq!(claim(&db, now - Duration::seconds(1), 10).await, [], "not before its time");
        let first = claim(&db, now, 10).await;
        assert_eq!(first.len(), 1);
        assert_eq!(claim(&db, now, 10).await, [], "nobody else gets it meanwhile");
        // On SQLite the process's clock is the only one; on PostgreSQL another test moves the end.
        if db.dialect() == "sqlite" {
            let later = claim(&db, now + LEASE, 10).await;
            assert_eq!(later.len(), 1, "its worker died");
            let mut tx = db.begin();
            let late = lease::extend(&mut tx, &first[0], now).await;
            assert!(late.is_err(), "the dead worker is fenced");
            lease::extend(&mut tx, &later[0], now + LEASE).await.unwrap();
            let due = lease::next_due(&mut tx).await.unwrap().rows;
            assert_eq!(due, [(Machine::Certificate, now + LEASE + LEASE)]);
        }
    }

    async fn what_a_dead_process_held_is_given_back_and_it_is_fenced(db: Db) {
        let now = now(&db).await;
        for (name, at) in [("held", now), ("scheduled", now + Duration::seconds(30))] {
            let mut tx = db.begin();
            let one = Certificate { next_action_at: at, ..certificate(name) };
            certificates::insert(&mut tx, &one).await.unwrap();
            tx.commit().await.unwrap();
        }
        let held = claim(&db, now, 10).await;

        let mut tx = db.begin();
        assert_eq!(lease::give_back(&mut tx, Some("another"), now).await.unwrap(), 0);
        assert_eq!(lease::give_back(&mut tx, Some("test"), now).await.unwrap(), 1);
        assert_eq!(lease::give_back(&mut tx, None, now).await.unwrap(), 0);
        tx.commit().await.unwrap();

        let again = claim(&db, now, 10).await;
        assert_eq!(again.len(), 1, "only what was held");
        let mut tx = db.begin();
        assert!(lease::extend(&mut tx, &held[0], now).await.is_err());
        lease::release(&mut tx, Machine::Certificate, held[0].id, "test", now).await.unwrap();
        assert!(lease::extend(&mut tx, &again[0], now).await.is_err(), "let go");
        assert_eq!(lease::give_back(&mut tx, None, now).await.unwrap(), 0);
    }

    async fn a_process_that_falls_silent_is_buried_and_its_work_given_back(db: Db) {
        let now = now(&db).await;
        let mut tx = db.begin();
        certificates::insert(&mut tx, &Certificate { next_action_at: now, ..certificate("web") }).await.unwrap();
        tx.commit().await.unwrap();
        let held = claim(&db, now, 10).await;
        assert_eq!(held.len(), 1);

        let period = Duration::minutes(1);
        let mut tx = db.begin();
        let heard = workers::beat(&mut tx, "test", now).await.unwrap();
        assert!((heard - now).abs() < Duration::seconds(20), "the database's clock");
        assert_eq!(workers::bury(&mut tx, heard + period, period).await.unwrap(), (vec![], 0));
        let late = heard + period + Duration::milliseconds(1);
        assert_eq!(workers::bury(&mut tx, late, period).await.unwrap(), (vec!["test".to_owned()], 1));
        assert_eq!(workers::bury(&mut tx, late, period).await.unwrap(), (vec![], 0));
        assert!(lease::extend(&mut tx, &held[0], now).await.is_err(), "should it come back, it is fenced");
        tx.commit().await.unwrap();

        assert_eq!(claim(&db, late, 10).await.len(), 1);
        let mut tx = db.begin();
        workers::beat(&mut tx, "test", now).await.unwrap();
        assert_eq!(workers::leave(&mut tx, "test", now).await.unwrap(), 1, "an orderly stop gives back at once");
        assert_eq!(workers::bury(&mut tx, late + period, Duration::ZERO).await.unwrap(), (vec![], 0));
    }

    async fn whoever_did_not_hear_the_answer_to_a_commit_finds_out(db: Db) {
        let mut tx = db.begin();
        let (_, order, _) = under_way(&mut tx).await;
        let lease = lease::claim(&mut tx, Machine::Order, "test", NOW, 1).await.unwrap()[0];
        assert_eq!(lease::after_unheard_commit(&mut tx, &lease, "test").await.unwrap(), None, "it did not come through");

        let next = orders::save(&mut tx, &order, &[], &lease, Some(NOW)).await.unwrap();

        assert_eq!(lease::after_unheard_commit(&mut tx, &lease, "test").await.unwrap(), Some(next));
        assert_eq!(lease::after_unheard_commit(&mut tx, &lease, "another").await.unwrap(), None);
        orders::save(&mut tx, &order, &[], &next, None).await.unwrap();
        assert_eq!(lease::after_unheard_commit(&mut tx, &next, "test").await.unwrap(), None, "it holds nothing any more");
    }

    async fn a_step_is_saved_under_the_lease_as_it_is_and_fences_the_former_holder(db: Db) {
        let mut tx = db.begin();
        let (_, mut order, _) = under_way(&mut tx).await;
        let lease = lease::claim(&mut tx, Machine::Order, "test", NOW, 1).await.unwrap()[0];
        let find = async |tx: &mut _| orders::find(tx, order.id, &all()).await.unwrap().unwrap().0;
        let ends = find(&mut tx).await.next_action_at;
        order.attempts += 1;

        let next = orders::save_held(&mut tx, &order, &[], &lease).await.unwrap();

        let found = find(&mut tx).await;
        assert_eq!((found.attempts, found.next_action_at), (order.attempts, ends));
        let late = orders::save_held(&mut tx, &order, &[], &lease).await;
        assert!(is_lost(&mut tx, late).await);
        orders::save_held(&mut tx, &order, &[], &next).await.unwrap();
    }

    async fn sealed_secrets_are_gone_through_in_batches_and_replaced_only_as_they_were_read(db: Db) {
        let mut tx = db.begin();
        let (certificate, order, _) = under_way(&mut tx).await;
        for number in 1..=5 {
            revisions::insert(&mut tx, &revision(&certificate, &order, number), 9, "done").await.unwrap();
        }
        let column = &sealed::COLUMNS[5];
        let mut after = (uuid::Uuid::nil(), i64::MIN);
        let mut seen = Vec::new();
        loop {
            let found = sealed::list(&mut tx, column, after, 2).await.unwrap();
            let Some(last) = found.last() else { break };
            after = last.key;
            seen.extend(found);
        }
        let numbers: Vec<_> = seen.iter().map(|envelope| envelope.key.1).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5]);
        assert_eq!(seen[0].place, requests::private_key_place(order.request));
        assert_eq!(seen[0].sealed, Sealed(vec![9]));
        for column in &sealed::COLUMNS[..5] {
            let after = (uuid::Uuid::nil(), i64::MIN);
            let found = sealed::list(&mut tx, column, after, 9).await.unwrap();
            assert_eq!(found.len(), usize::from(column.place.starts_with("requests")));
        }

        let next = Sealed(vec![7]);
        assert!(sealed::replace(&mut tx, column, &seen[1], &next).await.unwrap());
        assert!(!sealed::replace(&mut tx, column, &seen[1], &next).await.unwrap(), "it is another by now");
        let (now, _) = revisions::private_key(&mut tx, certificate.id, 2).await.unwrap().unwrap();
        assert_eq!(now, Some(next));
    }

    async fn a_task_is_done_by_one_and_comes_again(db: Db) {
        let now = now(&db).await;
        let mut tx = db.begin();
        let (one, two) = (uuid::Uuid::from_u128(1), uuid::Uuid::from_u128(2));
        housekeeping::schedule(&mut tx, one, "sweep", now + Duration::hours(1)).await.unwrap();
        housekeeping::schedule(&mut tx, two, "sweep", now + Duration::hours(2)).await.unwrap();
        assert!(lease::claim(&mut tx, Machine::Housekeeping, "test", now, 9).await.unwrap().is_empty());
        housekeeping::schedule(&mut tx, two, "sweep", now).await.unwrap();
        let claimed = lease::claim(&mut tx, Machine::Housekeeping, "test", now, 9).await.unwrap();
        assert_eq!(claimed.iter().map(|lease| lease.id).collect::<Vec<_>>(), [one]);
        assert_eq!(housekeeping::find(&mut tx, one).await.unwrap().as_deref(), Some("sweep"));

        housekeeping::settle(&mut tx, &claimed[0], now + Duration::hours(1)).await.unwrap();

        let late = housekeeping::settle(&mut tx, &claimed[0], now).await;
        assert!(matches!(late, Err(StorageError::LeaseLost(_))), "{late:?}");
        assert_eq!(lease::next_due(&mut tx).await.unwrap().rows.len(), 1);
    }

    async fn many_workers_never_claim_the_same_row(db: Db) {
        let mut tx = db.begin();
        for n in 0..40 {
            certificates::insert(&mut tx, &certificate(&format!("web-{n}"))).await.unwrap();
        }
        tx.commit().await.unwrap();

        let claims = join_all((0..20).map(|_| claim(&db, NOW, 3))).await;

        let mut ids: Vec<_> = claims.into_iter().flatten().map(|lease| lease.id).collect();
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!((ids.len(), all), (40, 40));
    }

    async fn orders_and_challenges_read_back_as_saved(db: Db) {
        let mut tx = db.begin();
        let (_, order, _) = under_way(&mut tx).await;
        let (found, lease) = orders::find(&mut tx, order.id, &all()).await.unwrap().unwrap();
        assert_eq!(found, order);

        let mut next = order.clone();
        next.state = order::State::Open { url: "https://ca.example/1".into(), stage: Stage::Validating };
        next.last_error = Some(failure());
        next.expires = Some(NOW + Duration::days(7));
        next.challenges[0].state = challenge::State::Processing;
        next.challenges[0].observations =
            vec![challenge::Observation::missing("ns1.example.com 192.0.2.1", "has no record")];
        next.challenges[0].record = Some(Record {
            name: "n".into(), value: "v".into(), zone: "z".into(), id: "r".into(),
        });
        orders::save(&mut tx, &next, &order.challenges, &lease, None).await.unwrap();

        let (found, _) = orders::find(&mut tx, order.id, &all()).await.unwrap().unwrap();
        assert_eq!(found, next);
        let id = next.challenges[0].id;
        let (challenge, of) = challenges::find(&mut tx, id, &all()).await.unwrap().unwrap();
        assert_eq!((&challenge, of.id), (&next.challenges[0], order.id));
        assert_eq!((&*of.name, &*of.namespace), ("web-1-0badcafe", "default"));
    }

    async fn orders_and_challenges_are_filtered(db: Db) {
        let mut tx = db.begin();
        let (certificate, order, _) = under_way(&mut tx).await;
        for (wanted, count) in [
            (orders::Wanted { certificate: Some(certificate.id), ..Default::default() }, 1),
            (orders::Wanted { state: Some("pending".into()), ..Default::default() }, 1),
            (orders::Wanted { state: Some("ready".into()), ..Default::default() }, 0),
            (orders::Wanted { state: Some("valid".into()), ..Default::default() }, 0),
            (orders::Wanted { state: Some("errored".into()), ..Default::default() }, 0),
            (orders::Wanted { namespace: Some("other".into()), ..Default::default() }, 0),
        ] {
            let found = orders::list(&mut tx, &all(), &wanted, page()).await.unwrap();
            assert_eq!(found.len(), count, "{wanted:?}");
        }
        let wanted = challenges::Wanted {
            namespace: Some("default".into()),
            order_name: Some(order.name.clone()),
            order: Some(order.id),
            state: Some("pending".into()),
        };
        let ours = Scope::Namespaces(vec!["default".into()]);
        assert_eq!(challenges::list(&mut tx, &ours, &wanted, page()).await.unwrap().len(), 1);
        assert_eq!(orders::open_of_certificate(&mut tx, certificate.id).await.unwrap().len(), 1);
        assert_eq!(orders::any_open_of_issuer(&mut tx, order.issuer).await.unwrap(), Some(order.id));
    }

    async fn the_responder_answers_until_the_challenge_is_clean(db: Db) {
        let mut tx = db.begin();
        let (_, order, _) = under_way(&mut tx).await;
        let answer = challenges::key_authorization(&mut tx, "token-1").await.unwrap();
        assert_eq!(answer.as_deref(), Some("token-1.thumbprint"));
        assert_eq!(challenges::key_authorization(&mut tx, "token-2").await.unwrap(), None);

        let (_, lease) = orders::find(&mut tx, order.id, &all()).await.unwrap().unwrap();
        let mut over = order.clone();
        over.state = order::State::Done { url: None, end: End::Errored };
        over.next_action_at = None;
        over.challenges[0].clean = true;
        orders::save(&mut tx, &over, &order.challenges, &lease, None).await.unwrap();

        assert_eq!(challenges::key_authorization(&mut tx, "token-1").await.unwrap(), None);
        assert_eq!(orders::any_open_of_issuer(&mut tx, order.issuer).await.unwrap(), None);
    }

    async fn a_proof_that_two_orders_need_is_known_to_be_shared(db: Db) {
        let mut tx = db.begin();
        let (certificate, order, _) = under_way(&mut tx).await;
        let id = order.challenges[0].id;
        assert!(clean_ups::shared(&mut tx, [id].into_iter()).await.unwrap().is_empty());

        let mut other = self::order(certificate.id);
        other.challenges[0].id = ChallengeId::generate(NOW);
        orders::insert(&mut tx, &other, None).await.unwrap();
        challenges::insert(&mut tx, other.id, &other.challenges).await.unwrap();

        let asked = [id, ChallengeId::generate(NOW)].into_iter();
        assert_eq!(clean_ups::shared(&mut tx, asked).await.unwrap(), HashSet::from([id]));
    }

    async fn orders_that_are_over_are_claimed_together_to_be_cleaned_up_after(db: Db) {
        let mut tx = db.begin();
        let (certificate, first, _) = under_way(&mut tx).await;
        let mut all_orders = vec![first];
        for _ in 0..2 {
            let mut other = order(certificate.id);
            other.challenges[0].id = ChallengeId::generate(NOW);
            orders::insert(&mut tx, &other, None).await.unwrap();
            challenges::insert(&mut tx, other.id, &other.challenges).await.unwrap();
            all_orders.push(other);
        }
        for order in &all_orders[..2] {
            let (found, lease) = orders::find(&mut tx, order.id, &all()).await.unwrap().unwrap();
            let before = found.challenges.clone();
            orders::save(&mut tx, &found.cancel("test", NOW).order, &before, &lease, None).await.unwrap();
        }
        let due = lease::next_due(&mut tx).await.unwrap().clean_ups.unwrap();

        let mut claimed = clean_ups::claim(&mut tx, "test", due, 1).await.unwrap();
        claimed.extend(clean_ups::claim(&mut tx, "test", due, 9).await.unwrap());
        assert_eq!(clean_ups::claim(&mut tx, "test", due, 9).await.unwrap(), [], "they are held");
        claimed.sort_by_key(|(order, _)| order.id);
        assert_eq!(claimed.len(), 2, "the third is not over");
        for ((order, lease), placed) in claimed.into_iter().zip(&all_orders) {
            assert_eq!((order.id, order.challenges[0].id), (placed.id, placed.challenges[0].id));
            assert!(order.is_over());
            orders::save(&mut tx, &order, &order.challenges, &lease, None).await.unwrap();
            let late = orders::save(&mut tx, &order, &order.challenges, &lease, None).await;
            assert!(is_lost(&mut tx, late).await);
        }
    }

    async fn a_proof_is_needed_until_every_challenge_that_has_it_is_over(db: Db) {
        let mut tx = db.begin();
        let (certificate, order, _) = under_way(&mut tx).await;
        let id = order.challenges[0].id;
        assert!(challenges::needs_proof(&mut tx, id).await.unwrap());
        assert!(!challenges::needs_proof(&mut tx, ChallengeId::generate(NOW)).await.unwrap(), "nobody knows it");

        let (found, lease) = orders::find(&mut tx, order.id, &all()).await.unwrap().unwrap();
        let before = found.challenges.clone();
        let cancelled = found.cancel("test", NOW).order;
        orders::save(&mut tx, &cancelled, &before, &lease, None).await.unwrap();
        assert!(!challenges::needs_proof(&mut tx, id).await.unwrap());

        let mut other = self::order(certificate.id);
        other.challenges[0].id = ChallengeId::generate(NOW);
        orders::insert(&mut tx, &other, None).await.unwrap();
        challenges::insert(&mut tx, other.id, &other.challenges).await.unwrap();
        assert!(challenges::needs_proof(&mut tx, id).await.unwrap(), "another order has the same proof");
    }

    async fn a_changed_issuer_has_steps_that_are_under_way_repeated(db: Db) {
        let mut tx = db.begin();
        let (_, order, _) = under_way(&mut tx).await;
        let leases = lease::claim(&mut tx, Machine::Order, "test", NOW, 1).await.unwrap();

        orders::retake_steps(&mut tx, order.issuer, NOW).await.unwrap();

        let late = orders::save(&mut tx, &order, &[], &leases[0], None).await;
        assert!(is_lost(&mut tx, late).await);
        let again = lease::claim(&mut tx, Machine::Order, "test", NOW, 1).await.unwrap();
        assert_eq!(again.len(), 1, "it is due at once");
    }

    async fn issuers_keep_their_account_and_its_key(db: Db) {
        let mut tx = db.begin();
        let one = issuer();
        issuers::insert(&mut tx, &one, &Sealed(vec![1, 2, 3])).await.unwrap();
        let (found, lease) = issuers::find(&mut tx, one.id, &all()).await.unwrap().unwrap();
        assert_eq!(found, one);
        assert_eq!(issuers::account_key(&mut tx, one.id).await.unwrap(), Sealed(vec![1, 2, 3]));
        let both = issuers::with_account_key(&mut tx, one.id).await.unwrap();
        assert_eq!(both, Some((one.clone(), Sealed(vec![1, 2, 3]))));

        let account = Account { url: "https://ca.example/a".into(), server: one.acme.server.clone(), email: None };
        let ready = one.clone().registered(account, NOW);
        issuers::save(&mut tx, &ready, &lease).await.unwrap();

        let kind = issuer::Kind::ClusterIssuer;
        let (found, _) = issuers::find_by_name(&mut tx, kind, "ignored", "le").await.unwrap().unwrap();
        assert_eq!(found, ready.issuer);
        assert!(issuers::save(&mut tx, &ready, &lease).await.is_err(), "fenced");
        assert_eq!(issuers::of_namespace(&mut tx, "team").await.unwrap().len(), 1);
        let wanted = issuers::Wanted { kind: Some(kind), name: Some("le".into()), namespace: None };
        let ours = Scope::Namespaces(vec!["team".into()]);
        assert_eq!(issuers::list(&mut tx, &ours, &wanted, page()).await.unwrap(), [ready.issuer]);
        issuers::delete(&mut tx, one.id).await.unwrap();
        assert!(issuers::find(&mut tx, one.id, &all()).await.unwrap().is_none());
        assert!(issuers::with_account_key(&mut tx, one.id).await.unwrap().is_none());
    }

    async fn issuers_and_secrets_that_were_recalled_are_recalled_as_they_are_after_a_change(db: Db) {
        let (first, key) = (issuer(), Sealed(vec![1]));
        let mut entry = SecretEntry {
            id: SecretId::generate(NOW), namespace: "default".into(), name: "token".into(),
            keys: vec!["api-token".into()], created_at: NOW, updated_at: NOW,
        };
        let by_name = || issuers::recall_by_name(&db, first.kind, "default", &first.name);
        assert_eq!(by_name().await.unwrap(), None);
        let mut tx = db.begin();
        issuers::insert(&mut tx, &first, &key).await.unwrap();
        secrets::insert(&mut tx, &entry, &Sealed(vec![2])).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(by_name().await.unwrap(), Some(first.clone()));
        assert_eq!(issuers::recall(&db, first.id).await.unwrap(), Some((first.clone(), key)));
        let known = secrets::recall(&db, "default", "token").await.unwrap();
        assert_eq!(known, Some((entry.id, Sealed(vec![2]))));

        let mut tx = db.begin();
        let (_, lease) = issuers::find(&mut tx, first.id, &all()).await.unwrap().unwrap();
        let changed = Issuer { tries: 3, ..first.clone() };
        let told = issuer::Transition::silent(changed.clone(), NOW);
        issuers::save(&mut tx, &told, &lease).await.unwrap();
        issuers::set_account_key(&mut tx, first.id, &Sealed(vec![3])).await.unwrap();
        entry.updated_at = NOW + Duration::minutes(1);
        secrets::update(&mut tx, &entry, &Sealed(vec![4])).await.unwrap();
        tx.commit().await.unwrap();

        assert_eq!(by_name().await.unwrap(), Some(changed.clone()));
        let recalled = issuers::recall(&db, first.id).await.unwrap();
        assert_eq!(recalled, Some((changed, Sealed(vec![3]))));
        let known = secrets::recall(&db, "default", "token").await.unwrap();
        assert_eq!(known, Some((entry.id, Sealed(vec![4]))));
        let mut tx = db.begin();
        secrets::delete(&mut tx, entry.id).await.unwrap();
        issuers::delete(&mut tx, first.id).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(secrets::recall(&db, "default", "token").await.unwrap(), None);
        assert_eq!(by_name().await.unwrap(), None);
        assert_eq!(issuers::recall(&db, first.id).await.unwrap(), None);
    }

    async fn secrets_are_kept_sealed_and_replaced_as_a_whole(db: Db) {
        let mut tx = db.begin();
        let mut one = SecretEntry {
            id: SecretId::generate(NOW), namespace: "default".into(), name: "token".into(),
            keys: vec!["api-token".into()], created_at: NOW, updated_at: NOW,
        };
        secrets::insert(&mut tx, &one, &Sealed(vec![1])).await.unwrap();
        one.keys = vec!["other".into()];
        one.updated_at = NOW + Duration::minutes(1);
        secrets::update(&mut tx, &one, &Sealed(vec![2])).await.unwrap();

        assert_eq!(secrets::find(&mut tx, one.id, &all()).await.unwrap(), Some(one.clone()));
        let data = secrets::data(&mut tx, "default", "token").await.unwrap();
        assert_eq!(data, Some((one.id, Sealed(vec![2]))));
        let wanted = secrets::Wanted { namespace: Some("default".into()), name: Some("token".into()) };
        assert_eq!(secrets::list(&mut tx, &all(), &wanted, page()).await.unwrap(), std::slice::from_ref(&one));
        let named = secrets::find_by_name(&mut tx, "default", "token").await.unwrap();
        assert_eq!(named, Some((one.clone(), Sealed(vec![2]))));
        secrets::delete(&mut tx, one.id).await.unwrap();
        assert_eq!(secrets::data(&mut tx, "default", "token").await.unwrap(), None);
    }

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
        let copies = &sealed::COLUMNS[7];
        let copy = sealed::list(&mut tx, copies, (uuid::Uuid::nil(), i64::MIN), 9).await.unwrap();
        assert_eq!(copy[0].place, requests::private_key_place(order.request));
        assert!(sealed::replace(&mut tx, copies, &copy[0], &Sealed(vec![8])).await.unwrap());
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
        for column in &sealed::COLUMNS[4..6] {
            let found = sealed::list(&mut tx, column, (uuid::Uuid::nil(), i64::MIN), 9).await.unwrap();
            assert!(found.iter().all(|one| one.sealed == Sealed(vec![9])), "what is not there is not sealed");
        }
        let held = revisions::private_key(&mut tx, certificate.id, 1).await.unwrap();
        assert_eq!(held, Some((None, request.id)));
        revisions::revoked(&mut tx, certificate.id, 1, NOW).await.unwrap();
        let found = revisions::find(&mut tx, certificate.id, 1).await.unwrap().unwrap();
        assert_eq!(found.revoked_at, Some(NOW));
    }

    async fn an_accounts_next_key_waits_beside_the_present_one(db: Db) {
        let mut tx = db.begin();
        let mut issuer = issuer();
        issuers::insert(&mut tx, &issuer, &Sealed(vec![1])).await.unwrap();
        let (_, lease) = issuers::find(&mut tx, issuer.id, &all()).await.unwrap().unwrap();
        issuer.upkeep = Some(issuer::Upkeep::Deactivating { since: NOW, then_delete: true });
        let saved = issuer::Transition::silent(issuer.clone(), NOW);
        issuers::save(&mut tx, &saved, &lease).await.unwrap();
        assert_eq!(issuers::find(&mut tx, issuer.id, &all()).await.unwrap().unwrap().0, issuer);

        issuers::set_next_account_key(&mut tx, issuer.id, Some(&Sealed(vec![2]))).await.unwrap();
        let next = issuers::next_account_key(&mut tx, issuer.id).await.unwrap();
        assert_eq!(next, Some(Sealed(vec![2])));
        let nexts = sealed::list(&mut tx, &sealed::COLUMNS[6], (uuid::Uuid::nil(), i64::MIN), 9).await.unwrap();
        assert_eq!((nexts.len(), &nexts[0].sealed), (1, &Sealed(vec![2])));
        assert_eq!(issuers::account_key(&mut tx, issuer.id).await.unwrap(), Sealed(vec![1]));
        issuers::set_account_key(&mut tx, issuer.id, &Sealed(vec![3])).await.unwrap();
        assert_eq!(issuers::account_key(&mut tx, issuer.id).await.unwrap(), Sealed(vec![3]));
        assert_eq!(issuers::next_account_key(&mut tx, issuer.id).await.unwrap(), None);
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
        let earlier = revisions::list(&mut tx, certificate.id, Some(3), 10).await.unwrap();
        assert_eq!(earlier.len(), 2);
        let request = requests::find(&mut tx, order.request, &all()).await.unwrap().unwrap();
        assert_eq!((request.state, request.message.as_str()), (RequestState::Issued, "done"));
        assert_eq!(request.finished_at, Some(revision(&certificate, &order, 3).issued_at));

        revisions::insert(&mut tx, &revision(&certificate, &order, 4), 2, "done").await.unwrap();
        let kept = revisions::list(&mut tx, certificate.id, None, 10).await.unwrap();
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
        assert_eq!(requests::list(&mut tx, &all(), &wanted, page()).await.unwrap(), [found]);
    }

    async fn events_are_found_by_resource_and_by_certificate(db: Db) {
        let mut tx = db.begin();
        let certificate = CertificateId::generate(NOW);
        let order = OrderId::generate(NOW);
        let happened = [
            Event::normal(Resource::Certificate(certificate), "Issuing", "begun"),
            Event::warning(Resource::Order(order), "OrderFailed", "over"),
        ];
        events::record(&mut tx, "default", Some(certificate), &happened, NOW).unwrap();

        let of = |resource| events::Wanted { resource: Some(resource), ..Default::default() };
        let whole = events::list(&mut tx, &all(), &of(certificate.0), page()).await.unwrap();
        assert_eq!(whole.iter().map(|event| event.reason.as_str()).collect::<Vec<_>>(), ["Issuing", "OrderFailed"]);
        let part = events::list(&mut tx, &all(), &of(order.0), page()).await.unwrap();
        assert_eq!((part.len(), part[0].first_seen(), part[0].severity.as_str()), (1, NOW, "Warning"));
        let later = events::Wanted { since: Some(NOW + Duration::seconds(1)), namespace: Some("default".into()), ..Default::default() };
        assert!(events::list(&mut tx, &all(), &later, page()).await.unwrap().is_empty());
    }

    async fn an_answer_is_remembered_once_and_for_a_while(db: Db) {
        let mut tx = db.begin();
        let caller = ApiKeyId::generate(NOW);
        let answered = Answered { request_hash: vec![1], status: 202, location: "/x".into(), body: "{}".into() };
        let kept_since = NOW - Duration::hours(24);
        idempotency::insert(&mut tx, caller, "k", &answered, NOW, kept_since).await.unwrap();

        assert_eq!(idempotency::find(&mut tx, caller, "k", kept_since).await.unwrap(), Some(answered.clone()));
        assert_eq!(idempotency::find(&mut tx, caller, "k", NOW + Duration::seconds(1)).await.unwrap(), None);
        let other = ApiKeyId::generate(NOW);
        assert_eq!(idempotency::find(&mut tx, other, "k", kept_since).await.unwrap(), None);
        let again = idempotency::insert(&mut tx, caller, "k", &answered, NOW, kept_since).await;
        assert!(matches!(again, Err(StorageError::Conflict)));
    }

    async fn api_keys_are_found_by_their_hash(db: Db) {
        let mut tx = db.begin();
        assert!(!api_keys::any(&mut tx).await.unwrap());
        let key = ApiKey {
            id: ApiKeyId::generate(NOW), name: "ci".into(), permissions: vec!["*".into()],
            scope: Scope::Namespaces(vec!["team".into()]),
        };

        assert!(api_keys::insert(&mut tx, &key, &[7; 32], NOW).await.unwrap());
        assert!(!api_keys::insert(&mut tx, &key, &[7; 32], NOW).await.unwrap(), "once");
        assert_eq!(api_keys::find_by_hash(&mut tx, &[7; 32]).await.unwrap(), Some(key.clone()));
        assert_eq!(api_keys::list(&mut tx, page()).await.unwrap(), [(key.clone(), NOW)]);
        assert_eq!(api_keys::find(&mut tx, key.id).await.unwrap().as_ref(), Some(&key));
        assert_eq!(api_keys::find_by_hash(&mut tx, &[8; 32]).await.unwrap(), None);
        assert!(api_keys::any(&mut tx).await.unwrap());
        api_keys::delete(&mut tx, key.id).await.unwrap();
        assert_eq!(api_keys::find(&mut tx, key.id).await.unwrap(), None);
    }

    async fn an_api_key_is_recognised_from_the_commit_on_that_made_it(db: Db) {
        let key = |name: &str| ApiKey {
            id: ApiKeyId::generate(NOW), name: name.into(), permissions: vec!["*".into()],
            scope: Scope::Everything,
        };
        for (hash, key) in [([7; 32], key("first")), ([8; 32], key("second"))] {
            assert_eq!(api_keys::recognise(&db, &hash).await.unwrap(), None);
            let mut tx = db.begin();
            api_keys::insert(&mut tx, &key, &hash, NOW).await.unwrap();
            tx.commit().await.unwrap();

            for _ in 0..2 {
                assert_eq!(api_keys::recognise(&db, &hash).await.unwrap().as_ref(), Some(&key));
            }
        }
    }

    async fn a_setting_is_set_once(db: Db) {
        let mut tx = db.begin();
        assert!(settings::insert(&mut tx, "id", b"first").await.unwrap());
        assert!(!settings::insert(&mut tx, "id", b"second").await.unwrap());
        assert_eq!(settings::find(&mut tx, "id").await.unwrap(), Some(b"first".to_vec()));
        assert_eq!(settings::find(&mut tx, "other").await.unwrap(), None);
        assert!(!settings::replace(&mut tx, "id", b"second", b"third").await.unwrap());
        assert!(settings::replace(&mut tx, "id", b"first", b"third").await.unwrap());
    }

    async fn a_commit_wakes_workers_and_tells_who_waits(db: Db) {
        let mut tx = db.begin();
        let (certificate, _, lease) = under_way(&mut tx).await;
        let mut waiter = db.signals().wait_for(certificate.id.0);
        let lease = certificates::save(&mut tx, &silent(&certificate), &lease, None).await.unwrap();
        tx.commit().await.unwrap();
        db.signals().due().notified().await;
        assert!(waiter.news().now_or_never().is_none(), "it is still on its way");

        let mut tx = db.begin();
        let at_rest = Certificate { state: State::Backoff, ..certificate };
        certificates::save(&mut tx, &silent(&at_rest), &lease, None).await.unwrap();
        tx.commit().await.unwrap();
        waiter.news().await;
    }

    async fn what_is_not_committed_never_was(db: Db) {
        let mut tx = db.begin();
        certificates::insert(&mut tx, &certificate("web")).await.unwrap();
        drop(tx);

        let mut tx = db.read().await.unwrap();
        assert!(certificates::find_by_name(&mut tx, "default", "web").await.unwrap().is_none());
    }

    async fn every_statement_prepares(db: Db) {
        for statement in certwright::storage::catalogue() {
            if let Err(error) = db.prepare(statement).await {
                panic!("{}: {error:?}", statement.name);
            }
        }
    }
}

#[tokio::test]
async fn both_schemas_have_the_same_tables_and_columns() {
    let (_folder, sqlite) = crate::support::databases::sqlite().await;
    let postgres = crate::support::databases::postgres().await;

    let mut of_sqlite = sqlite.schema().await.unwrap();
    let mut of_postgres = postgres.schema().await.unwrap();

    of_sqlite.sort_unstable();
    of_postgres.sort_unstable();
    assert!(of_sqlite.len() > 100, "{of_sqlite:?}");
    assert_eq!(of_sqlite, of_postgres);
}

/// Whoever adds a column of sealed secrets must have it sealed anew, too.
#[test]
fn every_sealed_column_is_known_to_the_rotation() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/postgres");
    let mut columns = 0;
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap();
        columns += text
            .lines()
            .filter(|line| line.contains("BYTEA") && line.contains("-- sealed"))
            .count();
    }
    assert!(columns >= 4, "{columns}");
    assert_eq!(sealed::COLUMNS.len(), columns, "see src/storage/sealed.rs");
}

/// What replicas with wrong clocks do to each other: nothing.
#[tokio::test]
async fn on_postgres_a_lease_ends_by_the_databases_clock_whatever_the_replicas_think() {
    let url = crate::support::postgres::fresh_database().await;
    let db = Db::connect(&url).await.unwrap();
    let now = db.clock().await.unwrap().unwrap();
    let (early, late) = (now - Duration::hours(1), now + Duration::hours(1));
    let mut tx = db.begin();
    let (_, order, _) = under_way(&mut tx).await;
    tx.commit().await.unwrap();
    let mut raw = PgConnection::connect(&url).await.unwrap();
    let at = i64::try_from(now.unix_timestamp_nanos() / 1_000_000).unwrap();
    let due = "UPDATE orders SET next_action_at = $1";
    sqlx::query(due).bind(at).execute(&mut raw).await.unwrap();

    let mut tx = db.begin();
    let held = lease::claim(&mut tx, Machine::Order, "slow clock", early, 1).await.unwrap();
    assert!(held.is_empty(), "what is scheduled is due by the clock of whoever looks");
    let mut held = lease::claim(&mut tx, Machine::Order, "right clock", now, 1).await.unwrap()[0];
    tx.commit().await.unwrap();

    let steal = async || {
        let mut tx = db.begin();
        let stolen = lease::claim(&mut tx, Machine::Order, "fast clock", late, 9).await.unwrap();
        tx.commit().await.unwrap();
        stolen
    };
    assert_eq!(steal().await, [], "not after a claim");
    // Whatever a worker with a slow clock writes, its lease is as long as any.
    let mut tx = db.begin();
    lease::extend(&mut tx, &held, early).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(steal().await, [], "not after an extension");
    let mut tx = db.begin();
    held = orders::save(&mut tx, &order, &[], &held, Some(early)).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(steal().await, [], "not after a step");

    let run_out = "UPDATE orders SET next_action_at = next_action_at - 120001";
    sqlx::query(run_out).execute(&mut raw).await.unwrap();
    let mut tx = db.begin();
    let taken = lease::claim(&mut tx, Machine::Order, "slow clock", early, 1).await.unwrap();
    assert_eq!(taken.len(), 1, "its time is over, even for a slow clock");
    let late = orders::save(&mut tx, &order, &[], &held, None).await;
    assert!(is_lost(&mut tx, late).await);
}

#[test]
fn every_public_function_of_storage_is_exercised_here() {
    let tests = concat!(
        include_str!("storage.rs"),
        include_str!("storage_limits.rs"),
        include_str!("storage_webhooks.rs"),
        include_str!("events.rs"),
        include_str!("expiry.rs"),
    );
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/storage");
    for entry in std::fs::read_dir(root).unwrap().flatten() {
        let module = entry.path().file_stem().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(entry.path()).unwrap();
        for line in text.lines().filter(|line| line.starts_with("pub async fn ")) {
            let name = line["pub async fn ".len()..].split(['(', '<']).next().unwrap();
            assert!(
                tests.contains(&format!("{module}::{name}(")),
                "{module}::{name} is not tested"
            );
        }
    }
}

/// Whether the lease was lost; SQLite says so with the next question at the latest.
async fn is_lost(tx: &mut Tx, saved: Result<Lease, StorageError>) -> bool {
    let refused = match saved {
        Ok(_) => settings::find(tx, "anything").await.err(),
        Err(error) => Some(error),
    };
    matches!(refused, Some(StorageError::LeaseLost(_)))
}

/// On PostgreSQL leases go by the database's clock, so tests of them do, too.
async fn now(db: &Db) -> OffsetDateTime {
    db.clock().await.unwrap().unwrap_or(NOW)
}

async fn claim(db: &Db, now: OffsetDateTime, limit: usize) -> Vec<Lease> {
    let mut tx = db.begin();
    let leases = lease::claim(&mut tx, Machine::Certificate, "test", now, limit).await.unwrap();
    tx.commit().await.unwrap();
    leases
}

/// A certificate with a request, an order and a challenge on their way.
async fn under_way(tx: &mut Tx) -> (Certificate, Order, Lease) {
    let mut certificate = certificate("web");
    let mut order = order(certificate.id);
    certificate.state = State::Ordering(Trigger::DoesNotExist);
    certificate.order = Some(order.id);
    certificates::insert(tx, &certificate).await.unwrap();
    let request = request(&certificate, &order);
    requests::insert(tx, &request, &Sealed(vec![9])).await.unwrap();
    orders::insert(tx, &order, None).await.unwrap();
    challenges::insert(tx, order.id, &order.challenges).await.unwrap();
    order.challenges.truncate(1);
    let (_, lease) = certificates::find(tx, certificate.id, &all()).await.unwrap().unwrap();
    (certificate, order, lease)
}

fn request(certificate: &Certificate, order: &Order) -> Request {
    Request {
        name: "web-1".into(),
        id: order.request,
        certificate: certificate.id,
        namespace: "default".into(),
        revision: 1,
        csr: vec![8],
        state: RequestState::Pending,
        message: String::new(),
        order: order.id,
        created_at: NOW,
        finished_at: None,
    }
}

fn revocation(certificate: &Certificate, issuer: IssuerId) -> Revocation {
    Revocation {
        id: RevocationId::generate(NOW),
        certificate: certificate.id,
        namespace: "default".into(),
        issuer,
        revision: 1,
        reason: Reason::KeyCompromise,
        state: revocation::State::Pending,
        tries: 2,
        last_error: Some(failure()),
        created_at: NOW,
        next_action_at: Some(NOW),
        deadline: NOW + revocation::DEADLINE,
    }
}

fn ari() -> Ari {
    let validity = (NOW, NOW + Duration::days(90));
    let new = Ari::new("a.b".into(), "https://ca.example/1".into(), validity, NOW, Jitter::NONE);
    let window = Window { start: NOW, end: NOW + Duration::days(1) };
    let answer = ari::Answer::Suggested {
        window,
        explanation_url: Some("https://ca.example".into()),
        retry_at: None,
    };
    new.apply(answer, NOW, Jitter::NONE)
}

fn silent(certificate: &Certificate) -> Transition {
    Transition::silent(certificate.clone(), NOW)
}

fn all() -> Scope {
    Scope::Everything
}

fn page() -> Page {
    Page::first(50)
}

fn failure() -> Failure {
    Failure::new(Class::Transient, "code", "title", "detail").with_status(503)
}

pub(super) fn certificate(name: &str) -> Certificate {
    let spec =
        r#"{"issuerRef": {"name": "le", "kind": "ClusterIssuer"}, "dnsNames": ["a.example.com"]}"#;
    Certificate {
        id: CertificateId::generate(NOW),
        namespace: "default".into(),
        name: name.into(),
        labels: BTreeMap::from([("team".into(), "web".into())]),
        spec: serde_json::from_str(spec).unwrap(),
        generation: 1,
        state: State::Triggered(Trigger::DoesNotExist),
        state_since: NOW,
        current: None,
        ari: None,
        revocation: None,
        deleting_since: None,
        failed_attempts: 0,
        told: Told::default(),
        last_error: None,
        order: None,
        created_at: NOW,
        next_action_at: NOW,
    }
}

fn issuer() -> Issuer {
    let acme = r#"{"server": "https://ca.example/dir", "solvers": [{"http01": {}}]}"#;
    Issuer {
        id: IssuerId::generate(NOW),
        kind: issuer::Kind::ClusterIssuer,
        namespace: String::new(),
        name: "le".into(),
        acme: serde_json::from_str(acme).unwrap(),
        generation: 1,
        state: issuer::State::Pending,
        state_since: NOW,
        account: None,
        upkeep: None,
        tries: 0,
        last_error: None,
        created_at: NOW,
        next_action_at: Some(NOW),
    }
}

fn order(certificate: CertificateId) -> Order {
    Order {
        id: OrderId::generate(NOW),
        name: "web-1-0badcafe".into(),
        certificate,
        request: RequestId::generate(NOW),
        issuer: IssuerId::generate(NOW),
        namespace: "default".into(),
        names: vec!["a.example.com".into()],
        profile: Some("tlsserver".into()),
        replaces: Some("a.b".into()),
        not_after: Some(NOW),
        predecessors: 0,
        state: order::State::New,
        expires: None,
        challenges: vec![Challenge {
            id: ChallengeId::generate(NOW),
            authorization_url: "https://ca.example/authz/1".into(),
            url: "https://ca.example/chall/1".into(),
            domain: "a.example.com".into(),
            wildcard: false,
            kind: Kind::Http01,
            solver: 0,
            token: "token-1".into(),
            key_authorization: "token-1.thumbprint".into(),
            state: challenge::State::Pending,
            record: None,
            clean: false,
            tries: 0,
            reason: None,
            observations: Vec::new(),
            next_action_at: Some(NOW),
            deadline: NOW + ORDER_DEADLINE,
        }],
        tries: 0,
        stalled_since: None,
        attempts: 0,
        last_error: None,
        created_at: NOW,
        handed_out_at: NOW,
        next_action_at: Some(NOW),
        deadline: NOW + ORDER_DEADLINE,
    }
}

fn revision(certificate: &Certificate, order: &Order, number: i64) -> Revision {
    Revision {
        certificate: certificate.id,
        revision: number,
        request: order.request,
        order: order.id,
        chain: "PEM".into(),
        serial: format!("{number:02x}"),
        fingerprint: "f".into(),
        not_before: NOW,
        not_after: NOW + Duration::days(90),
        issued_at: NOW,
        revoked_at: None,
    }
}
