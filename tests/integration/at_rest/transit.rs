//! A master key that the transit engine of a real OpenBao wraps.

use std::time::Duration;

use certwright::bootstrap::{self, BootstrapError};
use certwright::config::{self, Config};
use certwright::secret::{Place, Sealer, Secret};
use certwright::storage::{Db, settings};
use certwright::transit::{Transit, TransitError};

use super::on_both;
use crate::support::openbao::OpenBao;

/// Tries without a pause.
const TRIES: [Duration; 2] = [Duration::ZERO; 2];

#[tokio::test]
async fn a_master_key_that_openbao_has_wrapped_is_in_no_file_and_opens_what_it_sealed() {
    let bao = OpenBao::start().await;
    let token = bao.file("token", &format!("{}\n", bao.token().await));
    let settings = [("transit.token_file", token.to_str().unwrap())];
    let (bao, settings) = (&bao, &settings);
    on_both(|url| async move {
        let (folder, config) = config(bao, settings);
        let db = Db::connect(&url).await.unwrap();

        // Two replicas start at once, for the first time.
        let (one, other) =
            tokio::join!(bootstrap::master_key(&config, &db), bootstrap::master_key(&config, &db));
        let (one, other) = (one.unwrap(), other.unwrap());
        let sealed = one.seal(&place(), b"key").unwrap();
        assert_eq!(other.open(&place(), &sealed).unwrap().expose(), b"key", "both have the same");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "no file was made");
        let before = wrapped(&db).await;
        assert!(before.starts_with("vault:v"), "{before}");

        bao.ask("transit/keys/certwright/rotate", &serde_json::json!({})).await;
        bootstrap::rewrap_master_key(&config, &db).await.unwrap();
        let after = wrapped(&db).await;
        assert_ne!(version(&after), version(&before), "under the engine's latest key");
        let again = bootstrap::master_key(&config, &db).await.unwrap();
        assert_eq!(again.open(&place(), &sealed).unwrap().expose(), b"key");

        let without = local(folder.path(), None);
        let refused = bootstrap::master_key(&without, &db).await;
        assert!(matches!(refused, Err(BootstrapError::Wrapped)), "{:?}", refused.err());
        db.close().await;
    })
    .await;
}

#[tokio::test]
async fn the_local_key_of_before_is_wrapped_by_the_first_start_and_needed_no_more() {
    let bao = OpenBao::start().await;
    let (role, secret) = bao.app_role().await;
    let secret = bao.file("secret-id", &secret);
    let settings =
        [("transit.role_id", role.as_str()), ("transit.secret_id_file", secret.to_str().unwrap())];
    let (bao, settings) = (&bao, &settings);
    on_both(|url| async move {
        let db = Db::connect(&url).await.unwrap();
        let key = Sealer::generate().unwrap();
        let (folder, transit) = config(bao, settings);
        let before = bootstrap::master_key(&local(folder.path(), Some(&key)), &db).await.unwrap();
        let sealed = before.seal(&place(), b"key").unwrap();

        let refused = bootstrap::master_key(&transit, &db).await;
        assert!(matches!(refused, Err(BootstrapError::NothingToWrap)), "{:?}", refused.err());
        let other = Sealer::generate().unwrap();
        let (_folder, wrong) =
            config(bao, &[&settings[..], &[("master_key", other.expose().as_str())]].concat());
        let refused = bootstrap::master_key(&wrong, &db).await;
        assert!(matches!(refused, Err(BootstrapError::WrongKey)), "{:?}", refused.err());

        let (_folder, both) =
            config(bao, &[&settings[..], &[("master_key", key.expose().as_str())]].concat());
        bootstrap::master_key(&both, &db).await.unwrap();
        let after = bootstrap::master_key(&transit, &db).await.unwrap();
        assert_eq!(after.open(&place(), &sealed).unwrap().expose(), b"key");
        db.close().await;
    })
    .await;
}

#[tokio::test]
async fn whoever_starts_without_the_engine_hears_what_is_wrong_and_what_to_do() {
    let bao = OpenBao::start().await;
    let token = bao.file("token", &bao.token().await);
    let (_folder, config) = config(&bao, &[("transit.token_file", token.to_str().unwrap())]);
    let settings = config.transit.clone().unwrap();
    let ask = async |settings: &config::Transit| {
        let transit = Transit::new(settings.clone(), &TRIES).unwrap();
        transit.wrap(&Secret::new("key".to_owned())).await
    };
    assert!(ask(&settings).await.is_ok());

    let other_key = config::Transit { key: "other".into(), ..settings.clone() };
    let refused = ask(&other_key).await.unwrap_err();
    assert!(matches!(refused, TransitError::Refused { .. }), "{refused:?}");
    assert!(refused.to_string().contains("`transit.key`"), "{refused}");
    std::fs::write(&token, "no token").unwrap();
    assert!(matches!(ask(&settings).await, Err(TransitError::Refused { .. })));
    std::fs::remove_file(&token).unwrap();
    assert!(matches!(ask(&settings).await, Err(TransitError::File(..))));

    std::fs::write(&token, bao.token().await).unwrap();
    bao.seal().await;
    let sealed = ask(&settings).await.unwrap_err();
    assert!(matches!(sealed, TransitError::NotReady { tries: 3, .. }), "{sealed:?}");
    assert!(sealed.to_string().contains("unseal it"), "{sealed}");

    // Nobody listens there.
    let address = "http://127.0.0.1:9".parse().unwrap();
    let away = ask(&config::Transit { address, ..settings }).await.unwrap_err();
    assert!(matches!(away, TransitError::Away { tries: 3, .. }), "{away:?}");
    assert!(away.to_string().contains("`transit.address` is right"), "{away}");
}

fn place() -> Place {
    Place::new("secrets/data/1".to_owned(), "team")
}

async fn wrapped(db: &Db) -> String {
    let found = settings::find(&mut db.read().await.unwrap(), "wrapped_master_key").await.unwrap();
    String::from_utf8(found.unwrap()).unwrap()
}

/// `v1` of `vault:v1:…`.
fn version(wrapped: &str) -> Option<&str> {
    wrapped.split(':').nth(1)
}

/// A configuration with the engine, and the `data_dir` that it has.
fn config(bao: &OpenBao, more: &[(&str, &str)]) -> (tempfile::TempDir, Config) {
    let folder = tempfile::tempdir().unwrap();
    let common = [("transit.address", bao.address.as_str()), ("transit.key", "certwright")];
    let given = [&common[..], more].concat();
    let config = parse(folder.path(), &given);
    (folder, config)
}

fn local(folder: &std::path::Path, key: Option<&Secret<String>>) -> Config {
    let given: Vec<_> = key.iter().map(|key| ("master_key", key.expose().as_str())).collect();
    parse(folder, &given)
}

fn parse(folder: &std::path::Path, given: &[(&str, &str)]) -> Config {
    let folder = folder.display().to_string();
    let given = [&[("data_dir", folder.as_str())][..], given].concat();
    let given: Vec<_> =
        given.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Config::parse(&config::read(None, [], &given).unwrap()).unwrap()
}
