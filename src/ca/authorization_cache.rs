//! A cache of the authorizations that were read lately.

use std::sync::Arc;

use moka::sync::Cache;

use super::state::Authorization;

/// Size of the cache.
const REMEMBERED_BYTES: u64 = 16 << 20;
/// Lifetime of an entry: an order that waits for its proofs is resumed within minutes.
const REMEMBERED_FOR: std::time::Duration = std::time::Duration::from_mins(10);

/// Authorizations by account and URL: when one of a hundred cannot be read, the others need not be
/// read again. Losing an entry costs a request and nothing else.
#[derive(Clone)]
pub(super) struct AuthorizationCache(Cache<(String, String), Arc<Known>>);

/// An authorization and the size of the body that it was read from.
#[derive(Debug)]
pub(super) struct Known {
    pub authorization: Authorization,
    pub size: usize,
}

impl AuthorizationCache {
    pub(super) fn new() -> Self {
        let weight = |(account, url): &(String, String), known: &Arc<Known>| {
            u32::try_from(account.len() + url.len() + 2 * known.size).unwrap_or(u32::MAX)
        };
        let cache = Cache::builder().weigher(weight).max_capacity(REMEMBERED_BYTES);
        Self(cache.time_to_live(REMEMBERED_FOR).build())
    }

    pub(super) fn get(&self, account: &str, url: &str) -> Option<Arc<Known>> {
        self.0.get(&name(account, url))
    }

    pub(super) fn insert(&self, account: &str, url: &str, known: Arc<Known>) {
        self.0.insert(name(account, url), known);
    }

    pub(super) fn invalidate(&self, account: &str, url: &str) {
        self.0.invalidate(&name(account, url));
    }
}

fn name(account: &str, url: &str) -> (String, String) {
    (account.to_owned(), url.to_owned())
}
