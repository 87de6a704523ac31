//! Labels whose values others choose.

use parking_lot::RwLock;
use std::collections::HashSet;

/// Stands for every value that came too late.
const OTHER: &str = "other";

/// The values of a label so far: as many as it may have, and `other` for the rest. Whoever can name things can so
/// neither fill the memory nor the scrape.
pub(super) struct Bounded {
    most: usize,
    known: RwLock<HashSet<String>>,
}

impl Bounded {
    pub(super) fn new(most: usize) -> Self {
        Self { most, known: RwLock::default() }
    }

    /// The value itself, or `other`.
    pub(super) fn value<'v>(&self, value: &'v str) -> &'v str {
        if self.known.read().contains(value) {
            return value;
        }
        let mut known = self.known.write();
        if known.contains(value) || known.len() < self.most {
            known.insert(value.to_owned());
            return value;
        }
        OTHER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_comes_when_there_are_enough_is_the_other() {
        let label = Bounded::new(2);

        let values = ["a", "b", "c", "a", "d"].map(|value| label.value(value));

        assert_eq!(values, ["a", "b", "other", "a", "other"]);
    }
}
