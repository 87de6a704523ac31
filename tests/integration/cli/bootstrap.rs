//! The first start creates things once, however many replicas start at the same moment.

use certwright::bootstrap;
use certwright::clock::SystemClock;
use certwright::config::{self, Config};
use certwright::domain::api_key;
use certwright::storage::{Scope, api_keys};
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
        let key = api_keys::find_by_hash(&mut tx, &hash).await.unwrap().unwrap();
        assert_eq!((key.permissions.as_slice(), key.scope), (["*".to_owned()].as_slice(), Scope::Everything));
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

fn config(settings: &[(&str, &str)]) -> Config {
    let folder = std::env::temp_dir().join("certwright-no-such-folder").display().to_string();
    let mut given = vec![("data_dir".to_owned(), folder)];
    given.extend(settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    Config::parse(&config::read(None, [], &given).unwrap()).unwrap()
}
