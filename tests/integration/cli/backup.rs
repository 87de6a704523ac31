//! Backups at the command line: what is made, what is restored, and what is refused.

use std::fs;
use std::io::Read as _;

use super::first_start::OTHER_MASTER_KEY;
use super::place::{Place, block_on, mode, whoami};
use crate::support::patience::PATIENCE;
use crate::support::postgres;

/// A place with a backup of an installation that has stopped, and the installation's API key.
fn backed_up() -> (Place, String) {
    let place = Place::new();
    let child = place.serve();
    let key = child.key().unwrap();
    child.stop().succeeded();
    place
        .run(&["backup", "backup.gz"])
        .succeeded()
        .says_all(&["wrote backup.gz", "sqlite (schema "]);
    (place, key)
}

fn next(place: &Place, name: &str) -> String {
    format!("sqlite://{}", place.dir.path().join(name).display())
}

/// `restore` into a database of this URL.
fn restore<'a>(setting: &'a str, file: &'a str) -> [&'a str; 4] {
    ["--set", setting, "restore", file]
}

#[test]
fn a_backup_is_its_owners_alone_and_is_of_no_use_without_the_master_key() {
    let (place, key) = backed_up();
    let file = place.dir.path().join("backup.gz");
    assert_eq!(mode(&file), 0o600);

    let mut text = String::new();
    flate2::read::GzDecoder::new(fs::File::open(&file).unwrap()).read_to_string(&mut text).unwrap();
    let master_key = fs::read_to_string(place.master_key()).unwrap();
    assert!(!text.contains(master_key.trim()) && !text.contains(&key));
    let manifest: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    let rows: u64 = manifest["tables"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["rows"].as_u64().unwrap())
        .sum();
    assert_eq!(text.lines().count() as u64, rows + 2, "the manifest, the rows, and the checksum");

    let again = place.run(&["backup", "backup.gz"]).failed();
    assert!(again.err.contains("is there already"), "{again:?}");
    place.run(&["restore", "--check", "backup.gz"]).succeeded().says_all(&["backup.gz is whole"]);
    let left = fs::read_dir(place.dir.path()).unwrap().count();
    assert_eq!(left, 2, "the data and the backup");
}

#[test]
fn what_is_restored_answers_and_works_on_nothing_until_it_is_resumed() {
    for postgres in [false, true] {
        let (place, key) = backed_up();
        let url =
            if postgres { block_on(postgres::fresh_database()) } else { next(&place, "next.db") };
        let setting = format!("database.url={url}");
        let restored = place.run(&restore(&setting, "backup.gz")).succeeded();
        assert!(restored.err.contains("It is paused"), "{restored:?}");

        let mut child = place.serve_with(&["--database-url", &url]);
        assert_eq!(whoami(&child.address(), &key), 200);
        assert_eq!(readyz(&child.address()), 503);
        child.until("it says that it is paused", |child| {
            child.err().contains("`certwright resume` ends it")
        });
        let doctor = place.run(&["--set", &setting, "doctor"]);
        doctor.says_all(&["paused, nothing is issued or renewed: restored from the backup of"]);
        let resumed = place.run(&["--set", &setting, "resume"]).succeeded();
        assert!(resumed.out.contains("certwright: resumed"), "{resumed:?}");
        child.until("it notices", |child| child.err().contains("resumed"));
        child.until("it is ready", |child| readyz(&child.address()) == 200);
        child.stop().succeeded();
        let again = place.run(&["--set", &setting, "resume"]).succeeded();
        assert!(again.out.contains("it was not paused"), "{again:?}");
    }
}

#[test]
fn a_start_may_end_the_pause() {
    let (place, _) = backed_up();
    let url = next(&place, "next.db");
    place.run(&restore(&format!("database.url={url}"), "backup.gz")).succeeded();

    let child = place.serve_with(&["--database-url", &url, "--resume"]);
    assert_eq!(readyz(&child.address()), 200);
    child.stop().succeeded();
}

#[test]
fn only_an_empty_database_is_restored_into() {
    let (place, key) = backed_up();
    let refused = place.run(&["restore", "backup.gz"]).failed();
    assert!(refused.err.contains("is not empty"), "{refused:?}");
    let child = place.serve();
    assert_eq!(
        (whoami(&child.address(), &key), readyz(&child.address())),
        (200, 200),
        "it is as it was"
    );
    child.stop().succeeded();
}

#[test]
fn a_backup_is_restored_only_with_its_own_master_key() {
    let (place, _) = backed_up();
    let setting = format!("database.url={}", next(&place, "next.db"));
    let master_key = fs::read_to_string(place.master_key()).unwrap();

    let place = place.env("CERTWRIGHT_MASTER_KEY", OTHER_MASTER_KEY);
    let refused = place.run(&restore(&setting, "backup.gz")).failed();
    assert!(refused.err.contains("only by the master key of the installation"), "{refused:?}");

    let elsewhere = Place::new();
    fs::copy(place.dir.path().join("backup.gz"), elsewhere.dir.path().join("backup.gz")).unwrap();
    let refused = elsewhere.run(&["restore", "backup.gz"]).failed();
    assert!(refused.err.contains("should be in ./data/master.key"), "{refused:?}");
    assert!(!elsewhere.master_key().exists(), "none is made");
    let elsewhere = elsewhere.env("CERTWRIGHT_MASTER_KEY", master_key.trim());
    elsewhere.run(&["restore", "backup.gz"]).succeeded();
}

#[test]
fn of_a_damaged_file_nothing_is_restored() {
    let (place, _) = backed_up();
    let setting = format!("database.url={}", next(&place, "next.db"));
    let whole = fs::read(place.dir.path().join("backup.gz")).unwrap();
    let mut changed = whole.clone();
    changed[whole.len() / 2] ^= 1;
    for damaged in [&whole[..whole.len() - 9], &whole[..whole.len() / 2], &changed] {
        fs::write(place.dir.path().join("damaged.gz"), damaged).unwrap();
        for arguments in
            [&restore(&setting, "damaged.gz")[..], &["restore", "--check", "damaged.gz"]]
        {
            let refused = place.run(arguments).failed();
            assert!(refused.err.contains("damaged or incomplete"), "{refused:?}");
        }
    }
    let place = place.file("other.gz", "something else");
    let refused = place.run(&restore(&setting, "other.gz")).failed();
    assert!(refused.err.contains("it is none"), "{refused:?}");

    place.run(&restore(&setting, "backup.gz")).succeeded();
}

fn readyz(address: &str) -> u16 {
    let request = reqwest::Client::new().get(format!("http://{address}/readyz")).timeout(PATIENCE);
    block_on(async { request.send().await.unwrap().status().as_u16() })
}
