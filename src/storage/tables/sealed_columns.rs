//! Every column that holds sealed secrets, to be sealed anew under another master key.

use std::sync::LazyLock;

use sqlx::FromRow;
use uuid::Uuid;

use crate::secret::Sealed;
use crate::storage::engine::{
    Change, Listed, Query, Read, Statement, StorageError, Tx, execute, fetch,
};

/// A column of sealed secrets.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// `table/column` of the place that its secrets are sealed for; the row's identifier follows.
    pub place: &'static str,
    list: Query,
    replace: Change,
}

/// Where a row stands in its table; rows are gone through in this order.
pub type Key = (Uuid, i64);

/// A sealed secret in its row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Its row.
    pub key: Key,
    /// The place that it is sealed for.
    pub place: String,
    /// What is stored.
    pub sealed: Sealed,
}

/// A column of `table` that holds what is sealed for `place`; `row` is the column that says for which row.
fn column(place: &'static str, table: &'static str, row: &str) -> Column {
    let (_, column) = place.split_once('/').unwrap_or_default();
    // Rows of most tables have no number: any will do.
    let (id, number, after, is) = match table {
        "revisions" => (
            "certificate_id",
            "revision",
            "(certificate_id, revision) > ($1, $2)",
            "certificate_id = $1 AND revision = $2",
        ),
        _ => ("id", "$2", "id > $1", "id = $1 AND $2 = $2"),
    };
    let list = format!(
        "SELECT {id} AS id, {number} AS number, {row} AS place, {column} AS sealed FROM {table}
         WHERE {after} AND length({column}) > 0 ORDER BY 1, 2 LIMIT $3"
    );
    let replace = format!("UPDATE {table} SET {column} = $4 WHERE {is} AND {column} = $3");
    let name = |statement: &str| format!("sealed_columns::{statement} {table}.{column}");
    Column {
        place,
        list: Query(Statement::both(name("LIST"), list)),
        replace: Change::of(table, Statement::both(name("REPLACE"), replace)),
    }
}

/// Every column that holds sealed secrets; a test compares with the migrations.
pub static COLUMNS: LazyLock<[Column; 8]> = LazyLock::new(|| {
    [
        column("secrets/data", "secrets", "id"),
        column("issuers/account_key", "issuers", "id"),
        column("webhooks/secret", "webhooks", "id"),
        column("webhooks/former_secret", "webhooks", "id"),
        column("requests/private_key", "requests", "id"),
        column("requests/private_key", "revisions", "request_id"),
        column("issuers/next_account_key", "issuers", "id"),
        column("requests/private_key", "revocations", "request_id"),
    ]
});

pub(in crate::storage) fn all() -> Vec<Listed> {
    COLUMNS.iter().flat_map(|column| [column.list.listed(), column.replace.listed()]).collect()
}

#[derive(FromRow)]
struct Row {
    id: Uuid,
    number: i64,
    place: Uuid,
    sealed: Vec<u8>,
}

/// The envelopes of a column that come after a row, at most `limit`.
pub async fn list(
    read: &mut Read,
    column: &Column,
    after: Key,
    limit: u32,
) -> Result<Vec<Envelope>, StorageError> {
    let rows: Vec<Row> = fetch!(fetch_all, read, column.list, after.0, after.1, i64::from(limit))?;
    let envelope = |row: Row| Envelope {
        key: (row.id, row.number),
        place: format!("{}/{}", column.place, row.place),
        sealed: Sealed(row.sealed),
    };
    Ok(rows.into_iter().map(envelope).collect())
}

/// Puts an envelope in the place of the one that was read; says whether that was still there.
pub async fn replace(
    tx: &mut Tx,
    column: &Column,
    known: &Envelope,
    next: &Sealed,
) -> Result<bool, StorageError> {
    let (id, number) = known.key;
    let (old, new) = (known.sealed.0.as_slice(), next.0.as_slice());
    Ok(execute!(tx, column.replace, id, number, old, new)? == 1)
}
