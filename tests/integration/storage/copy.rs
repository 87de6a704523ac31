//! Whole tables, from one database into another.

use std::collections::{BTreeMap, BTreeSet};

use certwright::backup::LEFT_OUT;
use certwright::domain::id::TaskId;
use certwright::storage::{Db, StorageError, copy, event_stream, events, pause, settings, tasks};
use serde_json::json;

use super::events::{NOW, record, someone};
use crate::policies::allow;
use crate::support::databases::{self, on_both_databases};
use crate::support::world::World;
use crate::webhooks::{hooked, issued};

type Rows = BTreeMap<String, BTreeSet<String>>;

on_both_databases! {
    async fn no_table_and_no_column_is_forgotten(db: Db) {
        let tables = copy::tables(&mut db.read().await.unwrap()).await.unwrap();

        let column = |table: &copy::Table, column: String| (table.name.clone(), column);
        let mut copied: Vec<_> = tables
            .iter()
            .flat_map(|table| table.columns().into_iter().map(move |name| column(table, name)))
            .collect();
        copied.sort_unstable();
        let mut all: Vec<_> =
            db.schema().await.unwrap().into_iter().map(|(table, column, _)| (table, column)).collect();
        all.sort_unstable();
        assert_eq!(copied, all);
        let place = |name: &str| tables.iter().position(|table| table.name == name).unwrap();
        for (first, second) in db.cascades().await.unwrap() {
            assert!(place(&first) < place(&second), "{second} refers to {first}");
        }
        assert!(place("messages") < place("deliveries"));
        assert!(LEFT_OUT.iter().all(|name| tables.iter().any(|table| table.name == *name)));
    }

    async fn a_snapshot_does_not_see_what_is_written_after_its_first_question(db: Db) {
        let mut before = db.snapshot().await.unwrap();
        assert_eq!(settings::find(&mut before, "later").await.unwrap(), None);
        let mut tx = db.begin();
        settings::insert(&mut tx, "later", b"value").await.unwrap();
        tx.commit().await.unwrap();

        assert_eq!(settings::find(&mut before, "later").await.unwrap(), None);
        let mut after = db.snapshot().await.unwrap();
        assert_eq!(settings::find(&mut after, "later").await.unwrap().unwrap(), b"value");
    }

    async fn events_go_on_behind_those_that_were_brought_along(db: Db) {
        let mut tx = db.begin();
        let table = copy::tables(&mut tx).await.unwrap().into_iter().find(|it| it.name == "events").unwrap();
        let brought = json!([{
            "id": "019ab0000000700080000000000000aa", "namespace": "default", "collection": "certificates",
            "resource_id": "019ab0000000700080000000000000bb", "certificate_id": null, "severity": "Normal",
            "reason": "Tested", "message": "brought along", "created_at": 1, "count": 1, "last_seen": 1,
            "written_in": 4_000_000_000_000_i64, "position": 4_000_000,
        }]);
        assert_eq!(copy::insert(&mut tx, &table.insertion(), &brought.to_string()).await.unwrap(), 1);
        event_stream::follow_restored(&mut tx).await.unwrap();
        tx.commit().await.unwrap();
        record(&db, someone(), "new", NOW).await;

        let mut read = db.read().await.unwrap();
        let page = certwright::storage::Page::first(5);
        let all = certwright::storage::Scope::Everything;
        let mut found = events::list(&mut read, &all, &events::Wanted::default(), page).await.unwrap().rows;
        found.sort_by_key(events::Recorded::position);
        let said: Vec<_> = found.iter().map(|event| &*event.message).collect();
        assert_eq!(said, ["brought along", "new"]);
    }

    async fn an_installation_is_paused_until_it_is_resumed(db: Db) {
        let mut tx = db.begin();
        assert_eq!(pause::find(&mut tx).await.unwrap(), None);
        pause::set(&mut tx, "one reason").await.unwrap();
        pause::set(&mut tx, "another").await.unwrap();
        assert_eq!(pause::find(&mut tx).await.unwrap().as_deref(), Some("another"));
        assert!(pause::lift(&mut tx).await.unwrap());
        assert!(!pause::lift(&mut tx).await.unwrap());
        assert_eq!(pause::find(&mut tx).await.unwrap(), None);
    }
}

