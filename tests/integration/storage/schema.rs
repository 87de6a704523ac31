//! The schema that a database gets, whatever it had before.

use std::collections::BTreeMap;

use certwright::domain::id::EventId;
use certwright::domain::webhook::Webhook;
use certwright::storage::{Db, Migrated, Page, Scope, StorageError, tasks, webhooks};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};

use crate::support::databases::{self, sqlite_url};
use crate::support::former_schema::{self, execute};
use crate::support::postgres::fresh_database;
use crate::support::world::World;
use crate::webhooks::{hooked, issued};

/// The version of the last migration.

#[tokio::test]
async fn both_schemas_have_the_same_tables_and_columns() {
    let (_folder, sqlite) = databases::sqlite().await;
    let postgres = databases::postgres().await;

    let mut of_sqlite = sqlite.schema().await.unwrap();
    let mut of_postgres = postgres.schema().await.unwrap();

    of_sqlite.sort_unstable();
    of_postgres.sort_unstable();
    assert!(of_sqlite.len() > 100, "{of_sqlite:?}");
    assert_eq!(of_sqlite, of_postgres);
}

#[tokio::test]
async fn a_database_of_before_the_squash_gets_the_schema_of_a_new_one_on_sqlite() {
    let ((_old_folder, old), (_new_folder, new)) = (sqlite_url(), sqlite_url());
    bring_up_to_date(&old, &new).await;

    let (old, new) = (schema_of_sqlite(&old).await, schema_of_sqlite(&new).await);
    assert!(new.len() > 80, "{new:#?}");
    assert_same(&old, &new);
}

#[tokio::test]
async fn a_database_of_before_the_squash_gets_the_schema_of_a_new_one_on_postgres() {
    let (old, new) = (fresh_database().await, fresh_database().await);
    bring_up_to_date(&old, &new).await;

    let (old, new) = (schema_of_postgres(&old).await, schema_of_postgres(&new).await);
    assert!(new.len() > 300, "{new:#?}");
    assert_same(&old, &new);
}

#[tokio::test]
async fn a_database_of_before_the_squash_keeps_its_data_on_sqlite() {
    let (_folder, url) = sqlite_url();
    let columns = fill(&url).await;
    let before = rows_of_sqlite(&url, &columns).await;
    take_over(&url).await;
    assert_eq!(rows_of_sqlite(&url, &columns).await, before);
}

#[tokio::test]
async fn a_database_of_before_the_squash_keeps_its_data_on_postgres() {
    let url = fresh_database().await;
    let columns = fill(&url).await;
    let before = rows_of_postgres(&url, &columns).await;
    take_over(&url).await;
    assert_eq!(rows_of_postgres(&url, &columns).await, before);
}

