//! Where the service learns the time. Nothing else may ask the operating system.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use parking_lot::Mutex;
use time::{Duration, OffsetDateTime};

/// A source of the present time, in UTC.
pub trait Clock: Send + Sync {
    /// The present moment, in whole milliseconds: what the databases hold compares with it exactly.
    fn now(&self) -> OffsetDateTime;

    /// Learns what the clock that counts shows at this moment; most clocks count themselves.
    fn follow(&self, _authority: OffsetDateTime) {}
}

/// The operating system's clock.
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that may")]
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc().truncate_to_millisecond()
    }
}

/// The operating system's clock, corrected by what another one shows: that of a database which
/// several replicas share. What one schedules the others then find due at the right time.
#[derive(Default)]
pub struct FollowingClock {
    /// Milliseconds.
    ahead: AtomicI64,
}

/// Less is the way of an answer through the network, not a difference of clocks.
const TOLERANCE: Duration = Duration::milliseconds(500);

impl Clock for FollowingClock {
    fn now(&self) -> OffsetDateTime {
        SystemClock.now() + Duration::milliseconds(self.ahead.load(Relaxed))
    }

    fn follow(&self, authority: OffsetDateTime) {
        self.follow_at(authority, SystemClock.now());
    }
}

impl FollowingClock {
    /// The same, when the operating system's clock shows `host`.
    fn follow_at(&self, authority: OffsetDateTime, host: OffsetDateTime) {
        let ahead = authority - host;
        let known = Duration::milliseconds(self.ahead.load(Relaxed));
        if (ahead - known).abs() <= TOLERANCE {
            return;
        }
        let milliseconds = i64::try_from(ahead.whole_milliseconds()).unwrap_or_default();
        self.ahead.store(milliseconds, Relaxed);
        tracing::warn!(
            seconds = ahead.as_seconds_f64(),
            "the database's clock is so far ahead of this host's, and is the one that counts"
        );
    }
}

/// A clock that moves only when a test tells it to.
pub struct ManualClock(Mutex<OffsetDateTime>);

impl ManualClock {
    /// A clock that shows `start` until it is moved.
    pub fn at(start: OffsetDateTime) -> Self {
        Self(Mutex::new(start))
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        *self.0.lock() += by;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> OffsetDateTime {
        self.0.lock().truncate_to_millisecond()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_following_clock_shows_what_the_authority_shows() {
        let clock = FollowingClock::default();
        for hours in [1, -3, 0] {
            let before = SystemClock.now();
            let authority = before + Duration::hours(hours);
            clock.follow(authority);
            let (shown, passed) = (clock.now(), SystemClock.now() - before);
            // Between the milliseconds that it counts, and what went by meanwhile.
            let least = authority - Duration::MILLISECOND;
            assert!(least <= shown && shown <= authority + passed, "{hours}");
        }
    }

    #[test]
    fn the_way_through_the_network_is_no_difference() {
        let clock = FollowingClock::default();
        let host = SystemClock.now();
        clock.follow_at(host - Duration::milliseconds(300), host);
        assert_eq!(clock.ahead.load(Relaxed), 0);
    }
}
