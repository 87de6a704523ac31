//! The first start creates things once, however many replicas start at the same moment.

use certwright::bootstrap;
use certwright::clock::{Clock as _, SystemClock};
use certwright::config::{self, Config};
use certwright::domain::api_key::{self, ApiKey};
use certwright::storage::{Db, Page, Scope, api_keys};
use futures_util::future::join_all;

use crate::support::databases::on_both_databases;

on_both_databases! {
    async fn of_many_first_starts_one_makes_the_admin_key(db: Db) {
        let config = config(&[]);

        let made = join_all((0..12).map(|_| bootstrap::first_api_key(&db, &config, &SystemClock))).await;

        let keys: Vec<_> = made.into_iter().filter_map(Result::unwrap).collect();
        assert_eq!(keys.len(), 1);
        let mut tx = db.read().await.unwrap();
        let hash = api_key::hash_key(keys[0].expose());
        let (key, _) = api_keys::find_by_hash(&mut tx, &hash).await.unwrap().unwrap();
        assert_eq!((key.permissions.as_slice(), key.scope), (["*".to_owned()].as_slice(), Scope::Everything));
    }

    async fn another_recovery_key_ends_the_former_one(db: Db) {
        let [one, other] = [1, 2].map(|_| api_key::generate_key().unwrap().expose().clone());
        start(&db, &[("bootstrap.api_key", &one)]).await.unwrap();
        assert_eq!(permissions(&db, &one).await, Some(vec!["*".to_owned()]));

        start(&db, &[("bootstrap.api_key", &other)]).await.unwrap();
        assert_eq!(permissions(&db, &one).await, None);
        assert_eq!(permissions(&db, &other).await, Some(vec!["*".to_owned()]));

        // Without the setting it stays, and ends with the next value all the same.
        start(&db, &[]).await.unwrap();
        assert!(permissions(&db, &other).await.is_some());
        start(&db, &[("bootstrap.api_key", &one)]).await.unwrap();
        assert_eq!(permissions(&db, &other).await, None);
        assert!(permissions(&db, &one).await.is_some());
    }

    async fn a_recovery_key_that_was_deleted_comes_back_only_when_it_is_asked_for(db: Db) {
        let [one, other] = [1, 2].map(|_| api_key::generate_key().unwrap().expose().clone());
        let settings = [("bootstrap.api_key", one.as_str())];
        start(&db, &settings).await.unwrap();
        delete(&db, &one).await;

        start(&db, &settings).await.unwrap();
        assert_eq!(permissions(&db, &one).await, None);
        let restore = [settings[0], ("bootstrap.restore", "true")];
        start(&db, &restore).await.unwrap();
        assert!(permissions(&db, &one).await.is_some());

        delete(&db, &one).await;
        start(&db, &[("bootstrap.api_key", &other)]).await.unwrap();
        assert!(permissions(&db, &other).await.is_some(), "it was changed");
        start(&db, &settings).await.unwrap();
        assert!(permissions(&db, &one).await.is_some(), "it was changed again");
    }

    async fn of_many_starts_with_one_recovery_key_none_fails(db: Db) {
        let key = api_key::generate_key().unwrap().expose().clone();
        let settings = config(&[("bootstrap.api_key", &key)]);

        let started = join_all((0..8).map(|_| bootstrap::first_api_key(&db, &settings, &SystemClock))).await;

        assert!(started.iter().all(|start| matches!(start, Ok(None))), "{started:?}");
        let mut tx = db.read().await.unwrap();
        let all = api_keys::list(&mut tx, &Scope::Everything, None, Page::first(10)).await.unwrap().rows;
        assert_eq!(all.len(), 1);
    }

    async fn a_key_that_may_do_less_is_no_recovery_key(db: Db) {
        let value = api_key::generate_key().unwrap().expose().clone();
        let mut tx = db.begin();
        let lesser = ApiKey::new("ci", vec!["certificates:read".into()], Scope::Everything, SystemClock.now());
        api_keys::insert(&mut tx, &lesser, &api_key::hash_key(&value)).await.unwrap();
        tx.commit().await.unwrap();

        let refused = start(&db, &[("bootstrap.api_key", &value)]).await.unwrap_err().to_string();
        assert!(refused.contains("exists already"), "{refused}");
    }

    async fn every_replica_has_the_same_installation_name(db: Db) {
        let names = join_all((0..6).map(|_| bootstrap::installation_id(&db))).await;

        let names: Vec<_> = names.into_iter().map(Result::unwrap).collect();
        assert!(names.iter().all(|name| *name == names[0] && name.len() == 8), "{names:?}");
    }

    async fn another_master_key_is_refused_from_the_start(db: Db) {
        let first = config(&[("master_key", "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=")]);
        let other = config(&[("master_key", "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=")]);
        bootstrap::master_key(&first, &db).await.unwrap();

        bootstrap::master_key(&first, &db).await.unwrap();
        let refused = bootstrap::master_key(&other, &db).await.err().unwrap().to_string();
        assert!(refused.contains("not the one"), "{refused}");
    }
}

async fn start(db: &Db, settings: &[(&str, &str)]) -> Result<(), bootstrap::BootstrapError> {
    bootstrap::first_api_key(db, &config(settings), &SystemClock).await.map(|_| ())
}

async fn find(db: &Db, value: &str) -> Option<ApiKey> {
    let mut tx = db.read().await.unwrap();
    let found = api_keys::find_by_hash(&mut tx, &api_key::hash_key(value)).await.unwrap();
    found.map(|(key, _)| key)
}

async fn permissions(db: &Db, value: &str) -> Option<Vec<String>> {
    find(db, value).await.map(|key| key.permissions)
}

async fn delete(db: &Db, value: &str) {
    let key = find(db, value).await.unwrap();
    let mut tx = db.begin();
    api_keys::delete(&mut tx, key.id).await.unwrap();
    tx.commit().await.unwrap();
}

fn config(settings: &[(&str, &str)]) -> Config {
    let folder = std::env::temp_dir().join("certwright-no-such-folder").display().to_string();
    let mut given = vec![("data_dir".to_owned(), folder)];
    given.extend(settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    Config::parse(&config::read(None, [], &given).unwrap()).unwrap()
}
