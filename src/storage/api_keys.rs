//! API keys: who may ask for what. Only a key's SHA-256 is kept.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::filter::Filter;
use super::{
    Db, Page, Scope, StorageError, Tx, document, execute, fetch, json, millis, moment, statements,
};
use crate::domain::id::ApiKeyId;

statements! {
    INSERT = "INSERT INTO api_keys (id, name, key_hash, permissions, namespaces, created_at)
        VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (key_hash) DO NOTHING";
    FIND_BY_HASH = "SELECT id, name, permissions, namespaces FROM api_keys WHERE key_hash = $1";
    FIND = "SELECT id, name, permissions, namespaces FROM api_keys WHERE id = $1";
    DELETE = "DELETE FROM api_keys WHERE id = $1";
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
    tx.keys_change();
    Ok(added == 1)
}

/// The key with this SHA-256, from memory where it was shown lately.
pub async fn recognise(db: &Db, hash: &[u8]) -> Result<Option<ApiKey>, StorageError> {
    let known = &db.0.known_keys;
    let generation = match known.get(hash) {
        Ok(key) => return Ok(Some(key)),
        Err(generation) => generation,
    };
    let found = find_by_hash(&mut db.read().await?, hash).await?;
    if let Some(key) = &found {
        known.put(hash, key, generation);
    }
    Ok(found)
}

/// Keys that were shown lately. With every transaction that changes a key, all are forgotten: on SQLite
/// this process is the only one that writes. On PostgreSQL the other replicas hear of it at once, and
/// should that get lost, [`BELIEVED`] later.
pub(super) struct KnownKeys {
    is_shared: bool,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    generation: u64,
    keys: HashMap<Vec<u8>, (Instant, ApiKey)>,
}

/// Keys in memory, at most.
const MOST_KNOWN: usize = 1_000;

/// How long a key is believed in without a look, where others may forget it.
const BELIEVED: Duration = Duration::from_secs(1);

impl KnownKeys {
    /// None yet. `is_shared` says whether other processes write to the database.
    pub(super) fn new(is_shared: bool) -> Self {
        Self { is_shared, known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key, or the generation that is to be told with what is read from the database now.
    fn get(&self, hash: &[u8]) -> Result<ApiKey, u64> {
        let known = self.known();
        let fresh = |(since, _): &&(Instant, _)| !self.is_shared || since.elapsed() < BELIEVED;
        known.keys.get(hash).filter(fresh).map(|(_, key)| key.clone()).ok_or(known.generation)
    }

    fn put(&self, hash: &[u8], key: &ApiKey, generation: u64) {
        let mut known = self.known();
        if known.generation != generation {
            return;
        }
        if known.keys.len() >= MOST_KNOWN {
            known.keys.clear();
        }
        known.keys.insert(hash.to_vec(), (Instant::now(), key.clone()));
    }

    pub(super) fn forget(&self) {
        let mut known = self.known();
        known.generation += 1;
        known.keys.clear();
    }
}

/// The key with this SHA-256.
pub async fn find_by_hash(tx: &mut Tx, hash: &[u8]) -> Result<Option<ApiKey>, StorageError> {
    let row: Option<Row> = fetch!(fetch_optional, tx, FIND_BY_HASH, hash)?;
    row.map(Row::into_key).transpose()
}

/// The key as it is now, if it is still there.
pub async fn find(tx: &mut Tx, id: ApiKeyId) -> Result<Option<ApiKey>, StorageError> {
    let row: Option<Row> = fetch!(fetch_optional, tx, FIND, id.0)?;
    row.map(Row::into_key).transpose()
}

/// Whether there is any key yet.
pub async fn any(tx: &mut Tx) -> Result<bool, StorageError> {
    let row: Option<(Uuid,)> = fetch!(fetch_optional, tx, ANY)?;
    Ok(row.is_some())
}

/// Forgets a key: whoever bears it is refused from now on.
pub async fn delete(tx: &mut Tx, id: ApiKeyId) -> Result<(), StorageError> {
    execute!(tx, DELETE, id.0)?;
    tx.keys_change();
    Ok(())
}

/// A page of keys, by identifier, each with when it was made.
pub async fn list(tx: &mut Tx, page: Page) -> Result<Vec<(ApiKey, OffsetDateTime)>, StorageError> {
    let select = "SELECT id, name, permissions, namespaces, created_at FROM api_keys";
    let rows: Vec<Listed> = Filter::default().page(tx, select, "id", page).await?;
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

#[derive(FromRow)]
struct Row {
    id: Uuid,
    name: String,
    permissions: String,
    namespaces: Option<String>,
}

impl Row {
    fn into_key(self) -> Result<ApiKey, StorageError> {
        let scope = match self.namespaces {
            None => Scope::Everything,
            Some(names) => Scope::Namespaces(document(&names, "api_keys", self.id)?),
        };
        Ok(ApiKey {
            id: ApiKeyId(self.id),
            name: self.name,
            permissions: document(&self.permissions, "api_keys", self.id)?,
            scope,
        })
    }
}
