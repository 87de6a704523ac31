//! A map that forgets what was not used for longest.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Holds at most `most` values; what is evicted can be made again.
pub(super) struct Cache<K, V> {
    most: usize,
    kept: Mutex<Kept<K, V>>,
}

struct Kept<K, V> {
    uses: u64,
    values: HashMap<K, (V, u64)>,
}

impl<K: Eq + Hash + Clone, V: Clone> Cache<K, V> {
    pub(super) fn new(most: usize) -> Self {
        Self { most, kept: Mutex::new(Kept { uses: 0, values: HashMap::new() }) }
    }

    pub(super) fn find(&self, key: &K) -> Option<V> {
        let mut kept = self.lock();
        kept.uses += 1;
        let now = kept.uses;
        let (value, used) = kept.values.get_mut(key)?;
        *used = now;
        Some(value.clone())
    }

    pub(super) fn insert(&self, key: K, value: V) {
        let mut kept = self.lock();
        if kept.values.len() >= self.most && !kept.values.contains_key(&key) {
            let eldest = kept.values.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(eldest) = eldest.map(|(key, _)| key.clone()) {
                kept.values.remove(&eldest);
            }
        }
        kept.uses += 1;
        let now = kept.uses;
        kept.values.insert(key, (value, now));
    }

    fn lock(&self) -> MutexGuard<'_, Kept<K, V>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let cache = Cache::new(2);
        cache.insert("a", 1);
        cache.insert("b", 2);
        cache.find(&"a");

        cache.insert("c", 3);

        assert_eq!(
            [cache.find(&"a"), cache.find(&"b"), cache.find(&"c")],
            [Some(1), None, Some(3)]
        );
    }
}
