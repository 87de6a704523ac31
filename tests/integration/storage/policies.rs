//! Policies and their reviews, on both databases.

use std::sync::Arc;

use certwright::domain::certificate::{Certificate, IssuerRef};
use certwright::domain::id::{CertificateId, PolicyId, PolicyReviewId};
use certwright::domain::issuer::Kind;
use certwright::domain::policy::{
    AdmittedBy, Approval, Keys, NameRule, Policies, Policy, Spec, Verdict, WantedKey, Wish,
};
use certwright::storage::lease::{self, Machine};
use certwright::storage::{Db, StorageError, certificates, policies, policy_reviews};
use time::Duration;

use super::rows::{NOW, all, certificate, now, page};
use crate::support::databases::{on_both_databases, open};
use crate::support::postgres::fresh_database;

fn policy(name: &str, namespaces: &[&str]) -> Policy {
    Policy {
        id: PolicyId::generate(NOW),
        name: name.into(),
        spec: Spec {
            namespaces: namespaces.iter().map(|name| (*name).to_owned()).collect(),
            names: vec![NameRule { pattern: "**.example.com".into(), wildcards: false }],
            issuers: vec![IssuerRef { name: "le".into(), kind: Kind::ClusterIssuer }],
            keys: Keys::default(),
            max_names: 100,
            approval: Approval::Auto,
        },
        generation: 1,
        created_at: NOW,
        updated_at: NOW,
    }
}

/// The policy that allows `a.example.com`, if one does.
fn allowing(policies: &Policies) -> Option<String> {
    let spec = certificate("web").spec;
    match policies.judge(&Wish::of(&spec, WantedKey::from(&spec.private_key))) {
        Verdict::Allowed { policy, .. } => Some(policy),
        Verdict::Refused(_) => None,
    }
}

async fn insert(db: &Db, policy: &Policy) {
    let mut tx = db.begin();
    policies::insert(&mut tx, policy).await.unwrap();
    tx.commit().await.unwrap();
}