#[tokio::test]
async fn rows_are_the_same_there_and_back_again() {
    let (_folder, sqlite) = databases::sqlite().await;
    let (postgres, (_other, back)) = (databases::postgres().await, databases::sqlite().await);
    fill(&sqlite).await;

    let rows = rows(&sqlite).await;
    copy_all(&sqlite, &postgres).await;
    copy_all(&postgres, &back).await;

    for table in [
        "certificates",
        "orders",
        "challenges",
        "webhooks",
        "deliveries",
        "policies",
        "tasks",
        "audit_entries",
    ] {
        assert!(!rows[table].is_empty(), "{table}");
    }
    assert_eq!(parsed(&rows), parsed(&self::rows(&postgres).await));
    assert_eq!(rows, self::rows(&back).await);
}

/// An installation with something in most tables, and values at the edges of what may be stored.
async fn fill(db: &Db) {
    let world = World::over(db.clone()).await;
    let (_receiver, _hook) = hooked(&world, json!({})).await;
    issued(&world, "web").await;
    let secret = json!({"namespace": "certwright", "name": "token", "stringData": {"a": "b"}});
    world.post("/secrets", secret).await.accepted();
    allow(&world, "p", "team", &["*.example.com"]).await;
    record(db, someone(), "\"quoted\", \\ and \u{1} and ☃\nand so on", NOW).await;
    let mut tx = db.begin();
    tasks::schedule(&mut tx, TaskId::generate(NOW).0, "sweep", NOW).await.unwrap();
    settings::insert(&mut tx, "empty", b"").await.unwrap();
    settings::insert(&mut tx, "bytes", &[0, 255, 10, 92]).await.unwrap();
    tx.commit().await.unwrap();
}

async fn rows(db: &Db) -> Rows {
    let mut read = db.snapshot().await.unwrap();
    let mut all = Rows::new();
    for table in copy::tables(&mut read).await.unwrap() {
        let mut rows = BTreeSet::new();
        copy::rows(&mut read, &table, |row| {
            rows.insert(row.to_owned());
            Ok::<_, StorageError>(())
        })
        .await
        .unwrap();
        assert_eq!(copy::count(&mut read, &table).await.unwrap(), rows.len() as u64);
        all.insert(table.name.clone(), rows);
    }
    all
}

/// Each row as a value: PostgreSQL writes its hexadecimal and its JSON in other letters.
fn parsed(rows: &Rows) -> BTreeMap<String, BTreeSet<String>> {
    let value = |row: &String| {
        let value: serde_json::Value = serde_json::from_str(row).unwrap();
        let fields = value.as_object().unwrap().iter();
        let texts = fields.map(|(name, value)| match value.as_str() {
            Some(text) if text.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                format!("{name}: {}", text.to_lowercase())
            }
            _ => format!("{name}: {value}"),
        });
        texts.collect::<Vec<_>>().join(", ")
    };
    rows.iter().map(|(table, rows)| (table.clone(), rows.iter().map(value).collect())).collect()
}

async fn copy_all(from: &Db, to: &Db) {
    let mut read = from.snapshot().await.unwrap();
    let mut tx = to.begin();
    for table in copy::tables(&mut read).await.unwrap() {
        let mut found = Vec::new();
        copy::rows(&mut read, &table, |row| {
            found.push(row.to_owned());
            Ok::<_, StorageError>(())
        })
        .await
        .unwrap();
        let there = copy::tables(&mut tx).await.unwrap();
        let there = there.iter().find(|it| it.name == table.name).unwrap();
        let array = format!("[{}]", found.join(","));
        let added = copy::insert(&mut tx, &there.insertion(), &array).await.unwrap();
        assert_eq!(added, found.len() as u64, "{}", table.name);
    }
    tx.commit().await.unwrap();
}
