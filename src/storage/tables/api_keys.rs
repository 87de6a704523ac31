//! API keys: who may ask for what. Only the SHA-256 of a key's values is kept. Each row has a MAC over all that it
//! says: a row without the right one lets nobody in.

use std::sync::Arc;

use time::OffsetDateTime;
use uuid::Uuid;

use super::audit;
use super::grants::Grant;
use crate::domain::api_key::{ApiKey, Rotation, Value};
use crate::domain::id::ApiKeyId;
use crate::domain::role::Role;
use crate::domain::scope::Scope;
use crate::storage::Db;
use crate::storage::engine::query::{Filter, Value as Bound};
use crate::storage::engine::{
    Page, Read, Rows, StorageError, Stored, Tx, execute, fetch, json, millis, moment, statements,
    table,
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
        former_hash: Option<Vec<u8>>,
        rotated_at: Option<i64>,
        former_until: Option<i64>,
        mac: Option<Vec<u8>>,
        used_at: Option<i64>,
    }
}

fn select(condition: &str) -> String {
    Row::select(&format!("LEFT JOIN api_key_uses ON api_key_id = id {condition}"))
}

statements! {
    INSERT writes(api_keys) = "INSERT INTO api_keys
            (id, name, description, role, permissions, namespaces, expires_at, created_at, created_by, key_hash, mac)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (key_hash) DO NOTHING";
    FIND_BY_HASH = select("WHERE key_hash = $1 OR former_hash = $1");
    FIND = select("WHERE id = $1");
    PAGE = select("WHERE id > $1 ORDER BY id LIMIT $2");
    // The MAC is the fence: every change of the row is one of the MAC.
    ROTATE writes(api_keys) = "UPDATE api_keys SET key_hash = $3, former_hash = $4, rotated_at = $5, former_until = $6, mac = $7
        WHERE id = $1 AND mac = $2";
    SIGN writes(api_keys) = "UPDATE api_keys SET mac = $3 WHERE id = $1 AND mac IS NOT DISTINCT FROM $2";
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
    let row = Row::of(key, hash);
    let mac = tx.sign(&row.text())?;
    let added = execute!(
        tx,
        INSERT,
        row.id,
        row.name,
        row.description,
        row.role,
        row.permissions,
        row.namespaces,
        row.expires_at,
        row.created_at,
        row.created_by,
        row.key_hash,
        mac,
    )?;
    Ok(added == 1)
}

/// The key that a value with this SHA-256 belongs to, from memory where it was shown lately. Whether the value
/// still counts is for [`ApiKey::admits`] to say.
pub async fn recognise(db: &Db, hash: &[u8]) -> Result<Option<(Arc<ApiKey>, Value)>, StorageError> {
    let read = async || {
        let found = find_by_hash(&mut db.read().await?, hash).await?;
        Ok(found.map(|(key, value)| (Arc::new(key), value)))
    };
    db.cache.api_keys.get(hash.to_vec(), read).await
}

/// The same from the database. A row that the service did not write is nobody's.
pub async fn find_by_hash(
    read: &mut Read,
    hash: &[u8],
) -> Result<Option<(ApiKey, Value)>, StorageError> {
    let row: Option<Row> = fetch!(fetch_optional, read, FIND_BY_HASH, hash)?;
    let Some(row) = row else { return Ok(None) };
    if !row.is_authentic(read)? {
        return Ok(None);
    }
    let value = if row.key_hash == hash { Value::Current } else { Value::Former };
    Ok(Some((row.into_key()?, value)))
}

/// The key as it is now, if it is still there, for those who manage keys: also one that is refused.
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

/// Gives a key another value. The present one counts until `rotation.former_until`, the one before it no more. A row
/// that the service did not write gets none: what it says would count again.
pub async fn rotate(
    tx: &mut Tx,
    id: ApiKeyId,
    hash: &[u8],
    rotation: Rotation,
) -> Result<(), StorageError> {
    audit::changes(tx, "apiKeys", id.0, "");
    let row: Option<Row> = fetch!(fetch_optional, tx, FIND, id.0)?;
    let row = row.ok_or(StorageError::LeaseLost(id.0))?;
    if !row.is_authentic(tx)? {
        return Err(StorageError::NotAuthentic { table: "api_keys", id: id.0 });
    }
    let known = row.mac.clone();
    let former_until = rotation.former_until.map(millis);
    let next = Row {
        former_hash: former_until.is_some().then(|| row.key_hash.clone()),
        key_hash: hash.to_vec(),
        rotated_at: Some(millis(rotation.rotated_at)),
        former_until,
        ..row
    };
    let mac = tx.sign(&next.text())?;
    let Row { key_hash, former_hash, rotated_at, .. } = next;
    let changed =
        execute!(tx, ROTATE, id.0, known, key_hash, former_hash, rotated_at, former_until, mac)?;
    if changed == 1 { Ok(()) } else { Err(StorageError::LeaseLost(id.0)) }
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
) -> Result<Rows<ApiKey>, StorageError> {
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
    let rows: Rows<Row> = filter.page(read, &select(""), "id", page).await?;
    rows.map(Row::into_key)
}

/// The keys that come after this one, as they are signed.
pub(super) async fn grants(
    read: &mut Read,
    after: Uuid,
    limit: u32,
) -> Result<Vec<Grant>, StorageError> {
    let rows: Vec<Row> = fetch!(fetch_all, read, PAGE, after, i64::from(limit))?;
    let grant =
        |row: Row| Grant { id: row.id, text: row.text(), name: row.name.clone(), mac: row.mac };
    Ok(rows.into_iter().map(grant).collect())
}

/// Gives a key's row this MAC in place of the one that it had.
pub(super) async fn sign(tx: &mut Tx, grant: &Grant, mac: &[u8]) -> Result<bool, StorageError> {
    Ok(execute!(tx, SIGN, grant.id, grant.mac.as_deref(), mac)? == 1)
}

impl Row {
    fn of(key: &ApiKey, hash: &[u8]) -> Self {
        Self {
            id: key.id.0,
            name: key.name.clone(),
            description: key.description.clone(),
            role: key.role.map(|role| role.as_str().to_owned()),
            permissions: json(&key.permissions),
            namespaces: key.scope.namespaces().map(|names| json(&names)),
            expires_at: key.expires_at.map(millis),
            created_at: millis(key.created_at),
            created_by: key.created_by.as_ref().map(json),
            key_hash: hash.to_vec(),
            former_hash: None,
            rotated_at: None,
            former_until: None,
            mac: None,
            used_at: None,
        }
    }

    /// All that the row says, but for its last use: no two rows that say something else have the same.
    fn text(&self) -> String {
        let Self { id, name, description, role, permissions, namespaces, .. } = self;
        let Self { expires_at, created_at, created_by, .. } = self;
        let Self { key_hash, former_hash, rotated_at, former_until, .. } = self;
        let who = (id, name, description, role, permissions, namespaces);
        let since = (expires_at, created_at, created_by);
        json(&("api_keys", who, since, key_hash, former_hash, rotated_at, former_until))
    }

    fn is_authentic(&self, read: &Read) -> Result<bool, StorageError> {
        read.is_authentic(Stored("api_keys", self.id), &self.text(), self.mac.as_deref())
    }

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
