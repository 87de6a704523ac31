//! The disk is full, or the database's file is gone: said by problems, readiness, the log and `doctor`, and over when
//! it is mended.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::installation::{Answer, Database, Installation, Program};
use crate::support::patience::until;

/// What the schema and some rows need, and not much more.
const SIZE: &str = "12m";

/// Requests until the last free page is written on, and many more.
const MOST: usize = 400;

#[tokio::test]
async fn a_full_disk_is_said_everywhere_and_costs_nothing_but_the_wait() {
    let mut site = Installation::on(Database::Sqlite).await;
    site.limit_disk(SIZE);
    let mut program = site.start().await;
    assert_eq!(site.get(&program, "/readyz").await.unwrap().status, 200);
    let ballast = program.sees(&site.folder.path().join("disk/ballast"));
    fill(&ballast);

    let refused = until_refused(&site, &program).await;

    let why = program.log();
    assert_eq!(
        (refused.status, &refused.body["code"]),
        (507, &"insufficient_storage".into()),
        "{why}"
    );
    assert_eq!(refused.retry_after.as_deref(), Some("60"));
    let detail = refused.body["detail"].as_str().unwrap();
    assert!(detail.starts_with("The disk of the service is full"), "{detail}");
    let unready = until_status(&site, &program, 503).await;
    let disk = check(&unready, "disk");
    assert!(
        disk["blocks"] == true && disk["why"].as_str().unwrap().starts_with("The disk is full"),
        "{unready}"
    );
    assert!(program.log().contains("the disk is full: make room"), "{}", program.log());
    assert_eq!(site.get(&program, "/healthz").await.unwrap().status, 200, "no restart would help");
    let looked = program.beside(&site, &["doctor"]);
    let said = String::from_utf8(looked.stdout).unwrap();
    assert_eq!(looked.status.code(), Some(1), "{said}");
    assert!(said.contains("fail  database, disk: the disk is full"), "{said}");

    fs::remove_file(&ballast).unwrap();

    until_status(&site, &program, 200).await;
    assert_eq!(store(&site, &program, "after").await.status, 201);
    assert!(program.is_running());
}

#[tokio::test]
async fn a_database_file_that_is_removed_is_noticed_and_nothing_is_issued_into_the_void() {
    let site = Installation::on(Database::Sqlite).await;
    let program = site.start().await;
    site.set_up(&program).await;
    let file = site.folder.path().join("certwright.db");
    let kept = site.folder.path().join("kept.db");
    fs::rename(&file, &kept).unwrap();

    let refused = store(&site, &program, "lost").await;

    assert_eq!((refused.status, &refused.body["code"]), (503, &"unavailable".into()));
    assert!(refused.body["detail"].as_str().unwrap().contains("not where it was"), "{refused:?}");
    let unready = until_status(&site, &program, 503).await;
    assert!(unready["detail"].as_str().unwrap().contains("removed or replaced"), "{unready}");
    assert_eq!(check(&unready, "disk")["blocks"], false, "it is not full: {unready}");
    let path = file.display().to_string();
    assert!(!unready.to_string().contains(&path), "{unready}");
    assert!(
        program.log().contains(&format!("{path} was removed or replaced")),
        "{}",
        program.log()
    );

    fs::rename(&kept, &file).unwrap();
    until_status(&site, &program, 200).await;
    assert_eq!(store(&site, &program, "found").await.status, 201, "it is the same file again");
}

/// Writes until nothing more is taken.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    for size in [1 << 20, 1 << 12, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
}

/// The answer to the first request that is not taken.
async fn until_refused(site: &Installation, program: &Program) -> Answer {
    for turn in 0..MOST {
        let answer = store(site, program, &format!("secret-{turn}")).await;
        if answer.status != 201 {
            return answer;
        }
    }
    panic!("the disk was never full: {}", program.log());
}

/// Has a Secret of 32 KiB stored.
async fn store(site: &Installation, program: &Program, name: &str) -> Answer {
    let secret =
        json!({"namespace": "default", "name": name, "stringData": {"a": "x".repeat(32 << 10)}});
    site.post(program, "/secrets", &secret).await.unwrap()
}

/// Until readiness is answered with this status; its body.
async fn until_status(site: &Installation, program: &Program, status: u16) -> Value {
    let mut last = None;
    until("that readiness", async || {
        let found = site.get(program, "/readyz").await.unwrap();
        let is_there = found.status == status;
        last = Some(found.body);
        is_there
    })
    .await;
    last.unwrap()
}

fn check(body: &Value, name: &str) -> Value {
    let checks = body["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"] == name).unwrap().clone()
}
