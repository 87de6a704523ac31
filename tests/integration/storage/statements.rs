//! Statements declare the tables that they write to: what their text and the schema say is compared here.

use std::collections::{BTreeMap, BTreeSet};

use certwright::storage::{Listed, catalogue};

/// Words that a text has in places where a table's name may follow.
fn after<'t>(text: &'t str, words: &[&str]) -> BTreeSet<&'t str> {
    let parts: Vec<&str> = text
        .split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .filter(|part| !part.is_empty())
        .collect();
    let found = parts.windows(words.len() + 1).filter(|found| found[..words.len()] == *words);
    found.map(|found| found[words.len()]).collect()
}

/// The tables that a text writes to.
fn written(text: &str) -> BTreeSet<String> {
    let mut all = after(text, &["INSERT", "INTO"]);
    // `DO UPDATE SET` and `FOR UPDATE SKIP LOCKED` name no table.
    all.extend(after(text, &["UPDATE"]).into_iter().filter(|word| !["SET", "SKIP"].contains(word)));
    all.extend(after(text, &["DELETE", "FROM"]));
    all.into_iter().map(str::to_owned).collect()
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

#[tokio::test]
async fn each_statement_declares_what_its_text_writes_to() {
    let db = crate::support::databases::postgres().await;
    let mut children = BTreeMap::<String, BTreeSet<String>>::new();
    for (parent, child) in db.cascades().await.unwrap() {
        children.entry(parent).or_default().insert(child);
    }
    assert!(children["certificates"].contains("revisions"), "{children:?}");

    for (statement, declared) in catalogue() {
        let declared: BTreeSet<String> = declared.iter().copied().map(str::to_owned).collect();
        for text in [statement.sqlite, statement.postgres] {
            let found = with_cascades(text, written(text), &children);
            assert_eq!(declared, found, "{}", statement.name);
        }
    }
}

/// A query runs outside of transactions, so that it must not change anything.
#[test]
fn a_statement_that_declares_nothing_changes_nothing() {
    let is_query = |(_, writes): &&Listed| writes.is_empty();
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