#[tokio::test]
async fn replicas_that_start_at_once_take_a_database_over_together() {
    let url = fresh_database().await;
    former_schema::make(&url, former_schema::LAST).await;
    let replicas = (0..4).map(|_| Db::connect(&url));

    let opened = futures_util::future::join_all(replicas).await;

    let from = |db: &Db| db.migrated().from;
    let mut found: Vec<_> = opened.iter().map(|db| from(db.as_ref().unwrap())).collect();
    found.sort_unstable();
    let mut expected = [former_schema::newest(); 4];
    expected[3] = former_schema::LAST;
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_database_of_an_older_or_a_newer_program_is_left_alone_on_sqlite() {
    let ((_old_folder, old), (_new_folder, new)) = (sqlite_url(), sqlite_url());
    assert_left_alone(&old, &new, "x'00'").await;
}

#[tokio::test]
async fn a_database_of_an_older_or_a_newer_program_is_left_alone_on_postgres() {
    let (old, new) = (fresh_database().await, fresh_database().await);
    assert_left_alone(&old, &new, "'\\x00'::bytea").await;
}

async fn assert_left_alone(old: &str, new: &str, checksum: &str) {
    for version in [1, former_schema::LAST - 1] {
        former_schema::make(old, version).await;
        let refused = Db::connect(old).await.err().unwrap();
        assert!(matches!(refused, StorageError::UnknownSchema(found) if found == version));
        let refused = Db::version(old).await.unwrap_err();
        assert!(refused.to_string().contains("`certwright migrate` of commit"), "{refused}");
    }
    // What the message says to do.
    former_schema::make(old, former_schema::LAST).await;
    let newest = former_schema::newest();
    assert_eq!(Db::connect(old).await.unwrap().migrated().to, newest);

    Db::connect(new).await.unwrap().close().await;
    let after = newest + 1;
    let later = format!(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES ({after}, 'later', TRUE, {checksum}, 0)"
    );
    execute(new, &[&later]).await;
    let refused = Db::connect(new).await.err().unwrap();
    let is_newer = matches!(refused, StorageError::NewerSchema { found, known } if (found, known) == (after, newest));
    assert!(is_newer, "{refused:?}");
    assert_eq!(
        Db::version(new).await.unwrap(),
        Migrated { from: after, to: newest, is_former: false }
    );
}

/// Brings a database of before the squash, and an empty one, up to date.
async fn bring_up_to_date(old: &str, new: &str) {
    former_schema::make(old, former_schema::LAST).await;
    let to = former_schema::newest();
    assert_eq!(Db::version(old).await.unwrap(), Migrated { from: 0, to, is_former: true });
    let former = (old, former_schema::LAST, true);
    for (url, from, is_former) in [former, (old, to, false), (new, 0, false), (new, to, false)] {
        let db = Db::connect(url).await.unwrap();
        assert_eq!(db.migrated(), Migrated { from, to, is_former });
        db.close().await;
        assert_eq!(Db::version(url).await.unwrap(), Migrated { from: to, to, is_former: false });
    }
}

/// Fills a database with rows, some of them in every column and table that was renamed. The columns of each table.
async fn fill(url: &str) -> BTreeMap<String, Vec<String>> {
    let world = World::on(url).await;
    let (_receiver, _hook) = hooked(&world, json!({})).await;
    issued(&world, "web").await;
    let mut tx = world.db.begin();
    tasks::schedule(&mut tx, EventId::generate(world.now()).0, "sweep", world.now()).await.unwrap();
    tx.commit().await.unwrap();
    let mut columns: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (table, column, _) in world.db.schema().await.unwrap() {
        let is_later = former_schema::LATER_TABLES.contains(&table.as_str())
            || former_schema::LATER_COLUMNS.contains(&(table.as_str(), column.as_str()));
        if !is_later {
            columns.entry(table).or_default().push(column);
        }
    }
    world.db.close().await;
    let change = r#"UPDATE issuers SET account_change = '{"what": "deactivated"}'"#;
    execute(url, &[change]).await;
    columns
}

/// Turns a database back to before the squash, and has it taken over.
async fn take_over(url: &str) {
    former_schema::turn_back(url, former_schema::LAST).await;
    let db = Db::connect(url).await.unwrap();
    assert_eq!(db.migrated().from, former_schema::LAST);
    let wanted = webhooks::Wanted::default();
    let mut read = db.read().await.unwrap();
    let hooks =
        webhooks::list(&mut read, &Scope::Everything, &wanted, Page::first(9)).await.unwrap().rows;
    assert!(!hooks.is_empty() && hooks.iter().all(|one| one.name == Webhook::default_name(one.id)));
    drop(read);
    db.close().await;
}

type Rows = BTreeMap<String, Vec<String>>;

async fn rows_of_sqlite(url: &str, columns: &BTreeMap<String, Vec<String>>) -> Rows {
    let mut connection = SqliteConnection::connect(url).await.unwrap();
    let mut rows = Rows::new();
    for (table, columns) in columns {
        let quoted: Vec<_> = columns.iter().map(|column| format!("quote({column})")).collect();
        let all = format!("SELECT {} FROM {table} ORDER BY 1", quoted.join(" || ', ' || "));
        let found = sqlx::query_scalar(AssertSqlSafe(all)).fetch_all(&mut connection).await;
        rows.insert(table.clone(), found.unwrap());
    }
    assert_filled(rows)
}

async fn rows_of_postgres(url: &str, columns: &BTreeMap<String, Vec<String>>) -> Rows {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let mut rows = Rows::new();
    for (table, columns) in columns {
        let all = format!("SELECT ({})::text FROM {table} ORDER BY 1", columns.join(", "));
        let found = sqlx::query_scalar(AssertSqlSafe(all)).fetch_all(&mut connection).await;
        rows.insert(table.clone(), found.unwrap());
    }
    assert_filled(rows)
}

fn assert_filled(rows: Rows) -> Rows {
    for table in ["issuers", "tasks", "webhook_subscriptions", "deliveries", "certificates"] {
        assert!(!rows[table].is_empty(), "{table}");
    }
    rows
}

/// Each table's parts and each index as SQLite keeps their text, without comments, quotes and the order of columns.
async fn schema_of_sqlite(url: &str) -> Vec<String> {
    let mut connection = SqliteConnection::connect(url).await.unwrap();
    let all =
        "SELECT name, coalesce(sql, '') FROM sqlite_schema WHERE tbl_name <> '_sqlx_migrations'";
    let found: Vec<(String, String)> =
        sqlx::query_as(all).fetch_all(&mut connection).await.unwrap();
    let mut schema: Vec<_> = found
        .into_iter()
        .flat_map(|(name, text)| {
            let text =
                without_comments(&text).replace('"', "").replace("DEFAULT 0", "DEFAULT FALSE");
            parts(&text).into_iter().map(move |part| format!("{name}: {part}"))
        })
        .collect();
    schema.sort_unstable();
    schema
}

fn without_comments(text: &str) -> String {
    let lines = text.lines().map(|line| line.split("--").next().unwrap());
    lines.collect::<Vec<_>>().join(" ")
}

/// What stands between the commas of a statement's outermost brackets, and around these.
fn parts(statement: &str) -> Vec<String> {
    let (mut parts, mut depth) = (vec![String::new()], 0_usize);
    for character in statement.chars() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        let is_boundary = matches!((character, depth), ('(' | ',', 1) | (')', 0));
        if is_boundary {
            parts.push(String::new());
        } else {
            parts.last_mut().unwrap().push(character);
        }
    }
    let plain = |part: &String| part.split_whitespace().collect::<Vec<_>>().join(" ");
    parts.iter().map(plain).collect()
}

