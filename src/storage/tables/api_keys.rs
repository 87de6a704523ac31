//! API keys: who may ask for what. Only the SHA-256 of a key's values is kept.

use time::OffsetDateTime;
use uuid::Uuid;

use super::audit;
use crate::domain::api_key::{ApiKey, Rotation, Value};
use crate::domain::id::ApiKeyId;
use crate::domain::role::Role;
use crate::domain::scope::Scope;
use crate::storage::Db;
use crate::storage::engine::query::{Filter, Value as Bound};
use crate::storage::engine::{
    Page, Read, StorageError, Stored, Tx, execute, fetch, json, millis, moment, statements, table,
};

/// The row of `settings` with the hash of the `bootstrap.api_key` that was last taken.
pub const CONFIGURED: &str = "bootstrap_api_key";

table! {
    struct Row of api_keys {
        id: Uuid,
        name: String,
        description: Option<String>,
        role: Option<String>,
        permissions: String,
        namespaces: Option<String>,
        expires_at: Option<i64>,
        created_at: i64,
        created_by: Option<String>,
        key_hash: Vec<u8>,
        rotated_at: Option<i64>,
        former_until: Option<i64>,
        used_at: Option<i64>,
    }
}

fn select(condition: &str) -> String {
    Row::select(&format!("LEFT JOIN api_key_uses ON api_key_id = id {condition}"))
}

statements! {
    INSERT writes(api_keys) = "INSERT INTO api_keys
            (id, name, description, role, permissions, namespaces, expires_at, created_at, created_by, key_hash)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (key_hash) DO NOTHING";
    FIND_BY_HASH = select("WHERE key_hash = $1 OR former_hash = $1");
    FIND = select("WHERE id = $1");
    // The value before the former one ends now, whatever end it had.
    ROTATE writes(api_keys) = "UPDATE api_keys SET
            former_hash = CASE WHEN CAST($4 AS BIGINT) IS NULL THEN NULL ELSE key_hash END,
            key_hash = $2, rotated_at = $3, former_until = $4
        WHERE id = $1";
    USED writes(api_key_uses) reads(api_keys) = "INSERT INTO api_key_uses (api_key_id, used_at)
        SELECT id, CAST($2 AS BIGINT) FROM api_keys WHERE id = $1
        ON CONFLICT (api_key_id) DO UPDATE SET used_at = excluded.used_at WHERE api_key_uses.used_at < excluded.used_at";
    DELETE writes(api_keys, api_key_uses) = "DELETE FROM api_keys WHERE id = $1";
    IS_CONFIGURED = "SELECT keys.id FROM api_keys AS keys JOIN settings ON settings.value = keys.key_hash
        WHERE keys.id = $1 AND settings.name = $2";
    ANY = "SELECT id FROM api_keys LIMIT 1";
}

/// Adds a key whose value has this hash; says whether it was new.
pub async fn insert(tx: &mut Tx, key: &ApiKey, hash: &[u8]) -> Result<bool, StorageError> {
    audit::changes(tx, "apiKeys", key.id.0, "");
    let added = execute!(
        tx,
        INSERT,
        key.id.0,
        key.name.as_str(),
        key.description.as_deref(),
        key.role.map(Role::as_str),
        json(&key.permissions),
        key.scope.namespaces().map(|names| json(&names)),
        key.expires_at.map(millis),
        millis(key.created_at),
        key.created_by.as_ref().map(json),
        hash,
    )?;
    Ok(added == 1)
}

/// The key that a value with this SHA-256 belongs to, from memory where it was shown lately. Whether the value
/// still counts is for [`ApiKey::admits`] to say.
pub async fn recognise(db: &Db, hash: &[u8]) -> Result<Option<(ApiKey, Value)>, StorageError> {
    let read = async || find_by_hash(&mut db.read().await?, hash).await;
    db.cache.api_keys.get(hash.to_vec(), read).await
}

/// The same from the database.
pub async fn find_by_hash(
    read: &mut Read,
    hash: &[u8],
) -> Result<Option<(ApiKey, Value)>, StorageError> {
    let row: Option<Row> = fetch!(fetch_optional, read, FIND_BY_HASH, hash)?;
    let Some(row) = row else { return Ok(None) };
    let value = if row.key_hash == hash { Value::Current } else { Value::Former };
    Ok(Some((row.into_key()?, value)))
}

