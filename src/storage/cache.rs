//! The cache of what is read for every step and changes seldom.
//!
//! On SQLite this process is the only writer: a cached row is right until a transaction of its own writes to the
//! table, which raises the table's version ([`Signals`]). On PostgreSQL other replicas write too: there, a row
//! is cached for as long as its kind allows, which may be not at all.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::engine::{Signals, StorageError};
use crate::domain::api_key::{ApiKey, Value};
use crate::domain::id::{IssuerId, SecretId};
use crate::domain::issuer::{Issuer, Kind};
use crate::domain::policy::Policies;
use crate::secret::Sealed;

/// Rows of one kind in memory, at most.
const MOST: usize = 1_000;

/// How long an API key is cached where another replica may delete it. That replica notifies at once; this is
/// for a notification that gets lost.
const KEY_TTL: Duration = Duration::from_secs(1);

/// Cached rows of every kind.
pub(in crate::storage) struct ConfigCache {
    /// By the hash of one of their values.
    pub(in crate::storage) api_keys: Cache<Vec<u8>, (Arc<ApiKey>, Value)>,
    /// With the sealed keys of their accounts.
    pub(in crate::storage) issuers: Cache<IssuerId, (Issuer, Sealed)>,
    /// By what a certificate refers to: kind, the certificate's namespace and name.
    pub(in crate::storage) named_issuers: Cache<(Kind, String, String), Issuer>,
    /// By the namespace that is judged by them.
    pub(in crate::storage) policies: Cache<String, Arc<Policies>>,
    /// By namespace and name.
    pub(in crate::storage) secrets: Cache<(String, String), (SecretId, Sealed)>,
}

impl ConfigCache {
    /// An empty cache. `is_shared` says whether other processes write to the database.
    pub(in crate::storage) fn new(signals: &Signals, is_shared: bool) -> Self {
        let ttl = if is_shared { Ttl::Off } else { Ttl::UntilInvalidated };
        let key_ttl = if is_shared { Ttl::For(KEY_TTL) } else { Ttl::UntilInvalidated };
        Self {
            api_keys: Cache::new(key_ttl, signals, "api_keys"),
            issuers: Cache::new(ttl, signals, "issuers"),
            named_issuers: Cache::new(ttl, signals, "issuers"),
            policies: Cache::new(ttl, signals, "policies"),
            secrets: Cache::new(ttl, signals, "secrets"),
        }
    }
}

/// How long a row is cached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ttl {
    Off,
    For(Duration),
    UntilInvalidated,
}

/// Cached rows of one kind.
pub(in crate::storage) struct Cache<K, V> {
    ttl: Ttl,
    /// The version of the table, where anything is cached of it.
    version: Option<watch::Receiver<u64>>,
    rows: Mutex<Rows<K, V>>,
}

struct Rows<K, V> {
    version: u64,
    found: HashMap<K, (Instant, V)>,
}

impl<K: Eq + Hash, V: Clone> Cache<K, V> {
    fn new(ttl: Ttl, signals: &Signals, table: &'static str) -> Self {
        let version = (ttl != Ttl::Off).then(|| signals.version_of(table));
        Self { ttl, version, rows: Mutex::new(Rows { version: 0, found: HashMap::new() }) }
    }

    /// The cached row of this key, or the one that `read` finds. That there is no row is not cached.
    pub(in crate::storage) async fn get(
        &self,
        key: K,
        read: impl AsyncFnOnce() -> Result<Option<V>, StorageError>,
    ) -> Result<Option<V>, StorageError> {
        let Some(version) = self.version() else { return read().await };
        if let Some(row) = self.cached(&key, version) {
            return Ok(Some(row));
        }
        let found = read().await?;
        if let Some(row) = &found {
            self.keep(key, row.clone(), version);
        }
        Ok(found)
    }

    fn version(&self) -> Option<u64> {
        self.version.as_ref().map(|version| *version.borrow())
    }

    fn cached(&self, key: &K, version: u64) -> Option<V> {
        let mut rows = self.rows.lock();
        if rows.version != version {
            *rows = Rows { version, found: HashMap::new() };
        }
        let (since, row) = rows.found.get(key)?;
        let is_fresh = match self.ttl {
            Ttl::Off => false,
            Ttl::For(ttl) => since.elapsed() < ttl,
            Ttl::UntilInvalidated => true,
        };
        is_fresh.then(|| row.clone())
    }

    fn keep(&self, key: K, row: V, version: u64) {
        let mut rows = self.rows.lock();
        // A row that was read before a change may be the old one.
        if rows.version != version || self.version() != Some(version) {
            return;
        }
        if rows.found.len() >= MOST {
            rows.found.clear();
        }
        rows.found.insert(key, (Instant::now(), row));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(ttl: Ttl) -> (Cache<u8, u8>, watch::Sender<u64>) {
        let version = watch::Sender::new(0);
        let signals = Signals::new();
        let cache =
            Cache { version: Some(version.subscribe()), ..Cache::new(ttl, &signals, "rows") };
        (cache, version)
    }

    async fn read(cache: &Cache<u8, u8>, found: Option<u8>) -> Option<u8> {
        cache.get(1, async || Ok(found)).await.unwrap()
    }

    #[tokio::test]
    async fn what_was_read_is_known_until_it_is_forgotten() {
        let (cache, version) = cache(Ttl::UntilInvalidated);

        assert_eq!(read(&cache, None).await, None);
        assert_eq!(read(&cache, Some(2)).await, Some(2), "what was not there is looked for again");
        assert_eq!(read(&cache, Some(3)).await, Some(2));
        version.send_modify(|version| *version += 1);
        assert_eq!(read(&cache, Some(3)).await, Some(3));
    }

    #[tokio::test]
    async fn what_was_read_before_a_change_is_not_remembered() {
        let (cache, version) = cache(Ttl::UntilInvalidated);
        let read_late = async || {
            version.send_modify(|version| *version += 1);
            Ok(Some(2))
        };

        assert_eq!(cache.get(1, read_late).await.unwrap(), Some(2));
        assert_eq!(read(&cache, Some(3)).await, Some(3));
    }

    #[tokio::test]
    async fn what_others_may_change_at_any_moment_is_never_known() {
        let cache: Cache<u8, u8> = Cache::new(Ttl::Off, &Signals::new(), "rows");

        assert_eq!(read(&cache, Some(2)).await, Some(2));
        assert_eq!(read(&cache, Some(3)).await, Some(3));
        assert!(cache.rows.lock().found.is_empty());
    }
}
