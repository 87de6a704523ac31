//! What was read lately and changes seldom, to be read from memory.
//!
//! On SQLite this process is the only one that writes: what it knows is right until a transaction of its own
//! changes it, with which all of that kind is forgotten. On PostgreSQL others write, too: there, what is known is
//! believed in for as long as its kind allows, which may be not at all.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::engine::StorageError;
use super::tables::api_keys::ApiKey;
use crate::domain::id::{IssuerId, SecretId};
use crate::domain::issuer::{Issuer, Kind};
use crate::secret::Sealed;

/// Rows of one kind in memory, at most.
const MOST: usize = 1_000;

/// How long an API key is believed in without a look, where others may forget it. They tell at once
/// when they do; this is for when that gets lost.
const KEY_BELIEVED: Duration = Duration::from_secs(1);

/// All that is kept in memory.
pub(in crate::storage) struct Knowledge {
    pub(in crate::storage) api_keys: Known<Vec<u8>, ApiKey>,
    /// With the sealed keys of their accounts.
    pub(in crate::storage) issuers: Known<IssuerId, (Issuer, Sealed)>,
    /// By what a certificate refers to: kind, the certificate's namespace and name.
    pub(in crate::storage) named_issuers: Known<(Kind, String, String), Issuer>,
    /// By namespace and name.
    pub(in crate::storage) secrets: Known<(String, String), (SecretId, Sealed)>,
}

impl Knowledge {
    /// Nothing yet. `is_shared` says whether other processes write to the database.
    pub(in crate::storage) fn new(is_shared: bool) -> Self {
        let never = is_shared.then_some(Duration::ZERO);
        Self {
            api_keys: Known::new(is_shared.then_some(KEY_BELIEVED)),
            issuers: Known::new(never),
            named_issuers: Known::new(never),
            secrets: Known::new(never),
        }
    }

    /// Issuers or secrets are not what they were.
    pub(in crate::storage) fn forget_configuration(&self) {
        self.issuers.forget();
        self.named_issuers.forget();
        self.secrets.forget();
    }
}

/// Rows of one kind.
pub(in crate::storage) struct Known<K, V> {
    /// How long one is believed in; `None` is until it is forgotten.
    believed: Option<Duration>,
    rows: Mutex<Rows<K, V>>,
}

struct Rows<K, V> {
    generation: u64,
    found: HashMap<K, (Instant, V)>,
}

impl<K: Eq + Hash, V: Clone> Known<K, V> {
    fn new(believed: Option<Duration>) -> Self {
        Self { believed, rows: Mutex::new(Rows { generation: 0, found: HashMap::new() }) }
    }

    /// The row of this key, from memory or else as `read` finds it. What is not there is looked for each time.
    pub(in crate::storage) async fn get(
        &self,
        key: K,
        read: impl AsyncFnOnce() -> Result<Option<V>, StorageError>,
    ) -> Result<Option<V>, StorageError> {
        let generation = {
            let rows = self.rows();
            let fresh = |(since, _): &&(Instant, V)| {
                self.believed.is_none_or(|believed| since.elapsed() < believed)
            };
            if let Some((_, row)) = rows.found.get(&key).filter(fresh) {
                return Ok(Some(row.clone()));
            }
            rows.generation
        };
        let found = read().await?;
        if let Some(row) = &found
            && self.believed != Some(Duration::ZERO)
        {
            let mut rows = self.rows();
            // What was read before a change that is known of is not worth remembering.
            if rows.generation == generation {
                if rows.found.len() >= MOST {
                    rows.found.clear();
                }
                rows.found.insert(key, (Instant::now(), row.clone()));
            }
        }
        Ok(found)
    }

    pub(in crate::storage) fn forget(&self) {
        let mut rows = self.rows();
        rows.generation += 1;
        rows.found.clear();
    }

    fn rows(&self) -> MutexGuard<'_, Rows<K, V>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(known: &Known<u8, u8>, found: Option<u8>) -> Option<u8> {
        known.get(1, async || Ok(found)).await.unwrap()
    }

    #[tokio::test]
    async fn what_was_read_is_known_until_it_is_forgotten() {
        let known = Known::new(None);

        assert_eq!(read(&known, None).await, None);
        assert_eq!(read(&known, Some(2)).await, Some(2), "what was not there is looked for again");
        assert_eq!(read(&known, Some(3)).await, Some(2));
        known.forget();
        assert_eq!(read(&known, Some(3)).await, Some(3));
    }

    #[tokio::test]
    async fn what_was_read_before_a_change_is_not_remembered() {
        let known = Known::new(None);
        let read_late = async || {
            known.forget();
            Ok(Some(2))
        };

        assert_eq!(known.get(1, read_late).await.unwrap(), Some(2));
        assert_eq!(read(&known, Some(3)).await, Some(3));
    }

    #[tokio::test]
    async fn what_others_may_change_at_any_moment_is_never_known() {
        let known = Known::new(Some(Duration::ZERO));

        assert_eq!(read(&known, Some(2)).await, Some(2));
        assert_eq!(read(&known, Some(3)).await, Some(3));
        assert!(known.rows().found.is_empty());
    }
}
