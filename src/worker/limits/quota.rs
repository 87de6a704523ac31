//! Concurrency quotas: how many slots of a process one issuer or namespace may hold, so that none can
//! hold all of them.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::domain::id::IssuerId;
use crate::storage::fair::Flow;

/// The slots that each issuer and namespace holds. Bounded by the slots that there are.
#[derive(Debug)]
pub struct Quota {
    per_issuer: usize,
    per_namespace: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    issuers: HashMap<IssuerId, usize>,
    namespaces: HashMap<String, usize>,
}

/// One held slot's part of the quotas; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Share {
    quota: Arc<Quota>,
    issuer: Option<IssuerId>,
    namespace: Option<String>,
}

impl Quota {
    /// At most so many slots each.
    pub fn new(per_issuer: usize, per_namespace: usize) -> Self {
        Self { per_issuer, per_namespace, held: Mutex::default() }
    }

    /// How many more of this flow may be worked on.
    pub(crate) fn room(&self, flow: &Flow) -> usize {
        let held = self.held.lock();
        let of_namespace = held.namespaces.get(&flow.namespace).copied().unwrap_or_default();
        let of_issuer = flow.issuer.and_then(|id| held.issuers.get(&id)).copied();
        let namespace = self.per_namespace.saturating_sub(of_namespace);
        namespace.min(self.per_issuer.saturating_sub(of_issuer.unwrap_or_default()))
    }

    /// How many slots a namespace holds.
    pub(crate) fn held(&self, namespace: &str) -> usize {
        let held = self.held.lock();
        held.namespaces.get(namespace).copied().unwrap_or_default()
    }

    /// Whether the quota of any issuer or namespace is used up.
    pub(crate) fn any_full(&self) -> bool {
        let held = self.held.lock();
        held.issuers.values().any(|count| *count >= self.per_issuer)
            || held.namespaces.values().any(|count| *count >= self.per_namespace)
    }

    /// Takes one slot's part for a row of this flow.
    pub(crate) fn take(self: &Arc<Self>, flow: &Flow) -> Share {
        let mut held = self.held.lock();
        *held.namespaces.entry(flow.namespace.clone()).or_default() += 1;
        if let Some(issuer) = flow.issuer {
            *held.issuers.entry(issuer).or_default() += 1;
        }
        drop(held);
        let namespace = Some(flow.namespace.clone());
        Share { quota: Arc::clone(self), issuer: flow.issuer, namespace }
    }

    /// For a slot that goes on with an order of this issuer; `None` when its quota is used up.
    pub(crate) fn take_issuer(self: &Arc<Self>, issuer: IssuerId) -> Option<Share> {
        let mut held = self.held.lock();
        let count = held.issuers.entry(issuer).or_default();
        if *count >= self.per_issuer {
            return None;
        }
        *count += 1;
        drop(held);
        Some(Share { quota: Arc::clone(self), issuer: Some(issuer), namespace: None })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.quota.held.lock();
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
        let quota = Arc::new(Quota::new(3, 2));
        let (web, other) = (flow(1, "web"), flow(1, "other"));
        let held = [quota.take(&web), quota.take(&web)];

        assert_eq!((quota.room(&web), quota.room(&other)), (0, 1), "2 a namespace, 3 an issuer");
        assert!(quota.any_full());
        let third = quota.take_issuer(IssuerId(Uuid::from_u128(1)));
        assert!(third.is_some() && quota.take_issuer(IssuerId(Uuid::from_u128(1))).is_none());
        drop((held, third));
        assert_eq!((quota.room(&web), quota.any_full()), (2, false));
        assert!(quota.held.lock().namespaces.is_empty(), "nothing is left behind");
    }

    fn flow(issuer: u128, namespace: &str) -> Flow {
        let issuer = Some(IssuerId(Uuid::from_u128(issuer)));
        Flow { machine: Machine::Order, issuer, namespace: namespace.into() }
    }
}
