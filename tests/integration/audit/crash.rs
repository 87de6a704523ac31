//! `kill -9` while thousands of changes are made: no change without entry, no entry without change, the chain whole.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::installation::{Database, Installation, Program, items};

/// Secrets that are created, in lives that end by `kill -9`; `AUDIT_CHANGES` says another number.
const CHANGES: usize = 1_500;
const LIVES: usize = 3;
const AT_ONCE: usize = 16;

fn changes() -> usize {
    std::env::var("AUDIT_CHANGES").map_or(CHANGES, |number| number.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_change_without_entry_and_no_entry_without_change_through_kills_on_sqlite() {
    survive(Database::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_change_without_entry_and_no_entry_without_change_through_kills_on_postgres() {
    survive(Database::Postgres).await;
}

async fn survive(database: Database) {
    let site = Installation::on(database).await;
    for life in 0..LIVES {
        let program = match life {
            // Dies right behind the commit of a batch of seals.
            0 => site.start_with("after_seal=20*off->return").await,
            _ => site.start().await,
        };
        make_changes(&site, &program, life).await;
        program.kill();
    }
    let mut program = site.start().await;

    // Whatever was answered is there, and each that is there has its entry.
    let secrets = all(&site, &program, "/secrets").await;
    let there: BTreeSet<String> =
        secrets.iter().map(|one| format!("secrets/{}", text(one, "id"))).collect();
    assert!(there.len() > changes() / LIVES / 2, "only {} secrets were made", there.len());
    let entries = all(&site, &program, "/audit?action=secrets.create").await;
    let told: BTreeSet<String> = entries.iter().map(|one| text(one, "resource")).collect();
    assert_eq!(told.len(), entries.len(), "an entry came twice");
    let (untold, unmade): (Vec<_>, Vec<_>) =
        (there.difference(&told).collect(), told.difference(&there).collect());
    assert!(untold.is_empty(), "changes without an entry: {untold:?}");
    assert!(unmade.is_empty(), "entries without a change: {unmade:?}");

    let last = text(entries.last().unwrap(), "id");
    site.until(&mut program, "/audit?limit=1&sort=-createdAt", |found| {
        let newest = &items(found)[0];
        text(newest, "id") >= last && !newest["seq"].is_null()
    })
    .await;
    program.kill();
    let mut verified = site.launch(&["audit", "verify"], "");
    let status = verified.end().await;
    assert!(status.success(), "{}", verified.log());
    assert!(verified.out().contains("the audit log is whole; head "), "{}", verified.out());
}

/// Creates secrets, a few at a time, until the program is gone: most lives end with the first answer to the second half
/// of them, while others are under way.
async fn make_changes(site: &Installation, program: &Program, life: usize) {
    let last = changes() / LIVES / 2;
    for batch in (0..changes() / LIVES).collect::<Vec<_>>().chunks(AT_ONCE) {
        let created = batch.iter().map(|number| async move {
            let secret = json!({"namespace": "default", "name": format!("s-{life}-{number}"), "stringData": {"k": "v"}});
            let is_answered = site.post(program, "/secrets", &secret).await.is_ok();
            if life > 0 && *number >= last {
                program.send(Signal::KILL);
            }
            is_answered
        });
        if join_all(created).await.iter().all(|is_answered| !is_answered) {
            return;
        }
    }
}

async fn all(site: &Installation, program: &Program, path: &str) -> Vec<Value> {
    let (mut found, mut cursor) = (Vec::new(), String::new());
    let first = if path.contains('?') { '&' } else { '?' };
    loop {
        let page =
            site.get(program, &format!("{path}{first}limit=500{cursor}")).await.unwrap().body;
        found.extend_from_slice(items(&page));
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return found,
        }
    }
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}