/// The key as it is now, if it is still there.
pub async fn find(read: &mut Read, id: ApiKeyId) -> Result<Option<ApiKey>, StorageError> {
    let row: Option<Row> = fetch!(fetch_optional, read, FIND, id.0)?;
    row.map(Row::into_key).transpose()
}

/// Whether this is the key of the setting `bootstrap.api_key`.
pub async fn is_configured(read: &mut Read, id: ApiKeyId) -> Result<bool, StorageError> {
    let row: Option<(Uuid,)> = fetch!(fetch_optional, read, IS_CONFIGURED, id.0, CONFIGURED)?;
    Ok(row.is_some())
}

/// Whether there is any key yet.
pub async fn any(read: &mut Read) -> Result<bool, StorageError> {
    let row: Option<(Uuid,)> = fetch!(fetch_optional, read, ANY)?;
    Ok(row.is_some())
}

/// Gives a key another value. The present one counts until `rotation.former_until`, the one before it no more.
pub async fn rotate(
    tx: &mut Tx,
    id: ApiKeyId,
    hash: &[u8],
    rotation: Rotation,
) -> Result<(), StorageError> {
    audit::changes(tx, "apiKeys", id.0, "");
    let former_until = rotation.former_until.map(millis);
    execute!(tx, ROTATE, id.0, hash, millis(rotation.rotated_at), former_until)?;
    Ok(())
}

/// Notes that a key was used on this day. A key that is gone has no uses.
pub async fn used(tx: &mut Tx, id: ApiKeyId, day: OffsetDateTime) -> Result<(), StorageError> {
    execute!(tx, USED, id.0, millis(day))?;
    Ok(())
}

/// Forgets a key: whoever bears it is refused from now on.
pub async fn delete(tx: &mut Tx, id: ApiKeyId) -> Result<(), StorageError> {
    audit::changes(tx, "apiKeys", id.0, "");
    execute!(tx, DELETE, id.0)?;
    Ok(())
}

/// A page of the keys that are bound to nothing outside `scope`, of this name if one is given, by identifier.
pub async fn list(
    read: &mut Read,
    scope: &Scope,
    name: Option<&str>,
    page: Page,
) -> Result<Vec<ApiKey>, StorageError> {
    let mut filter = Filter::default();
    filter.and_if("name = ?", name);
    if let Scope::Namespaces(names) = scope {
        let each = if read.is_sqlite() {
            "json_each(api_keys.namespaces) AS one"
        } else {
            "json_array_elements_text(namespaces::json) AS one (value)"
        };
        let allowed = vec!["?"; names.len()].join(", ");
        let outside = format!("SELECT 1 FROM {each} WHERE one.value NOT IN ({allowed})");
        let names = names.iter().map(|name| Bound::Text(name.clone()));
        filter.and_that("namespaces IS NOT NULL");
        filter.and_each(&format!("NOT EXISTS ({outside})"), names);
    }
    let rows: Vec<Row> = filter.page(read, &select(""), "id", page).await?;
    rows.into_iter().map(Row::into_key).collect()
}

impl Row {
    fn into_key(self) -> Result<ApiKey, StorageError> {
        let row = Stored("api_keys", self.id);
        let role = self
            .role
            .as_deref()
            .map(|word| Role::parse(word).ok_or_else(|| row.corrupt(format!("no role: {word}"))));
        let scope = match self.namespaces {
            None => Scope::Everything,
            Some(names) => Scope::Namespaces(row.document(&names)?),
        };
        let created_by = self.created_by.map(|text| row.document(&text));
        let former_until = self.former_until.map(moment);
        Ok(ApiKey {
            id: ApiKeyId(self.id),
            name: self.name,
            description: self.description,
            role: role.transpose()?,
            permissions: row.document(&self.permissions)?,
            scope,
            expires_at: self.expires_at.map(moment),
            created_at: moment(self.created_at),
            created_by: created_by.transpose()?,
            rotation: self.rotated_at.map(|at| Rotation { rotated_at: moment(at), former_until }),
            last_used_at: self.used_at.map(moment),
        })
    }
}
