//! Statements declare the tables that they touch: what their text and the schema say is compared here. And the SQLite
//! that runs them is compiled as they need it.

use std::collections::{BTreeMap, BTreeSet};

use certwright::storage::{Listed, Touch, catalogue};
use sqlx::{Connection as _, SqliteConnection};

/// Words that a text has in places where a table's name may follow.
fn after<'t>(text: &'t str, words: &[&str]) -> BTreeSet<&'t str> {
    let parts: Vec<&str> = text
        .split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .filter(|part| !part.is_empty())
        .collect();
    let found = parts.windows(words.len() + 1).filter(|found| found[..words.len()] == *words);
    found.map(|found| found[words.len()]).collect()
}

/// The tables that texts name, as far as there are such tables.
fn touched(text: &str, tables: &BTreeSet<String>) -> [BTreeSet<String>; 3] {
    let known = |found: BTreeSet<&str>| -> BTreeSet<String> {
        found.into_iter().filter(|name| tables.contains(*name)).map(str::to_owned).collect()
    };
    let inserts = known(after(text, &["INSERT", "INTO"]));
    let (adds, mut writes) = if text.contains("ON CONFLICT") {
        (BTreeSet::new(), inserts)
    } else {
        (inserts, BTreeSet::new())
    };
    writes.extend(known(after(text, &["UPDATE"])));
    writes.extend(known(after(text, &["DELETE", "FROM"])));
    let mut reads = known(after(text, &["FROM"]));
    reads.extend(known(after(text, &["JOIN"])));
    reads.retain(|table| !writes.contains(table));
    [adds, writes, reads]
}

/// Adds what the schema changes along with rows that are deleted: children of theirs, by a cascade.
fn with_cascades(
    text: &str,
    mut writes: BTreeSet<String>,
    children: &BTreeMap<String, BTreeSet<String>>,
) -> BTreeSet<String> {
    for table in after(text, &["DELETE", "FROM"]) {
        writes.extend(children.get(table).into_iter().flatten().cloned());
    }
    writes
}

fn declared(touches: &[Touch]) -> [BTreeSet<String>; 3] {
    let mut all = [BTreeSet::new(), BTreeSet::new(), BTreeSet::new()];
    for touch in touches {
        let (kind, tables) = match touch {
            Touch::Adds(tables) => (0, tables),
            Touch::Writes(tables) => (1, tables),
            Touch::Reads(tables) => (2, tables),
        };
        all[kind].extend(tables.iter().map(|table| (*table).to_owned()));
    }
    all
}

#[tokio::test]
async fn each_statement_declares_what_its_text_touches() {
    let db = crate::support::databases::postgres().await;
    let tables: BTreeSet<String> =
        db.schema().await.unwrap().into_iter().map(|(table, ..)| table).collect();
    let mut children = BTreeMap::<String, BTreeSet<String>>::new();
    for (parent, child) in db.cascades().await.unwrap() {
        children.entry(parent).or_default().insert(child);
    }
    assert!(children["certificates"].contains("revisions"), "{children:?}");

    let mut wrong = Vec::new();
    for (statement, touches) in catalogue() {
        for text in [statement.sqlite, statement.postgres] {
            let [adds, writes, reads] = touched(text, &tables);
            let is_change = !(adds.is_empty() && writes.is_empty());
            let writes = with_cascades(text, writes, &children);
            let found = if is_change { [adds, writes, reads] } else { Default::default() };
            if declared(touches) != found {
                wrong.push(format!("{}: it touches {found:?}", statement.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A query runs outside of transactions, so that it must not change anything.
#[test]
fn a_statement_that_declares_nothing_changes_nothing() {
    let is_query = |(_, touches): &&Listed| touches.is_empty();
    let all = catalogue();
    let queries: Vec<_> = all.iter().filter(is_query).collect();
    assert!(queries.len() > 50 && queries.len() < all.len(), "{}", queries.len());
    for (statement, _) in queries {
        for text in [statement.sqlite, statement.postgres] {
            for verb in ["INSERT", "UPDATE", "DELETE", "TRUNCATE", "nextval"] {
                let locks = verb == "UPDATE" && text.contains("FOR UPDATE");
                assert!(locks || !text.contains(verb), "{}: {verb}", statement.name);
            }
        }
    }
}

/// docs/decisions/2026-11-28-how-sqlite-is-compiled.md has the reasons; `.cargo/config.toml` has the flags.
#[tokio::test]
async fn sqlite_plans_each_statement_once_and_connections_share_no_lock() {
    let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();

    let options: Vec<String> =
        sqlx::query_scalar("PRAGMA compile_options").fetch_all(&mut connection).await.unwrap();

    let has = |wanted: &str| options.iter().any(|option| option == wanted);
    assert!(has("ENABLE_QPSG") && has("DEFAULT_MEMSTATUS=0"), "{options:?}");
    assert!(has("DEFAULT_PCACHE_INITSZ=0"), "{options:?}");
    assert!(!has("ENABLE_MEMORY_MANAGEMENT"), "{options:?}");
}
