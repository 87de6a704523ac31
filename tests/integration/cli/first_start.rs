//! The first start and the next ones: what is made, what is taken over, and what is refused.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::place::{ADDRESS_LINE, KEY_LINE, Place, block_on, mode, status_of, whoami};
use crate::support::{ClosedPort, databases, postgres};

/// A well-formed master key that nobody uses: 32 bytes of base64.
pub(super) const OTHER_MASTER_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

#[test]
fn the_first_start_needs_no_configuration() {
    let place = Place::new();
    let child = place.serve();
    let out = child.out();
    let lines: Vec<_> = out.lines().collect();

    let [key, address] = lines[..] else { panic!("{out}") };
    let key = key.strip_prefix(KEY_LINE).unwrap();
    let address = address.strip_prefix(ADDRESS_LINE).unwrap();
    let secret = key.strip_prefix("cw_").unwrap();
    assert_eq!(secret.len(), 43 + 6, "{out}");
    assert!(secret.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)), "{out}");
    assert_eq!(whoami(address, key), 200);
    assert_eq!(whoami(address, &format!("cw_{}", "A".repeat(43))), 401);
    assert_eq!(mode(&place.data()), 0o700);
    assert_eq!(mode(&place.master_key()), 0o600);
    assert!(place.data().join("certwright.db").is_file());
    let ended = child.stop().succeeded();
    assert!(!ended.err.contains(secret), "the key is in no log");

    let child = place.serve();
    assert_eq!(child.out(), format!("{ADDRESS_LINE}{}\n", child.address()));
    assert_eq!(whoami(&child.address(), key), 200);
    child.stop().succeeded();
}

#[test]
fn flags_of_serve_are_settings() {
    let place = Place::new();
    let key = "cw_y4yAUYmJWLfJfBBpQg1CkpLd6kC9uMfFr3OqfcUQwsM";
    let place = place.env("CERTWRIGHT_BOOTSTRAP_API_KEY", key);
    let off = ["--set", "metrics.enabled=false"];
    let flags = ["--data-dir", "elsewhere", "--log-format", "text"];
    let child = place.serve_with(&[&flags[..], &off].concat());

    assert!(!place.data().exists());
    assert_eq!(status_of(&child.address(), "/metrics", key), 404, "they are switched off");
    assert_eq!(mode(&place.dir.path().join("elsewhere/master.key")), 0o600);
    let ended = child.stop().succeeded();
    assert!(ended.err.contains("INFO") && !ended.err.contains("{\""), "{ended:?}");
    assert!(!ended.err.contains('\u{1b}'), "no colours where there is no terminal: {ended:?}");
}

#[test]
fn a_bootstrap_key_is_taken_and_never_printed() {
    let key = "cw_y4yAUYmJWLfJfBBpQg1CkpLd6kC9uMfFr3OqfcUQwsM";
    let place = Place::new().env("CERTWRIGHT_BOOTSTRAP_API_KEY", key);
    for _ in 0..2 {
        let child = place.serve();
        assert_eq!(whoami(&child.address(), key), 200);

        let ended = child.stop().succeeded();
        assert!(!ended.everything().contains(key), "{ended:?}");
    }
}

#[test]
fn a_bootstrap_key_that_is_none_is_refused_without_printing_it() {
    for wrong in ["hunter2", "cw_hunter2", &format!("cw_hunter2{}", "=".repeat(36))] {
        let place = Place::new().ports().env("CERTWRIGHT_BOOTSTRAP_API_KEY", wrong);
        let ended = place.run(&["serve"]).failed();

        assert!(ended.err.contains("`bootstrap.api_key` is not an API key"), "{ended:?}");
        assert!(!ended.everything().contains("hunter2"), "{ended:?}");
        assert!(!ended.out.contains(ADDRESS_LINE), "{ended:?}");
    }
}

#[test]
fn a_bootstrap_key_that_anybody_can_guess_is_refused() {
    let weak = format!("cw_{}", "A".repeat(43));
    let place = Place::new().ports().env("CERTWRIGHT_BOOTSTRAP_API_KEY", &weak);

    let ended = place.run(&["serve"]).failed();
    assert!(ended.err.contains("was not made by chance"), "{ended:?}");
    assert!(ended.err.contains("openssl rand 32"), "{ended:?}");
    assert!(!ended.everything().contains(&weak), "{ended:?}");
}

#[test]
fn of_two_first_starts_at_once_on_sqlite_one_serves_and_the_other_says_so() {
    let place = Place::new();
    let started: Vec<_> = (0..2).map(|_| place.start_serving()).collect();
    let (children, others): (Vec<_>, Vec<_>) = started
        .into_iter()
        .map(|mut child| {
            let listens = child.comes_to(|child| child.out().contains(ADDRESS_LINE));
            (listens, child)
        })
        .partition(|(listens, _)| *listens);

    assert_eq!(children.len(), 1);
    let children: Vec<_> = children.into_iter().map(|(_, child)| child).collect();
    for (_, other) in others {
        let ended = other.end().failed();
        assert!(ended.err.contains("another certwright serves from this database"), "{ended:?}");
        assert!(!ended.out.contains(KEY_LINE), "{ended:?}");
    }
    let key = children[0].key().expect("one key was made");
    assert_eq!(whoami(&children[0].address(), &key), 200);
    let names = fs::read_dir(place.data()).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let keys: Vec<_> = names.filter(|name| name.contains("master.key")).collect();
    assert_eq!(keys, ["master.key"]);
    for child in children {
        child.stop().succeeded();
    }
}

