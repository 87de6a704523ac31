//! The disk of the database fills up.

use serde_json::json;

use super::watched::{COUNT, Trouble, Watched};
use crate::support::installation::{Answer, Database, Installation};

/// More than the alert wants to be free.
const SIZE: u64 = 1 << 30;

/// What is left of it.
const ROOM: u64 = 256 << 10;

/// Requests until the last free page is written on, and many more.
const MOST: usize = 400;

const TROUBLE: Trouble = Trouble {
    alert: "CertwrightDiskFilling",
    readiness: "The disk is full",
    doctor: "database, disk: the disk is full",
    log: "the disk is full: make room",
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_full() {
    let mut site = Installation::on(Database::Sqlite).await;
    site.limit_disk(SIZE);
    let mut drill = Watched::on(site).await;
    drill.ask_for("before", 0..COUNT).await;

    drill.program.leave_on_disk(&drill.site, ROOM).await;
    assert_says_so(&until_refused(&drill).await);
    let asked = tokio::join!(drill.persist("meanwhile"), async {
        drill.assert_alarmed(&TROUBLE).await;
        drill.program.resize_disk(&drill.site, SIZE);
    })
    .0;

    drill.assert_mended(&TROUBLE, asked).await;
}

fn assert_says_so(refused: &Answer) {
    let code = (refused.status, refused.body["code"].as_str());
    assert_eq!(code, (507, Some("insufficient_storage")), "{refused:?}");
    assert_eq!(refused.retry_after.as_deref(), Some("60"));
    let detail = refused.body["detail"].as_str().unwrap();
    assert!(detail.starts_with("The disk of the service is full"), "{detail}");
}

/// The answer to the first request that is not taken.
async fn until_refused(drill: &Watched) -> Answer {
    for turn in 0..MOST {
        // A Secret of 32 KiB.
        let secret = json!({"namespace": "default", "name": format!("secret-{turn}"),
            "stringData": {"a": "x".repeat(32 << 10)}});
        let answer = drill.site.post(&drill.program, "/secrets", &secret).await.unwrap();
        if answer.status != 201 {
            return answer;
        }
    }
    panic!("the disk was never full: {}", drill.program.log());
}
