//! A million random pairs of pattern and name, judged by the tree and by a matcher that was written otherwise.

use super::pattern::Pattern;
use super::reference::Reference;
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

    fn pattern(&mut self) -> String {
        if self.below(8) == 0 {
            let prefix = [0, 8, 23, 24, 25, 31, 32][self.below(7)];
            let mut address = self.address();
            for bit in prefix..32 {
                address[bit / 8] &= !(128 >> (bit % 8));
            }
            return format!("{}/{prefix}", address.map(|byte| byte.to_string()).join("."));
        }
        let stars = ["", "*.", "**."][self.below(3)];
        format!("{stars}{}", self.zone().join("."))
    }

    fn address(&mut self) -> [u8; 4] {
        [192, 0, [2, 3][self.below(2)], [0, 1, 127, 128, 255][self.below(5)]]
    }
}

#[test]
fn the_tree_allows_exactly_what_the_reference_allows() {
    let mut numbers = Numbers(20_261_127);
    let (mut pairs, mut allowed) = (0, 0);
    while pairs < PAIRS {
        // Several patterns at once, so that one could hide another.
        let patterns: Vec<_> =
            (0..=numbers.below(4)).map(|_| (numbers.pattern(), numbers.below(2) == 0)).collect();
        let mut tree = Tree::default();
        for (place, (pattern, wildcards)) in patterns.iter().enumerate() {
            tree.add(place, &Pattern::parse(pattern).unwrap(), *wildcards);
        }
        let references: Vec<_> = patterns.iter().map(|one| Reference::of(&one.0)).collect();
        for _ in 0..NAMES_EACH {
            let name = if numbers.below(8) == 0 {
                numbers.address().map(|byte| byte.to_string()).join(".")
            } else {
                numbers.name()
            };
            let expected: Vec<usize> = (0..patterns.len())
                .filter(|place| references[*place].allows(&name, patterns[*place].1))
                .collect();
            let found = tree.covering(&name).policies;
            assert_eq!(found, expected, "{name}: {patterns:?}");
            pairs += patterns.len();
            allowed += expected.len();
        }
    }
    assert!(allowed > PAIRS / 100, "only {allowed} pairs fit");
}
