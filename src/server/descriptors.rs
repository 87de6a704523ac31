//! The descriptors that the process may have, and what part of them belongs to whom.

use rustix::process::{Resource, getrlimit};

/// What is taken for the limit where there is none.
const PLENTY: u64 = 1 << 20;

/// Even a listener that has next to nothing serves a few.
const FEWEST: usize = 8;

/// Connections of a listener: as many as it is to have, if one part in `parts` of the descriptors allows
/// for them.
pub fn share(wanted: usize, parts: u64) -> usize {
    within(wanted, getrlimit(Resource::Nofile).current.unwrap_or(PLENTY), parts)
}

fn within(wanted: usize, descriptors: u64, parts: u64) -> usize {
    let share = usize::try_from(descriptors.min(PLENTY) / parts.max(1)).unwrap_or(FEWEST);
    wanted.min(share.max(FEWEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_has_what_it_is_to_have_within_its_share() {
        assert_eq!(within(1000, 1024, 4), 256);
        assert_eq!(within(1000, 20_000, 4), 1000);
        assert_eq!(within(1000, u64::MAX, 8), 1000);
        assert_eq!(within(1000, 16, 8), FEWEST);
        assert_eq!(within(2, 16, 8), 2);
    }
}