#[test]
fn a_master_key_that_others_can_read_is_refused() {
    let place = Place::new();
    place.serve().stop().succeeded();
    for open in [0o644, 0o604, 0o660] {
        fs::set_permissions(place.master_key(), fs::Permissions::from_mode(open)).unwrap();
        let ended = place.start_serving().end().failed();

        assert!(ended.err.contains("`chmod 600 ./data/master.key`"), "{ended:?}");
    }
    fs::set_permissions(place.master_key(), fs::Permissions::from_mode(0o600)).unwrap();
    place.serve().stop().succeeded();
}

#[test]
fn another_master_key_is_refused() {
    let place = Place::new();
    place.serve().stop().succeeded();
    let right = fs::read_to_string(place.master_key()).unwrap();

    let place = place.env("CERTWRIGHT_MASTER_KEY", OTHER_MASTER_KEY);
    let ended = place.start_serving().end().failed();
    assert!(ended.err.contains("the master key is not the one"), "{ended:?}");
    assert!(!ended.everything().contains(OTHER_MASTER_KEY), "{ended:?}");

    // It may stand behind the right one; then the file is not needed.
    fs::remove_file(place.master_key()).unwrap();
    let both = format!("{},{OTHER_MASTER_KEY}", right.trim());
    place.env("CERTWRIGHT_MASTER_KEY", &both).serve().stop().succeeded();
}

#[test]
fn a_master_key_that_is_none_is_refused_without_printing_it() {
    let place = Place::new().ports().env("CERTWRIGHT_MASTER_KEY", "hunter2");
    let ended = place.run(&["serve"]).failed();

    assert!(ended.err.contains("openssl rand -base64 32"), "{ended:?}");
    assert!(!ended.everything().contains("hunter2"), "{ended:?}");
}

#[test]
fn a_master_key_that_went_missing_is_not_made_anew() {
    let place = Place::new();
    place.serve().stop().succeeded();
    fs::remove_file(place.master_key()).unwrap();

    let ended = place.start_serving().end().failed();
    assert!(ended.err.contains("should be in ./data/master.key"), "{ended:?}");
    assert!(ended.err.contains("`master_key_file`"), "{ended:?}");
    assert!(!place.master_key().exists());
}

#[test]
fn a_master_key_file_that_is_named_is_not_made() {
    let place = Place::new().ports().env("CERTWRIGHT_MASTER_KEY_FILE", "my.key");

    let ended = place.run(&["serve"]).failed();
    assert!(ended.err.contains("my.key"), "{ended:?}");
    assert!(!place.dir.path().join("my.key").exists());
}

#[test]
fn migrating_again_changes_nothing() {
    let (_folder, sqlite) = databases::sqlite_url();
    let postgres = block_on(postgres::fresh_database());
    for (url, dialect) in [(sqlite, "sqlite"), (postgres, "postgres")] {
        let place = Place::new().env("CERTWRIGHT_DATABASE_URL", &url);
        let first = place.run(&["migrate"]).succeeded();
        let version = newest_migration(dialect);
        let made =
            format!("certwright: made the schema of the {dialect} database (version {version})\n");
        assert_eq!(first.out, made);
        let second = place.run(&["migrate"]).succeeded();
        let same =
            format!("certwright: the {dialect} database is up to date (version {version})\n");
        assert_eq!(second.out, same);
        assert!(!place.master_key().exists(), "a schema needs no master key");
        assert!(place.serve().key().is_some(), "the first start is still to come");
    }
}

/// The number of the last file in the dialect's folder of migrations.
fn newest_migration(dialect: &str) -> u32 {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/").to_owned() + dialect;
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name());
    let number = |name: std::ffi::OsString| name.to_str()?.split('_').next()?.parse().ok();
    files.filter_map(number).max().unwrap()
}

#[test]
fn migrating_without_configuration_makes_the_usual_database() {
    let place = Place::new();
    place.run(&["migrate"]).succeeded();

    assert_eq!(mode(&place.data()), 0o700);
    assert!(place.data().join("certwright.db").is_file());
    assert!(place.serve().key().is_some());
}

#[test]
fn a_postgres_that_is_away_is_named_with_its_host_and_without_its_password() {
    let closed = ClosedPort::new();
    let server = closed.address();
    let url = format!("postgres://certwright:hunter2@{server}/certwright");
    let place = Place::new().ports().env("CERTWRIGHT_DATABASE_URL", &url);

    for command in ["serve", "migrate"] {
        let ended = place.run(&[command]).failed();

        let words =
            format!("there is no connection to PostgreSQL at {server}; see that it runs there");
        assert!(ended.err.contains(&words) && ended.err.contains("refused"), "{ended:?}");
        assert!(!ended.everything().contains("hunter2"), "{ended:?}");
    }
    let looked = place.run(&["doctor"]).failed();
    assert!(
        looked
            .out
            .contains(&format!("fail  database: there is no connection to PostgreSQL at {server}")),
        "{looked:?}"
    );
}

#[test]
fn a_master_key_without_its_database_is_said_before_an_empty_one_is_made() {
    let place = Place::new();
    let first = place.serve().stop().succeeded();
    assert!(!first.err.contains("no database"), "{first:?}");
    for name in ["certwright.db", "certwright.db-wal", "certwright.db-shm"] {
        fs::remove_file(place.data().join(name)).ok();
    }

    let looked = place.run(&["doctor"]).failed();
    assert!(
        looked.out.contains("There is a master key: if there was a database, put it back"),
        "{looked:?}"
    );
    let again = place.serve().stop().succeeded();
    assert!(
        again.err.contains("there is a master key and no database: an empty one is made"),
        "{again:?}"
    );
}
