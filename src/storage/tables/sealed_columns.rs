//! Every column that holds sealed secrets, to be sealed anew under another master key.

use sqlx::FromRow;
use uuid::Uuid;

use crate::secret::Sealed;
use crate::storage::engine::{
    Change, Listed, Query, Read, Statement, StorageError, Touch, Tx, execute, fetch,
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

macro_rules! column {
    ($place:literal, $table:literal, $column:literal) => {
        Column {
            place: $place,
            list: Query(Statement::both(
                concat!("sealed_columns::LIST ", $table),
                concat!(
                    "SELECT id, $2 AS number, id AS place, ",
                    $column,
                    " AS sealed FROM ",
                    $table,
                    " WHERE id > $1 ORDER BY id LIMIT $3"
                ),
            )),
            replace: Change::new(
                Statement::both(
                    concat!("sealed_columns::REPLACE ", $table),
                    concat!(
                        "UPDATE ",
                        $table,
                        " SET ",
                        $column,
                        " = $4 WHERE id = $1 AND $2 = $2 AND ",
                        $column,
                        " = $3"
                    ),
                ),
                &[Touch::Writes(&[$table])],
            ),
        }
    };
}

/// Every column that holds sealed secrets; a test compares with the migrations.
pub const COLUMNS: &[Column] = &[
    column!("secrets/data", "secrets", "data"),
    column!("issuers/account_key", "issuers", "account_key"),
    column!("webhooks/secret", "webhooks", "secret"),
    Column {
        place: "webhooks/former_secret",
        list: Query(Statement::both(
            "sealed_columns::LIST former secrets",
            "SELECT id, $2 AS number, id AS place, former_secret AS sealed FROM webhooks
             WHERE id > $1 AND former_secret IS NOT NULL ORDER BY id LIMIT $3",
        )),
        replace: Change::new(Statement::both(
            "sealed_columns::REPLACE former secrets",
            "UPDATE webhooks SET former_secret = $4
             WHERE id = $1 AND $2 = $2 AND former_secret = $3",
        ), &[Touch::Writes(&["webhooks"])]),
    },
    // A key that a client holds is empty.
    Column {
        place: "requests/private_key",
        list: Query(Statement::both(
            "sealed_columns::LIST requests",
            "SELECT id, $2 AS number, id AS place, private_key AS sealed FROM requests
             WHERE id > $1 AND length(private_key) > 0 ORDER BY id LIMIT $3",
        )),
        replace: Change::new(Statement::both(
            "sealed_columns::REPLACE requests",
            "UPDATE requests SET private_key = $4 WHERE id = $1 AND $2 = $2 AND private_key = $3",
        ), &[Touch::Writes(&["requests"])]),
    },
    // A revision's key is its request's, as it is sealed there.
    Column {
        place: "requests/private_key",
        list: Query(Statement::both(
            "sealed_columns::LIST revisions",
            "SELECT certificate_id AS id, revision AS number, request_id AS place, private_key AS sealed
             FROM revisions
             WHERE (certificate_id, revision) > ($1, $2) AND length(private_key) > 0
             ORDER BY certificate_id, revision LIMIT $3",
        )),
        replace: Change::new(Statement::both(
            "sealed_columns::REPLACE revisions",
            "UPDATE revisions SET private_key = $4
             WHERE certificate_id = $1 AND revision = $2 AND private_key = $3",
        ), &[Touch::Writes(&["revisions"])]),
    },
    Column {
        place: "issuers/next_account_key",
        list: Query(Statement::both(
            "sealed_columns::LIST next account keys",
            "SELECT id, $2 AS number, id AS place, next_account_key AS sealed FROM issuers
             WHERE id > $1 AND next_account_key IS NOT NULL ORDER BY id LIMIT $3",
        )),
        replace: Change::new(Statement::both(
            "sealed_columns::REPLACE next account keys",
            "UPDATE issuers SET next_account_key = $4
             WHERE id = $1 AND $2 = $2 AND next_account_key = $3",
        ), &[Touch::Writes(&["issuers"])]),
    },
    // A copy of the revision's, while it may be needed.
    Column {
        place: "requests/private_key",
        list: Query(Statement::both(
            "sealed_columns::LIST revocations",
            "SELECT id, $2 AS number, request_id AS place, private_key AS sealed FROM revocations
             WHERE id > $1 AND length(private_key) > 0 ORDER BY id LIMIT $3",
        )),
        replace: Change::new(Statement::both(
            "sealed_columns::REPLACE revocations",
            "UPDATE revocations SET private_key = $4
             WHERE id = $1 AND $2 = $2 AND private_key = $3",
        ), &[Touch::Writes(&["revocations"])]),
    },
];

/// Every statement of this module.
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
