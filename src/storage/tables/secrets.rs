//! Stored credentials: sealed as a whole, with the names of their keys in the clear.

use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::audit;
use crate::domain::id::SecretId;
use crate::domain::scope::Scope;
use crate::secret::{Place, Sealed};
use crate::storage::Db;
use crate::storage::engine::query::Filter;
use crate::storage::engine::{
    Page, Read, Rows, StorageError, Stored, Tx, execute, fetch, json, millis, moment, statements,
    table,
};

table! {
    struct Row of secrets {
        id: Uuid,
        namespace: String,
        name: String,
        data_keys: String,
        created_at: i64,
        updated_at: i64,
    }
}

statements! {
    INSERT adds(secrets) = "INSERT INTO secrets (id, namespace, name, data, data_keys, created_at, updated_at)
        VALUES ($1, $2, $3, $4, $5, $6, $6)";
    UPDATE writes(secrets) = "UPDATE secrets SET data = $2, data_keys = $3, updated_at = $4 WHERE id = $1";
    DELETE writes(secrets) = "DELETE FROM secrets WHERE id = $1";
    FIND = Row::select("WHERE id = $1");
    FIND_BY_NAME = format!(
        "SELECT data, {} FROM secrets WHERE namespace = $1 AND name = $2",
        Row::COLUMNS.names()
    );
    DATA = "SELECT id, data FROM secrets WHERE namespace = $1 AND name = $2";
}

/// Which secrets are wanted; everything that is given must hold.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Of this namespace.
    pub namespace: Option<String>,
    /// Of this name.
    pub name: Option<String>,
}

/// What is known about a secret without opening it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretEntry {
    /// Our name for it.
    pub id: SecretId,
    /// Whose it is.
    pub namespace: String,
    /// The client's name for it.
    pub name: String,
    /// The names of the values that it holds.
    pub keys: Vec<String>,
    /// When it was stored first.
    pub created_at: OffsetDateTime,
    /// When its values were last set.
    pub updated_at: OffsetDateTime,
}

/// The place that a secret's values are sealed for.
pub fn data_place(namespace: &str, id: SecretId) -> Place {
    Place::new(format!("secrets/data/{id}"), namespace)
}

/// Adds a secret.
pub async fn insert(tx: &mut Tx, secret: &SecretEntry, data: &Sealed) -> Result<(), StorageError> {
    audit::changes(tx, "secrets", secret.id.0, &secret.namespace);
    execute!(
        tx,
        INSERT,
        secret.id.0,
        secret.namespace.as_str(),
        secret.name.as_str(),
        data.0.as_slice(),
        json(&secret.keys),
        millis(secret.created_at),
    )?;
    Ok(())
}

/// Sets a secret's values anew.
pub async fn update(tx: &mut Tx, secret: &SecretEntry, data: &Sealed) -> Result<(), StorageError> {
    audit::changes(tx, "secrets", secret.id.0, &secret.namespace);
    execute!(
        tx,
        UPDATE,
        secret.id.0,
        data.0.as_slice(),
        json(&secret.keys),
        millis(secret.updated_at),
    )?;
    Ok(())
}

/// Forgets a secret.
pub async fn delete(tx: &mut Tx, id: SecretId) -> Result<(), StorageError> {
    execute!(tx, DELETE, id.0)?;
    Ok(())
}

/// A secret that the caller may see, without its values.
pub async fn find(
    read: &mut Read,
    id: SecretId,
    scope: &Scope,
) -> Result<Option<SecretEntry>, StorageError> {
    let row: Option<Row> = fetch!(fetch_optional, read, FIND, id.0)?;
    row.filter(|row| scope.covers(&row.namespace)).map(Row::into_entry).transpose()
}

/// A secret by the client's name for it, with its sealed values.
pub async fn find_by_name(
    read: &mut Read,
    namespace: &str,
    name: &str,
) -> Result<Option<(SecretEntry, Sealed)>, StorageError> {
    let row: Option<WithData> = fetch!(fetch_optional, read, FIND_BY_NAME, namespace, name)?;
    row.map(|found| Ok((found.row.into_entry()?, Sealed(found.data)))).transpose()
}

/// The sealed values of a secret, with the identifier that they are sealed for.
pub async fn data(
    read: &mut Read,
    namespace: &str,
    name: &str,
) -> Result<Option<(SecretId, Sealed)>, StorageError> {
    let row: Option<(Uuid, Vec<u8>)> = fetch!(fetch_optional, read, DATA, namespace, name)?;
    Ok(row.map(|(id, data)| (SecretId(id), Sealed(data))))
}

/// Like [`data`], from memory where it was read lately and nobody else can have changed it.
pub async fn cached_data(
    db: &Db,
    namespace: &str,
    name: &str,
) -> Result<Option<(SecretId, Sealed)>, StorageError> {
    let read = async || data(&mut db.read().await?, namespace, name).await;
    db.cache.secrets.get((namespace.to_owned(), name.to_owned()), read).await
}

/// A page of secrets, by identifier, without their values.
pub async fn list(
    read: &mut Read,
    scope: &Scope,
    wanted: &Wanted,
    page: Page,
) -> Result<Rows<SecretEntry>, StorageError> {
    let mut filter = Filter::within("namespace", scope.namespaces());
    filter.and_if("namespace = ?", wanted.namespace.as_ref());
    filter.and_if("name = ?", wanted.name.as_ref());
    let rows: Rows<Row> = filter.page(read, &Row::select(""), "id", page).await?;
    rows.map(Row::into_entry)
}

#[derive(FromRow)]
struct WithData {
    #[sqlx(flatten)]
    row: Row,
    data: Vec<u8>,
}

impl Row {
    fn into_entry(self) -> Result<SecretEntry, StorageError> {
        Ok(SecretEntry {
            id: SecretId(self.id),
            keys: Stored("secrets", self.id).document(&self.data_keys)?,
            namespace: self.namespace,
            name: self.name,
            created_at: moment(self.created_at),
            updated_at: moment(self.updated_at),
        })
    }
}
