//! API keys: who may ask for what. Only a key's SHA-256 is kept.

use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::id::ApiKeyId;
use crate::domain::scope::Scope;
use crate::storage::Db;
use crate::storage::engine::query::{Filter, Value};
use crate::storage::engine::{
    Page, Read, StorageError, Stored, Tx, execute, fetch, json, millis, moment, statements, table,
};

table! {
    struct Row of api_keys {
        id: Uuid,
        name: String,
        permissions: String,
        namespaces: Option<String>,
    }
}

statements! {
    INSERT writes(api_keys) = "INSERT INTO api_keys (id, name, key_hash, permissions, namespaces, created_at)
        VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (key_hash) DO NOTHING";
    FIND_BY_HASH = Row::select("WHERE key_hash = $1");
    FIND = Row::select("WHERE id = $1");
    DELETE writes(api_keys) = "DELETE FROM api_keys WHERE id = $1";
    ANY = "SELECT id FROM api_keys LIMIT 1";
}

/// A key's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Our name for it.
    pub id: ApiKeyId,
    /// The person's name for it.
    pub name: String,
    /// What its bearer may do, such as `certificates:write`; `*` is everything.
    pub permissions: Vec<String>,
    /// Where.
    pub scope: Scope,
}

/// Adds a key; says whether it was new.
pub async fn insert(
    tx: &mut Tx,
    key: &ApiKey,
    hash: &[u8],
    now: OffsetDateTime,
) -> Result<bool, StorageError> {
    let namespaces = match &key.scope {
        Scope::Everything => None,
        Scope::Namespaces(names) => Some(json(names)),
    };
    let added = execute!(
        tx,
        INSERT,
        key.id.0,
        key.name.as_str(),
        hash,
        json(&key.permissions),
        namespaces,
        millis(now),
    )?;
    Ok(added == 1)
}

/// The key with this SHA-256, from memory where it was shown lately.
pub async fn recognise(db: &Db, hash: &[u8]) -> Result<Option<ApiKey>, StorageError> {
    let read = async || find_by_hash(&mut db.read().await?, hash).await;
    db.cache.api_keys.get(hash.to_vec(), read).await
}

/// The key with this SHA-256.
pub async fn find_by_hash(read: &mut Read, hash: &[u8]) -> Result<Option<ApiKey>, StorageError> {
    let row: Option<Row> = fetch!(fetch_optional, read, FIND_BY_HASH, hash)?;
    row.map(Row::into_key).transpose()
}

/// The key as it is now, if it is still there.
pub async fn find(read: &mut Read, id: ApiKeyId) -> Result<Option<ApiKey>, StorageError> {
    let row: Option<Row> = fetch!(fetch_optional, read, FIND, id.0)?;
    row.map(Row::into_key).transpose()
}

/// Whether there is any key yet.
pub async fn any(read: &mut Read) -> Result<bool, StorageError> {
    let row: Option<(Uuid,)> = fetch!(fetch_optional, read, ANY)?;
    Ok(row.is_some())
}

/// Forgets a key: whoever bears it is refused from now on.
pub async fn delete(tx: &mut Tx, id: ApiKeyId) -> Result<(), StorageError> {
    execute!(tx, DELETE, id.0)?;
    Ok(())
}

/// A page of the keys that are bound to nothing outside `scope`, by identifier, each with when it was made.
pub async fn list(
    read: &mut Read,
    scope: &Scope,
    page: Page,
) -> Result<Vec<(ApiKey, OffsetDateTime)>, StorageError> {
    let select = "SELECT id, name, permissions, namespaces, created_at FROM api_keys";
    let mut filter = Filter::default();
    if let Scope::Namespaces(names) = scope {
        let each = if read.is_sqlite() {
            "json_each(api_keys.namespaces) AS one"
        } else {
            "json_array_elements_text(namespaces::json) AS one (value)"
        };
        let allowed = vec!["?"; names.len()].join(", ");
        let outside = format!("SELECT 1 FROM {each} WHERE one.value NOT IN ({allowed})");
        let names = names.iter().map(|name| Value::Text(name.clone()));
        filter.and_that("namespaces IS NOT NULL");
        filter.and_each(&format!("NOT EXISTS ({outside})"), names);
    }
    let rows: Vec<Listed> = filter.page(read, select, "id", page).await?;
    rows.into_iter()
        .map(|Listed { row, created_at }| Ok((row.into_key()?, moment(created_at))))
        .collect()
}

#[derive(FromRow)]
struct Listed {
    #[sqlx(flatten)]
    row: Row,
    created_at: i64,
}

impl Row {
    fn into_key(self) -> Result<ApiKey, StorageError> {
        let row = Stored("api_keys", self.id);
        let scope = match self.namespaces {
            None => Scope::Everything,
            Some(names) => Scope::Namespaces(row.document(&names)?),
        };
        Ok(ApiKey {
            id: ApiKeyId(self.id),
            name: self.name,
            permissions: row.document(&self.permissions)?,
            scope,
        })
    }
}
