//! Databases as they were before the migrations were squashed.

use sqlx::migrate::{Migrate, Migrator};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, SqliteConnection};

static SQLITE: Migrator = sqlx::migrate!("tests/fixtures/migrations/sqlite");
static POSTGRES: Migrator = sqlx::migrate!("tests/fixtures/migrations/postgres");

/// The last of those migrations.
pub const LAST: i64 = 14;

/// Tables that migrations since then made.
pub const LATER_TABLES: [&str; 8] = [
    "api_key_uses",
    "event_tickets",
    "policy_namespaces",
    "policies",
    "policy_reviews",
    "audit_entries",
    "audit_seals",
    "audit_checkpoints",
];

/// Columns that they added.
pub const LATER_COLUMNS: [(&str, &str); 22] = [
    ("api_keys", "description"),
    ("api_keys", "role"),
    ("api_keys", "expires_at"),
    ("api_keys", "created_by"),
    ("api_keys", "former_hash"),
    ("api_keys", "rotated_at"),
    ("api_keys", "former_until"),
    ("api_keys", "mac"),
    ("certificates", "admitted_by"),
    ("certificates", "admitted_way"),
    // Before those that its check names.
    ("certificates", "awaits_approval"),
    ("certificates", "approved_revision"),
    ("certificates", "request_id"),
    ("certificates", "requested_by"),
    ("requests", "approval"),
    ("requests", "requested_by"),
    ("throttles", "id"),
    ("webhooks", "name"),
    ("certificates", "trace"),
    ("orders", "trace"),
    ("messages", "trace"),
    ("events", "trace_id"),
];

/// Indexes that they made on older tables.
const LATER_INDEXES: [&str; 9] = [
    "api_keys_former_hash",
    "certificates_by_admission",
    "certificates_by_end",
    "certificates_by_name",
    "certificates_failing",
    "certificates_under_way",
    "expiry_watches_told",
    "throttles_by_id",
    "webhooks_by_name",
];

/// The take-over, and what migrations since then removed, read backwards.
const RENAMED_BACK: [&str; 8] = [
    "CREATE INDEX certificates_by_expiry ON certificates (not_after) WHERE not_after IS NOT NULL",
    "CREATE INDEX certificates_unissued ON certificates (id) WHERE not_after IS NULL",
    "ALTER TABLE webhook_subscriptions RENAME COLUMN event_type TO notice",
    "ALTER TABLE deliveries RENAME COLUMN event_type TO notice",
    "ALTER TABLE issuers RENAME COLUMN account_change TO upkeep",
    "DROP INDEX tasks_due",
    "ALTER TABLE tasks RENAME TO housekeeping",
    "CREATE INDEX housekeeping_due ON housekeeping (next_action_at)",
];
const ONLY_ON_POSTGRES: [&str; 2] = [
    "ALTER TABLE housekeeping RENAME CONSTRAINT tasks_pkey TO housekeeping_pkey",
    "ALTER TABLE housekeeping RENAME CONSTRAINT tasks_task_key TO housekeeping_task_key",
];

/// The version that a database of today has.
pub fn newest() -> i64 {
    sqlx::migrate!("migrations/sqlite").iter().map(|one| one.version).max().unwrap()
}

/// Applies the former migrations up to `version` to a database that is empty or has some of them.
pub async fn make(url: &str, version: i64) {
    if url.starts_with("postgres") {
        let mut connection = PgConnection::connect(url).await.unwrap();
        POSTGRES.run_to(version, &mut connection).await.unwrap();
    } else {
        SQLITE.run_to(version, &mut sqlite(url).await).await.unwrap();
    }
}

/// Gives a database of today its former names, with the former migrations up to `version` noted as applied.
/// Whoever turns back further than the last one undoes what the others did.
pub async fn turn_back(url: &str, version: i64) {
    let indexes = LATER_INDEXES.map(|index| format!("DROP INDEX {index}"));
    let tables = LATER_TABLES.map(|table| format!("DROP TABLE {table}"));
    let columns =
        LATER_COLUMNS.map(|(table, column)| format!("ALTER TABLE {table} DROP COLUMN {column}"));
    for later in indexes.iter().chain(&tables).chain(&columns) {
        execute(url, &[later.as_str()]).await;
    }
    execute(url, &RENAMED_BACK).await;
    if url.starts_with("postgres") {
        execute(url, &ONLY_ON_POSTGRES).await;
    }
    execute(url, &["DELETE FROM _sqlx_migrations"]).await;
    if url.starts_with("postgres") {
        note(&POSTGRES, version, &mut PgConnection::connect(url).await.unwrap()).await;
    } else {
        note(&SQLITE, version, &mut sqlite(url).await).await;
    }
}

pub async fn execute(url: &str, statements: &[&str]) {
    for statement in statements {
        let statement = AssertSqlSafe(*statement);
        if url.starts_with("postgres") {
            let mut connection = PgConnection::connect(url).await.unwrap();
            sqlx::query(statement).execute(&mut connection).await.unwrap();
        } else {
            let mut connection = sqlite(url).await;
            sqlx::query(statement).execute(&mut connection).await.unwrap();
        }
    }
}

async fn note<C: Migrate>(migrator: &Migrator, version: i64, connection: &mut C) {
    migrator.run_direct(Some(version), connection, true).await.unwrap();
}

async fn sqlite(url: &str) -> SqliteConnection {
    let options: SqliteConnectOptions = url.parse().unwrap();
    options.create_if_missing(true).connect().await.unwrap()
}
