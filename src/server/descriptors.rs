//! The descriptors that the process may have, and what part of them belongs to whom.

/// The usual limit, for systems where it cannot be read.
const USUAL: usize = 1024;

/// Even a listener that has next to nothing serves a few.
const FEWEST: usize = 8;

/// Connections of a listener: as many as it is to have, if one part in `parts` of the descriptors allows
/// for them.
pub fn share(wanted: usize, parts: usize) -> usize {
    // Read, not asked for: a sandbox may forbid the call.
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    within(wanted, descriptors(&limits), parts)
}

/// Reads the soft limit from `/proc/self/limits`; the hard limit follows it there.
fn descriptors(limits: &str) -> usize {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    match line.and_then(|line| line.split_whitespace().next()) {
        Some("unlimited") => usize::MAX,
        Some(number) => number.parse().unwrap_or(USUAL),
        None => USUAL,
    }
}

fn within(wanted: usize, descriptors: usize, parts: usize) -> usize {
    wanted.min((descriptors / parts.max(1)).max(FEWEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_has_what_it_is_to_have_within_its_share() {
        assert_eq!(within(1000, 1024, 4), 256);
        assert_eq!(within(1000, 20_000, 4), 1000);
        assert_eq!(within(1000, usize::MAX, 8), 1000);
        assert_eq!(within(1000, 16, 8), FEWEST);
        assert_eq!(within(2, 16, 8), 2);
    }

    #[test]
    fn the_limit_that_holds_is_read_as_linux_writes_it() {
        let line =
            "Max open files            1024                 524288               files     \n";
        let limits = format!(
            "Limit  Soft Limit  Hard Limit  Units\nMax cpu time  unlimited  unlimited  seconds\n{line}"
        );
        assert_eq!(descriptors(&limits), 1024);
        assert_eq!(descriptors(&limits.replace("1024 ", "unlimited ")), usize::MAX);
        assert_eq!(descriptors(""), USUAL);
    }
}
