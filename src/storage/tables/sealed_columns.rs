//! Every column that holds sealed secrets, to be sealed anew under another master key.

use std::sync::LazyLock;

use sqlx::FromRow;
use uuid::Uuid;

use crate::secret::{Place, Sealed};
use crate::storage::engine::{
    Change, Listed, Query, Read, Statement, StorageError, Tx, execute, fetch,
};

/// A column of sealed secrets.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// `table/column` of the place that its secrets are sealed for; the row's identifier follows.
    pub place: &'static str,
    /// What its secrets are, before the name of their row.
    pub noun: &'static str,
    is_of_certificate: bool,
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
    /// The row's name for people.
    pub name: String,
    /// The place that it is sealed for.
    pub place: Place,
    /// What is stored.
    pub sealed: Sealed,
}

/// Whose the secrets of a table are, and what their rows are called.
#[derive(Debug, Clone, Copy)]
enum Owner {
    /// The namespace of a row that has a name.
    Named,
    /// The namespace of a row that has none.
    Unnamed,
    /// The certificate of a row that belongs to one, in its namespace.
    Certificate,
}

/// A column of `table` that holds what is sealed for `place`.
fn column(place: &'static str, noun: &'static str, table: &'static str, owner: Owner) -> Column {
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
    let (certificate, row) = match (owner, table) {
        (Owner::Certificate, "requests") => ("certificate_id", "id"),
        (Owner::Certificate, _) => ("certificate_id", "request_id"),
        // Not asked for.
        (Owner::Named | Owner::Unnamed, _) => ("id", "id"),
    };
    let (namespace, name) = match (owner, table) {
        (_, "revisions") => (
            "COALESCE((SELECT namespace FROM certificates WHERE id = certificate_id), '')",
            "COALESCE((SELECT name FROM certificates WHERE id = certificate_id), '') || ', revision ' || revision",
        ),
        (_, "revocations") => ("namespace", "'revision ' || revision"),
        (Owner::Unnamed, _) => ("namespace", "''"),
        (Owner::Named | Owner::Certificate, _) => ("namespace", "name"),
    };
    let list = format!(
        "SELECT {id} AS id, {number} AS number, {row} AS place, {certificate} AS certificate, {namespace} AS namespace,
            {name} AS name, {column} AS sealed
         FROM {table} WHERE {after} AND length({column}) > 0 ORDER BY 1, 2 LIMIT $3"
    );
    let replace = format!("UPDATE {table} SET {column} = $4 WHERE {is} AND {column} = $3");
    let text = |statement: &str| format!("sealed_columns::{statement} {table}.{column}");
    Column {
        place,
        noun,
        is_of_certificate: matches!(owner, Owner::Certificate),
        list: Query(Statement::both(text("LIST"), list)),
        replace: Change::of(table, Statement::both(text("REPLACE"), replace)),
    }
}

/// Every column that holds sealed secrets; a test compares with the migrations.
pub static COLUMNS: LazyLock<[Column; 8]> = LazyLock::new(|| {
    use Owner::{Certificate, Named, Unnamed};
    [
        column("secrets/data", "Secret", "secrets", Named),
        column("issuers/account_key", "account key of the issuer", "issuers", Named),
        column("webhooks/secret", "signing secret of a webhook in", "webhooks", Unnamed),
        column(
            "webhooks/former_secret",
            "former signing secret of a webhook in",
            "webhooks",
            Unnamed,
        ),
        column("requests/private_key", "private key of the request", "requests", Certificate),
        column("requests/private_key", "private key of", "revisions", Certificate),
        column("issuers/next_account_key", "next account key of the issuer", "issuers", Named),
        column(
            "requests/private_key",
            "private key of a revocation in",
            "revocations",
            Certificate,
        ),
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
    certificate: Uuid,
    namespace: String,
    name: String,
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
    let envelope = |row: Row| {
        let Row { namespace, certificate, .. } = &row;
        let place = format!("{}/{}", column.place, row.place);
        let place = if column.is_of_certificate {
            Place::new(place, &format!("{certificate}/{namespace}"))
        } else {
            Place::new(place, namespace)
        };
        let name = format!("{namespace}/{}", row.name);
        Envelope { key: (row.id, row.number), name, place, sealed: Sealed(row.sealed) }
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
