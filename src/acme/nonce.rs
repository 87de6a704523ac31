//! Anti-replay nonces (RFC 8555, section 6.5), kept from every answer to save `newNonce` requests.

use std::collections::VecDeque;

use parking_lot::Mutex;
use time::{Duration, OffsetDateTime};
use tokio::sync::Notify;

use crate::domain::challenge::is_base64url;

/// Capacity of the pool; the oldest nonce gives way. More than are under way at once, so that what all the
/// answers bring is there for the next requests.
const MOST: usize = 256;
/// Age up to which a nonce is tried. CAs forget nonces, and a `badNonce` costs more than a `HEAD`.
const OLDEST: Duration = Duration::minutes(5);

/// The nonces of one CA: a stack, the newest on top.
#[derive(Default)]
pub(crate) struct Nonces {
    pool: Mutex<VecDeque<(String, OffsetDateTime)>>,
    arrived: Notify,
}

impl Nonces {
    /// Keeps a nonce if it is well-formed (RFC 8555, section 6.5.1).
    pub(crate) fn put(&self, nonce: &str, now: OffsetDateTime) {
        if !is_base64url(nonce) {
            return;
        }
        let mut pool = self.pool.lock();
        if pool.len() == MOST {
            pool.pop_front();
        }
        pool.push_back((nonce.to_owned(), now));
        drop(pool);
        self.arrived.notify_one();
    }

    /// Waits until one has come; somebody else may take it first.
    pub(crate) async fn arrival(&self) {
        self.arrived.notified().await;
    }

    /// Takes the newest nonce if it is young enough.
    pub(crate) fn take(&self, now: OffsetDateTime) -> Option<String> {
        let mut pool = self.pool.lock();
        let (nonce, since) = pool.pop_back()?;
        if now - since <= OLDEST {
            return Some(nonce);
        }
        // The newest is too old, so all are.
        pool.clear();
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: OffsetDateTime = time::macros::datetime!(2026-01-01 12:00 UTC);

    #[test]
    fn the_newest_nonce_is_used_first_and_only_once() {
        let nonces = Nonces::default();
        nonces.put("older", NOON);
        nonces.put("newer", NOON);

        assert_eq!(nonces.take(NOON).as_deref(), Some("newer"));
        assert_eq!(nonces.take(NOON).as_deref(), Some("older"));
        assert_eq!(nonces.take(NOON), None);
    }

    #[test]
    fn nonces_that_the_ca_may_have_forgotten_are_not_tried() {
        let nonces = Nonces::default();
        nonces.put("old", NOON);

        assert_eq!(nonces.take(NOON + OLDEST + Duration::seconds(1)), None);
    }

    #[test]
    fn the_pool_keeps_the_newest_and_is_bounded() {
        let nonces = Nonces::default();
        (0..1_000).for_each(|n| nonces.put(&n.to_string(), NOON));

        let left: Vec<_> = std::iter::from_fn(|| nonces.take(NOON)).collect();

        assert_eq!(left.len(), MOST);
        assert_eq!(left[0], "999");
    }

    #[test]
    fn what_is_no_base64url_is_no_nonce() {
        let nonces = Nonces::default();
        for odd in ["", "a b", "a=", "a\nb", "é"] {
            nonces.put(odd, NOON);
        }

        assert_eq!(nonces.take(NOON), None);
    }
}