/// Columns, constraints, indexes, functions, sequences and storage parameters, a line for each.
async fn schema_of_postgres(url: &str) -> Vec<String> {
    const ALL: &str = "
        SELECT concat_ws(' ', 'column', table_name, column_name, data_type, is_nullable, column_default)
            FROM information_schema.columns WHERE table_schema = 'public'
        UNION ALL SELECT concat_ws(' ', 'constraint', conrelid::regclass, conname, pg_get_constraintdef(oid))
            FROM pg_constraint WHERE connamespace = 'public'::regnamespace
        UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
        UNION ALL SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
        UNION ALL SELECT concat_ws(' ', 'sequence', sequencename, data_type, start_value, increment_by, cache_size, last_value)
            FROM pg_sequences WHERE schemaname = 'public'
        UNION ALL SELECT concat_ws(' ', 'storage', relname, reloptions)
            FROM pg_class WHERE relnamespace = 'public'::regnamespace AND reloptions IS NOT NULL
        ORDER BY 1";
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::query_scalar(ALL).fetch_all(&mut connection).await.unwrap()
}

#[track_caller]
fn assert_same(old: &[String], new: &[String]) {
    let only_in = |these: &[String], those: &[String]| -> Vec<String> {
        these.iter().filter(|one| !those.contains(one)).cloned().collect()
    };
    assert_eq!(only_in(old, new), only_in(new, old));
    assert_eq!(old.len(), new.len());
}
