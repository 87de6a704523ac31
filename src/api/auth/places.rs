//! Places for answers that take long: so many for each principal at the same time.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::domain::id::PrincipalId;

/// The places of everybody. Only those who hold one are remembered.
#[derive(Debug)]
pub(super) struct Places {
    /// For each principal.
    pub(super) most: u32,
    taken: Mutex<HashMap<PrincipalId, u32>>,
}

/// A place that is given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    of: Arc<Places>,
    who: PrincipalId,
}

impl Places {
    pub(super) fn new(most: u32) -> Self {
        Self { most, taken: Mutex::default() }
    }

    /// A place; `None` while the principal holds all of its own.
    pub(super) fn take(self: &Arc<Self>, who: PrincipalId) -> Option<Place> {
        let mut taken = self.taken.lock();
        let held = taken.entry(who).or_insert(0);
        if *held >= self.most {
            return None;
        }
        *held += 1;
        Some(Place { of: Arc::clone(self), who })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.of.taken.lock();
        match taken.get_mut(&self.who) {
            Some(held) if *held > 1 => *held -= 1,
            _ => {
                taken.remove(&self.who);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_place_is_free_again_when_it_is_given_back_and_nobody_is_remembered_without_one() {
        let places = Arc::new(Places::new(2));
        let [one, other] = [1, 2].map(|number| PrincipalId(Uuid::from_u128(number)));

        let first = places.take(one);
        let second = places.take(one);
        assert!(first.is_some() && second.is_some() && places.take(one).is_none());
        let theirs = places.take(other);
        assert!(theirs.is_some(), "places of one are no places of another");

        drop(first);
        let third = places.take(one);
        assert!(third.is_some() && places.take(one).is_none());
        drop((second, third, theirs));
        assert!(places.taken.lock().is_empty());
    }
}
