//! How much of the pool one issuer or namespace may hold, so that none can hold all of it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use crate::domain::id::IssuerId;
use crate::storage::fair::Lane;

/// Who holds how many slots of this process. Bounded by the slots that there are.
#[derive(Debug)]
pub(in crate::worker) struct Shares {
    per_issuer: usize,
    per_namespace: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    issuers: HashMap<IssuerId, usize>,
    namespaces: HashMap<String, usize>,
}

/// A held slot's part in the shares; dropping it gives it back.
#[derive(Debug)]
pub(in crate::worker) struct Share {
    shares: Arc<Shares>,
    issuer: Option<IssuerId>,
    namespace: Option<String>,
}

impl Shares {
    pub(in crate::worker) fn new(per_issuer: usize, per_namespace: usize) -> Arc<Self> {
        Arc::new(Self { per_issuer, per_namespace, held: Mutex::default() })
    }

    /// How many more of this lane may be worked on.
    pub(in crate::worker) fn room(&self, lane: &Lane) -> usize {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let of_namespace = held.namespaces.get(&lane.namespace).copied().unwrap_or_default();
        let of_issuer = lane.issuer.and_then(|id| held.issuers.get(&id)).copied();
        let namespace = self.per_namespace.saturating_sub(of_namespace);
        namespace.min(self.per_issuer.saturating_sub(of_issuer.unwrap_or_default()))
    }

    /// How many slots a namespace holds.
    pub(in crate::worker) fn held(&self, namespace: &str) -> usize {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.namespaces.get(namespace).copied().unwrap_or_default()
    }

    /// Whether anybody's share is used up.
    pub(in crate::worker) fn any_full(&self) -> bool {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.issuers.values().any(|count| *count >= self.per_issuer)
            || held.namespaces.values().any(|count| *count >= self.per_namespace)
    }

    /// Takes one slot's part for a row of this lane.
    pub(in crate::worker) fn take(self: &Arc<Self>, lane: &Lane) -> Share {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        *held.namespaces.entry(lane.namespace.clone()).or_default() += 1;
        if let Some(issuer) = lane.issuer {
            *held.issuers.entry(issuer).or_default() += 1;
        }
        drop(held);
        let namespace = Some(lane.namespace.clone());
        Share { shares: Arc::clone(self), issuer: lane.issuer, namespace }
    }

    /// For a slot that goes on with an order of this issuer; `None` when its share is used up.
    pub(in crate::worker) fn take_issuer(self: &Arc<Self>, issuer: IssuerId) -> Option<Share> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.issuers.entry(issuer).or_default();
        if *count >= self.per_issuer {
            return None;
        }
        *count += 1;
        drop(held);
        Some(Share { shares: Arc::clone(self), issuer: Some(issuer), namespace: None })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.shares.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(issuer) = &self.issuer {
            give_back(&mut held.issuers, issuer);
        }
        if let Some(namespace) = &self.namespace {
            give_back(&mut held.namespaces, namespace);
        }
    }
}

fn give_back<K: Eq + Hash>(held: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = held.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            held.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::storage::lease::Machine;

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let shares = Shares::new(3, 2);
        let (web, other) = (lane(1, "web"), lane(1, "other"));
        let held = [shares.take(&web), shares.take(&web)];

        assert_eq!((shares.room(&web), shares.room(&other)), (0, 1), "2 a namespace, 3 an issuer");
        assert!(shares.any_full());
        let third = shares.take_issuer(IssuerId(Uuid::from_u128(1)));
        assert!(third.is_some() && shares.take_issuer(IssuerId(Uuid::from_u128(1))).is_none());
        drop((held, third));
        assert_eq!((shares.room(&web), shares.any_full()), (2, false));
        assert!(shares.held.lock().unwrap().namespaces.is_empty(), "nothing is left behind");
    }

    fn lane(issuer: u128, namespace: &str) -> Lane {
        let issuer = Some(IssuerId(Uuid::from_u128(issuer)));
        Lane { machine: Machine::Order, issuer, namespace: namespace.into() }
    }
}
