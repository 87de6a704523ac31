//! A million random pairs of pattern and name, judged by the tree and by a matcher that was written otherwise.

use super::pattern::Pattern;
use super::tree::Tree;

const PAIRS: usize = 1_000_000;
/// Names that each tree is asked for.
const NAMES_EACH: usize = 10;

/// splitmix64: the same numbers in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) >> 33).unwrap() % end
    }

    /// Few labels, many of which begin or end alike, so that pairs often nearly fit.
    fn zone(&mut self) -> Vec<&'static str> {
        const LABELS: [&str; 6] = ["a", "aa", "b", "ab", "a-b", "xn--bcher-kva"];
        let mut labels: Vec<_> = (0..self.below(4)).map(|_| LABELS[self.below(6)]).collect();
        labels.extend([["example", "xample", "a"][self.below(3)], "test"]);
        labels
    }

    fn name(&mut self) -> String {
        let zone = self.zone().join(".");
        if self.below(4) == 0 { format!("*.{zone}") } else { zone }
    }

    fn address(&mut self) -> [u8; 4] {
        [192, 0, [2, 3][self.below(2)], [0, 1, 127, 128, 255][self.below(5)]]
    }
}

/// A pattern as the reference sees it.
enum Reference {
    Zone { stars: usize, labels: Vec<&'static str> },
    Network { address: [u8; 4], prefix: usize },
}

impl Reference {
    fn random(numbers: &mut Numbers) -> Self {
        if numbers.below(8) == 0 {
            let prefix = [0, 8, 23, 24, 25, 31, 32][numbers.below(7)];
            let mut address = numbers.address();
            for bit in prefix..32 {
                address[bit / 8] &= !(128 >> (bit % 8));
            }
            return Self::Network { address, prefix };
        }
        Self::Zone { stars: numbers.below(3), labels: numbers.zone() }
    }

    fn text(&self) -> String {
        match self {
            Self::Zone { stars: 0, labels } => labels.join("."),
            Self::Zone { stars, labels } => format!("{}.{}", "*".repeat(*stars), labels.join(".")),
            Self::Network { address: [a, b, c, d], prefix } => format!("{a}.{b}.{c}.{d}/{prefix}"),
        }
    }

    /// Counts the labels before the zone: a pattern with one star wants one, with two at least one, and an exact one
    /// none. A wildcard's star is a label like any other, but no exact pattern stands for it.
    fn allows(&self, name: &str, wildcards: bool) -> bool {
        let given: Vec<&str> = name.split('.').collect();
        let is_wildcard = given[0] == "*";
        if is_wildcard && !wildcards {
            return false;
        }
        match self {
            Self::Zone { stars, labels } => {
                let Some(before) = given.len().checked_sub(labels.len()) else { return false };
                let is_below = given[before..] == labels[..];
                is_below
                    && match stars {
                        0 => before == 0,
                        1 => before == 1,
                        _ => before >= 1,
                    }
            }
            Self::Network { address, prefix } => {
                let bytes: Vec<u8> = given.iter().filter_map(|part| part.parse().ok()).collect();
                bytes.len() == 4
                    && given.len() == 4
                    && (0..*prefix).all(|bit| {
                        let of = |bytes: &[u8]| bytes[bit / 8] & (128 >> (bit % 8));
                        of(&bytes) == of(address)
                    })
            }
        }
    }
}

#[test]
fn the_tree_allows_exactly_what_the_reference_allows() {
    let mut numbers = Numbers(20_261_127);
    let (mut pairs, mut allowed) = (0, 0);
    while pairs < PAIRS {
        // Several patterns at once, so that one could hide another.
        let patterns: Vec<_> = (0..=numbers.below(4))
            .map(|_| (Reference::random(&mut numbers), numbers.below(2) == 0))
            .collect();
        let mut tree = Tree::default();
        for (place, (pattern, wildcards)) in patterns.iter().enumerate() {
            tree.add(place, &Pattern::parse(&pattern.text()).unwrap(), *wildcards);
        }
        for _ in 0..NAMES_EACH {
            let name = if numbers.below(8) == 0 {
                numbers.address().map(|byte| byte.to_string()).join(".")
            } else {
                numbers.name()
            };
            let expected: Vec<usize> = (0..patterns.len())
                .filter(|place| patterns[*place].0.allows(&name, patterns[*place].1))
                .collect();
            let found = tree.covering(&name).policies;
            assert_eq!(
                found,
                expected,
                "{name}: {:?}",
                patterns.iter().map(|one| one.0.text()).collect::<Vec<_>>()
            );
            pairs += patterns.len();
            allowed += expected.len();
        }
    }
    assert!(allowed > PAIRS / 100, "only {allowed} pairs fit");
}
