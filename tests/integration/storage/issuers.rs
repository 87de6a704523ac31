//! Issuers and their accounts, on both databases.

use certwright::domain::certificate::{Certificate, State, Transition, Trigger};
use certwright::domain::id::{PolicyReviewId, SecretId};
use certwright::domain::issuer::{self, Account, Issuer};
use certwright::secret::Sealed;
use certwright::storage::lease::{self, Machine};
use certwright::storage::secrets::{self, SecretEntry};
use certwright::storage::{
    Scope, StorageError, certificates, issuers, orders, policy_reviews, sealed_columns,
};
use time::Duration;

use super::rows::{NOW, all, certificate, is_lost, issuer, now, page, under_way};
use crate::support::databases::on_both_databases;

on_both_databases! {
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

    async fn once_more_it_wakes_only_those_who_still_wait(db: Db) {
        let mut tx = db.begin();
        let mut begun = certificate("begun");
        begun.state = State::AwaitingIssuer(Trigger::DoesNotExist);
        certificates::insert(&mut tx, &begun).await.unwrap();
        let taken = lease::claim(&mut tx, Machine::Certificate, "test", NOW, 9).await.unwrap();
        assert_eq!(taken.len(), 1);
        let mut ids = Vec::new();
        for (name, state, at) in [
            ("at-work", State::Triggered(Trigger::DoesNotExist), NOW + Duration::hours(1)),
            ("woken", State::AwaitingIssuer(Trigger::DoesNotExist), NOW - Duration::seconds(5)),
            ("late", State::AwaitingIssuer(Trigger::DoesNotExist), NOW + Duration::minutes(5)),
        ] {
            let mut one = certificate(name);
            (one.state, one.next_action_at) = (state, at);
            certificates::insert(&mut tx, &one).await.unwrap();
            ids.push((one.id, at));
        }

        let kind = issuer::Kind::ClusterIssuer;
        let others = certificates::wake_still_waiting(&mut tx, kind, "", "other", NOW).await.unwrap();
        let woken = certificates::wake_still_waiting(&mut tx, kind, "", "le", NOW).await.unwrap();

        assert_eq!((others, woken), (0, 1));
        ids[2].1 = NOW;
        for (id, at) in ids {
            let (found, _) = certificates::find(&mut tx, id, &all()).await.unwrap().unwrap();
            assert_eq!(found.next_action_at, at, "{}", found.name);
        }
        let (_, lease) = certificates::find(&mut tx, begun.id, &all()).await.unwrap().unwrap();
        assert_eq!(lease, taken[0], "its step goes on");
    }

    async fn with_another_ca_what_was_approved_is_so_no_longer_also_for_who_is_at_it(db: Db) {
        let at = now(&db).await;
        let mut tx = db.begin();
        let approved = |name: &str| Certificate { approved: Some(1), ..certificate(name) };
        let (held, mut resting, mut other) = (approved("held"), approved("resting"), approved("other"));
        certificates::insert(&mut tx, &held).await.unwrap();
        tx.commit().await.unwrap();
        let mut tx = db.begin();
        let leases = lease::claim(&mut tx, Machine::Certificate, "test", at, 9).await.unwrap();
        assert_eq!(leases.len(), 1);
        (resting.state, resting.next_action_at) = (State::Backoff, at + Duration::days(9));
        other.spec.issuer_ref.name = "other".into();
        other.next_action_at = at + Duration::days(9);
        for one in [&resting, &other] {
            certificates::insert(&mut tx, one).await.unwrap();
        }

        let kind = issuer::Kind::ClusterIssuer;
        certificates::disapprove(&mut tx, kind, "", "le", at).await.unwrap();

        for (id, approved, wakes_at) in [
            (held.id, None, at), (resting.id, None, at + Duration::days(9)), (other.id, Some(1), at + Duration::days(9)),
        ] {
            let (found, _) = certificates::find(&mut tx, id, &all()).await.unwrap().unwrap();
            assert_eq!((found.approved, found.next_action_at), (approved, wakes_at), "{}", found.name);
        }
        let late = certificates::save(&mut tx, &Transition::silent(held, at), &leases[0], None).await;
        assert!(is_lost(&mut tx, late).await, "its step is taken anew");
    }

    async fn an_issuer_that_waits_can_be_woken_and_one_that_is_worked_on_is_left_alone(db: Db) {
        let at = now(&db).await;
        let mut tx = db.begin();
        let (mut waits, mut works) = (issuer(), issuer());
        works.name = "works".into();
        waits.next_action_at = Some(at + Duration::days(1));
        works.next_action_at = Some(at);
        for one in [&waits, &works] {
            issuers::insert(&mut tx, one, &Sealed(vec![1])).await.unwrap();
        }
        tx.commit().await.unwrap();
        let mut tx = db.begin();
        let held = lease::claim(&mut tx, Machine::Issuer, "test", at, 9).await.unwrap();
        assert_eq!(held.len(), 1, "the other one is not due");

        for one in [&waits, &works] {
            issuers::wake(&mut tx, one.id, at).await.unwrap();
        }

        let (woken, _) = issuers::find(&mut tx, waits.id, &all()).await.unwrap().unwrap();
        assert_eq!(woken.next_action_at, Some(at));
        let (left, lease) = issuers::find(&mut tx, works.id, &all()).await.unwrap().unwrap();
        assert!(left.next_action_at > Some(at), "its lease goes on");
        assert_eq!(lease, held[0]);
    }

    async fn a_changed_issuer_has_its_certificates_reviewed(db: Db) {
        let at = now(&db).await;
        for (kind, namespace, reviewed) in [(issuer::Kind::Issuer, "team", "team"), (issuer::Kind::ClusterIssuer, "", "*")] {
            let mut tx = db.begin();
            policy_reviews::begin_for_issuer(&mut tx, kind, namespace, at).await.unwrap();
            tx.commit().await.unwrap();
            let mut tx = db.begin();
            let held = lease::claim(&mut tx, Machine::PolicyReview, "test", at, 9).await.unwrap().remove(0);
            let found = policy_reviews::find(&mut tx, PolicyReviewId(held.id)).await.unwrap().unwrap();
            assert_eq!(found.namespace, reviewed);
            policy_reviews::settle(&mut tx, &held, None, at).await.unwrap();
            tx.commit().await.unwrap();
        }
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
        tx.commit().await.unwrap();
        let mut late = db.begin();
        issuers::save(&mut late, &ready, &lease).await.unwrap();
        assert!(matches!(late.commit().await, Err(StorageError::LeaseLost(_))), "fenced");
        let mut tx = db.begin();
        assert_eq!(issuers::of_namespace(&mut tx, "team").await.unwrap().len(), 1);
        let wanted = issuers::Wanted { kind: Some(kind), name: Some("le".into()), namespace: None };
        let ours = Scope::Namespaces(vec!["team".into()]);
        assert_eq!(issuers::list(&mut tx, &ours, &wanted, page()).await.unwrap().rows, [ready.issuer]);
        issuers::delete(&mut tx, one.id).await.unwrap();
        assert!(issuers::find(&mut tx, one.id, &all()).await.unwrap().is_none());
        assert!(issuers::with_account_key(&mut tx, one.id).await.unwrap().is_none());
    }

    async fn cached_issuers_and_secrets_are_read_as_they_are_after_a_change(db: Db) {
        let (first, key) = (issuer(), Sealed(vec![1]));
        let mut entry = SecretEntry {
            id: SecretId::generate(NOW), namespace: "default".into(), name: "token".into(),
            keys: vec!["api-token".into()], created_at: NOW, updated_at: NOW,
        };
        let by_name = || issuers::cached_by_name(&db, first.kind, "default", &first.name);
        assert_eq!(by_name().await.unwrap(), None);
        let mut tx = db.begin();
        issuers::insert(&mut tx, &first, &key).await.unwrap();
        secrets::insert(&mut tx, &entry, &Sealed(vec![2])).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(by_name().await.unwrap(), Some(first.clone()));
        assert_eq!(issuers::cached_with_account_key(&db, first.id).await.unwrap(), Some((first.clone(), key)));
        let known = secrets::cached_data(&db, "default", "token").await.unwrap();
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
        let cached = issuers::cached_with_account_key(&db, first.id).await.unwrap();
        assert_eq!(cached, Some((changed, Sealed(vec![3]))));
        let known = secrets::cached_data(&db, "default", "token").await.unwrap();
        assert_eq!(known, Some((entry.id, Sealed(vec![4]))));
        let mut tx = db.begin();
        secrets::delete(&mut tx, entry.id).await.unwrap();
        issuers::delete(&mut tx, first.id).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(secrets::cached_data(&db, "default", "token").await.unwrap(), None);
        assert_eq!(by_name().await.unwrap(), None);
        assert_eq!(issuers::cached_with_account_key(&db, first.id).await.unwrap(), None);
    }

    async fn an_accounts_next_key_waits_beside_the_present_one(db: Db) {
        let mut tx = db.begin();
        let mut issuer = issuer();
        issuers::insert(&mut tx, &issuer, &Sealed(vec![1])).await.unwrap();
        let (_, lease) = issuers::find(&mut tx, issuer.id, &all()).await.unwrap().unwrap();
        issuer.account_change = Some(issuer::AccountChange::Deactivating { since: NOW, then_delete: true });
        let saved = issuer::Transition::silent(issuer.clone(), NOW);
        issuers::save(&mut tx, &saved, &lease).await.unwrap();
        assert_eq!(issuers::find(&mut tx, issuer.id, &all()).await.unwrap().unwrap().0, issuer);

        issuers::set_next_account_key(&mut tx, issuer.id, Some(&Sealed(vec![2]))).await.unwrap();
        let next = issuers::next_account_key(&mut tx, issuer.id).await.unwrap();
        assert_eq!(next, Some(Sealed(vec![2])));
        let nexts = sealed_columns::list(&mut tx, &sealed_columns::COLUMNS[6], (uuid::Uuid::nil(), i64::MIN), 9).await.unwrap();
        assert_eq!((nexts.len(), &nexts[0].sealed), (1, &Sealed(vec![2])));
        assert_eq!(issuers::account_key(&mut tx, issuer.id).await.unwrap(), Sealed(vec![1]));
        issuers::set_account_key(&mut tx, issuer.id, &Sealed(vec![3])).await.unwrap();
        assert_eq!(issuers::account_key(&mut tx, issuer.id).await.unwrap(), Sealed(vec![3]));
        assert_eq!(issuers::next_account_key(&mut tx, issuer.id).await.unwrap(), None);
    }
}
