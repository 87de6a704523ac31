//! The database's file is gone: said by problems, readiness and the log, and over when it is back.

use std::fs;

use serde_json::{Value, json};

use crate::support::installation::{Answer, Database, Installation, Program};
use crate::support::patience::until;

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

/// Has a Secret stored.
async fn store(site: &Installation, program: &Program, name: &str) -> Answer {
    let secret = json!({"namespace": "default", "name": name, "stringData": {"a": "b"}});
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
