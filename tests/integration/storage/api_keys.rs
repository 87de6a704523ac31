//! API keys and their values, on both databases.

use std::sync::Arc;

use certwright::domain::api_key::{ApiKey, Rotation, Value};
use certwright::domain::principal::{PrincipalKind, PrincipalRef};
use certwright::domain::role::Role;
use certwright::storage::{Scope, api_keys, settings};
use time::Duration;

use super::rows::{NOW, page};
use crate::support::databases::on_both_databases;

on_both_databases! {
    async fn an_api_key_is_found_by_its_hash_with_all_that_it_has(db: Db) {
        let mut tx = db.begin();
        assert!(!api_keys::any(&mut tx).await.unwrap());
        let creator = PrincipalRef { kind: PrincipalKind::Token, id: Some(uuid::Uuid::nil()), name: "repo:org/web".into() };
        let key = ApiKey {
            description: Some("deploys".into()), role: Some(Role::Requester),
            expires_at: Some(NOW + Duration::days(1)), created_by: Some(creator),
            ..ApiKey::new("ci", vec!["secrets:write".into()], team(), NOW)
        };

        assert!(api_keys::insert(&mut tx, &key, &[7; 32]).await.unwrap());
        assert!(!api_keys::insert(&mut tx, &key, &[7; 32]).await.unwrap(), "once");
        let found = api_keys::find_by_hash(&mut tx, &[7; 32]).await.unwrap();
        assert_eq!(found, Some((key.clone(), Value::Current)));
        assert_eq!(api_keys::find(&mut tx, key.id).await.unwrap().as_ref(), Some(&key));
        assert_eq!(api_keys::find_by_hash(&mut tx, &[8; 32]).await.unwrap(), None);
        assert!(api_keys::any(&mut tx).await.unwrap());
        api_keys::delete(&mut tx, key.id).await.unwrap();
        assert_eq!(api_keys::find(&mut tx, key.id).await.unwrap(), None);
    }

    async fn api_keys_are_listed_by_name_and_by_what_one_may_see(db: Db) {
        let mut tx = db.begin();
        let keys = [("a", team()), ("b", Scope::Everything), ("a", Scope::Everything)]
            .map(|(name, scope)| ApiKey::new(name, vec!["*".into()], scope, NOW));
        for (number, key) in (0..).zip(&keys) {
            api_keys::insert(&mut tx, key, &[number; 32]).await.unwrap();
        }
        let [first, second, third] = keys;

        let all = Scope::Everything;
        let listed = api_keys::list(&mut tx, &all, None, page()).await.unwrap().rows;
        assert_eq!(listed, [first.clone(), second, third.clone()]);
        assert_eq!(api_keys::list(&mut tx, &all, Some("a"), page()).await.unwrap().rows, [first.clone(), third]);
        assert_eq!(api_keys::list(&mut tx, &team(), Some("a"), page()).await.unwrap().rows, [first]);
        assert_eq!(api_keys::list(&mut tx, &team(), Some("b"), page()).await.unwrap().rows, []);
    }

    async fn an_api_key_has_two_values_at_most(db: Db) {
        let mut tx = db.begin();
        let key = ApiKey::new("ci", vec!["*".into()], Scope::Everything, NOW);
        api_keys::insert(&mut tx, &key, &[1; 32]).await.unwrap();
        let rotation = |days| Rotation { rotated_at: NOW, former_until: Some(NOW + Duration::days(days)) };
        let value = async |tx: &mut certwright::storage::Tx, number: u8| {
            let found = api_keys::find_by_hash(tx, &[number; 32]).await.unwrap();
            found.map(|(key, value)| (value, key.rotation))
        };

        api_keys::rotate(&mut tx, key.id, &[2; 32], rotation(1)).await.unwrap();
        assert_eq!(value(&mut tx, 1).await, Some((Value::Former, Some(rotation(1)))));
        assert_eq!(value(&mut tx, 2).await, Some((Value::Current, Some(rotation(1)))));

        api_keys::rotate(&mut tx, key.id, &[3; 32], rotation(2)).await.unwrap();
        assert_eq!(value(&mut tx, 1).await, None, "the one before the former one ends");
        assert_eq!(value(&mut tx, 2).await, Some((Value::Former, Some(rotation(2)))));

        let at_once = Rotation { rotated_at: NOW, former_until: None };
        api_keys::rotate(&mut tx, key.id, &[4; 32], at_once).await.unwrap();
        assert_eq!((value(&mut tx, 2).await, value(&mut tx, 3).await), (None, None));
        assert_eq!(value(&mut tx, 4).await, Some((Value::Current, Some(at_once))));
    }

    async fn the_last_use_of_an_api_key_goes_forward_only_and_with_the_key(db: Db) {
        let mut tx = db.begin();
        let key = ApiKey::new("ci", vec!["*".into()], Scope::Everything, NOW);
        api_keys::insert(&mut tx, &key, &[1; 32]).await.unwrap();
        let tomorrow = NOW + Duration::days(1);

        for day in [NOW, tomorrow, NOW] {
            api_keys::used(&mut tx, key.id, day).await.unwrap();
        }
        let found = api_keys::find(&mut tx, key.id).await.unwrap().unwrap();
        assert_eq!(found.last_used_at, Some(tomorrow));
        api_keys::delete(&mut tx, key.id).await.unwrap();
        api_keys::used(&mut tx, key.id, tomorrow).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn an_api_key_is_recognised_from_the_commit_on_that_made_it(db: Db) {
        let key = |name: &str| ApiKey::new(name, vec!["*".into()], Scope::Everything, NOW);
        for (hash, key) in [([7; 32], key("first")), ([8; 32], key("second"))] {
            assert_eq!(api_keys::recognise(&db, &hash).await.unwrap(), None);
            let mut tx = db.begin();
            api_keys::insert(&mut tx, &key, &hash).await.unwrap();
            tx.commit().await.unwrap();

            for _ in 0..2 {
                let found = api_keys::recognise(&db, &hash).await.unwrap();
                assert_eq!(found, Some((Arc::new(key.clone()), Value::Current)));
            }
        }
    }

    async fn the_configured_key_is_known_by_its_hash(db: Db) {
        let mut tx = db.begin();
        let [one, other] = ["one", "other"].map(|name| ApiKey::new(name, vec!["*".into()], Scope::Everything, NOW));
        api_keys::insert(&mut tx, &one, &[1; 32]).await.unwrap();
        api_keys::insert(&mut tx, &other, &[2; 32]).await.unwrap();
        assert!(!api_keys::is_configured(&mut tx, one.id).await.unwrap());

        settings::insert(&mut tx, api_keys::CONFIGURED, &[1; 32]).await.unwrap();
        assert!(api_keys::is_configured(&mut tx, one.id).await.unwrap());
        assert!(!api_keys::is_configured(&mut tx, other.id).await.unwrap());
    }
}

fn team() -> Scope {
    Scope::Namespaces(vec!["team".into()])
}