on_both_databases! {
    async fn policies_are_found_by_name_and_by_the_namespaces_that_they_are_for(db: Db) {
        let (team, every) = (policy("team", &["team", "other"]), policy("every", &["*"]));
        insert(&db, &team).await;
        insert(&db, &every).await;
        let mut tx = db.read().await.unwrap();
        assert_eq!(policies::find(&mut tx, team.id).await.unwrap(), Some(team.clone()));
        assert_eq!(policies::find_by_name(&mut tx, "every").await.unwrap(), Some(every.clone()));
        assert_eq!(policies::find_by_name(&mut tx, "none").await.unwrap(), None);
        for (name, namespace, found) in [
            (None, None, vec![&team, &every]), (None, Some("other"), vec![&team, &every]), (None, Some("third"), vec![&every]),
            (Some("team"), None, vec![&team]), (Some("team"), Some("third"), vec![]),
        ] {
            let wanted = policies::Wanted { name: name.map(str::to_owned), namespace: namespace.map(str::to_owned) };
            let listed = policies::list(&mut tx, &wanted, page()).await.unwrap().rows;
            assert_eq!(listed.iter().collect::<Vec<_>>(), found, "{name:?} {namespace:?}");
        }
        assert_eq!(allowing(&policies::of_namespace(&mut tx, "team").await.unwrap()).as_deref(), Some("every"));
        drop(tx);
        let mut twice = db.begin();
        let again = policies::insert(&mut twice, &policy("team", &["a"])).await;
        let taken = match again { Ok(()) => twice.commit().await.map(drop), Err(error) => Err(error) };
        assert!(matches!(taken, Err(StorageError::Conflict)), "{taken:?}");
    }

    async fn a_policy_that_was_changed_meanwhile_is_neither_changed_nor_withdrawn(db: Db) {
        let first = policy("team", &["team"]);
        insert(&db, &first).await;
        let next = Policy {
            spec: Spec { namespaces: vec!["other".into()], ..first.spec.clone() },
            generation: 2, updated_at: NOW + Duration::minutes(1), ..first.clone()
        };
        let mut tx = db.begin();
        policies::respecify(&mut tx, &first, &next).await.unwrap();
        tx.commit().await.unwrap();

        let mut tx = db.begin();
        assert_eq!(policies::find(&mut tx, first.id).await.unwrap(), Some(next.clone()));
        assert!(matches!(policies::respecify(&mut tx, &first, &next).await, Err(StorageError::LeaseLost(_))));
        assert!(matches!(policies::delete(&mut tx, &first, NOW).await, Err(StorageError::LeaseLost(_))));
        policies::delete(&mut tx, &next, NOW).await.unwrap();
        assert_eq!(policies::find(&mut tx, first.id).await.unwrap(), None);
    }

    async fn policies_that_were_recalled_are_recalled_as_they_are_after_a_change(db: Db) {
        let recalled = async || allowing(&policies::cached(&db, "team").await.unwrap());
        assert_eq!(recalled().await, None);
        let first = policy("team", &["team"]);
        insert(&db, &first).await;
        assert_eq!(recalled().await.as_deref(), Some("team"));
        let elsewhere = Policy {
            spec: Spec { namespaces: vec!["other".into()], ..first.spec.clone() }, generation: 2, ..first.clone()
        };
        let mut tx = db.begin();
        policies::respecify(&mut tx, &first, &elsewhere).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(recalled().await, None);
        assert_eq!(allowing(&policies::cached(&db, "other").await.unwrap()).as_deref(), Some("team"));
        let mut tx = db.begin();
        policies::delete(&mut tx, &elsewhere, NOW).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(allowing(&policies::cached(&db, "other").await.unwrap()), None);
    }

    async fn each_change_begins_a_review_of_its_namespaces_anew(db: Db) {
        let at = now(&db).await;
        let first = policy("team", &["team"]);
        insert(&db, &first).await;
        let claim = async || {
            let mut tx = db.begin();
            let leases = lease::claim(&mut tx, Machine::PolicyReview, "test", at, 9).await.unwrap();
            tx.commit().await.unwrap();
            leases
        };
        let held = claim().await.remove(0);
        let id = PolicyReviewId(held.id);
        let read = async || policy_reviews::find(&mut db.read().await.unwrap(), id).await.unwrap();
        assert_eq!(read().await.map(|one| (one.namespace, one.reviewed_to)), Some(("team".into(), None)));
        let last = CertificateId::generate(NOW);
        let mut tx = db.begin();
        policy_reviews::settle(&mut tx, &held, Some(last), at).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(read().await.and_then(|one| one.reviewed_to), Some(last));

        let next = claim().await.remove(0);
        let everywhere = Policy {
            spec: Spec { namespaces: vec!["*".into()], ..first.spec.clone() }, generation: 2, updated_at: at, ..first.clone()
        };
        let mut tx = db.begin();
        policies::respecify(&mut tx, &first, &everywhere).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(read().await.and_then(|one| one.reviewed_to), None, "from the beginning");
        let mut tx = db.begin();
        let late = policy_reviews::settle(&mut tx, &next, None, at).await;
        assert!(matches!(late, Err(StorageError::LeaseLost(_))), "it has judged by what held before");
        drop(tx);

        let both = claim().await;
        assert_eq!(both.len(), 2, "the namespace of before, and every one");
        for held in &both {
            let mut tx = db.begin();
            policy_reviews::settle(&mut tx, held, None, at).await.unwrap();
            tx.commit().await.unwrap();
        }
        assert_eq!((read().await, claim().await.len()), (None, 0));
    }

    async fn certificates_keep_by_what_right_they_are_there(db: Db) {
        let mut tx = db.begin();
        for (name, right) in [
            ("a", AdmittedBy::Policy("team".into())), ("b", AdmittedBy::Administrator("admin".into())), ("c", AdmittedBy::Upgrade("before".into())),
        ] {
            let wanted = Certificate { admitted_by: right, ..certificate(name) };
            certificates::insert(&mut tx, &wanted).await.unwrap();
            let (found, _) = certificates::find(&mut tx, wanted.id, &all()).await.unwrap().unwrap();
            assert_eq!(found, wanted);
            let wanted = certificates::Wanted { admitted_way: Some(found.admitted_by.parts().0), ..Default::default() };
            assert_eq!(certificates::list(&mut tx, &all(), &wanted, page()).await.unwrap().rows, [found]);
        }
    }
}

/// Nothing is remembered where another replica may withdraw a policy.
#[tokio::test]
async fn a_policy_that_one_replica_withdraws_counts_for_none_at_the_others() {
    let url = fresh_database().await;
    let (one, other) = (open(&url).await, open(&url).await);
    let policy = policy("team", &["team"]);
    insert(&one, &policy).await;
    let recalled: Arc<Policies> = policies::cached(&other, "team").await.unwrap();
    assert_eq!(allowing(&recalled).as_deref(), Some("team"));

    let mut tx = one.begin();
    policies::delete(&mut tx, &policy, NOW).await.unwrap();
    tx.commit().await.unwrap();

    assert_eq!(allowing(&policies::cached(&other, "team").await.unwrap()), None);
}
