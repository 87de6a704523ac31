//! When the next call for a zone is made: at once where hardly anything is asked for, and at intervals
//! where there is more to gather.

use std::time::Duration;

use tokio::time::Instant;

/// Records that are worth a call before its time has come: 34 calls for a thousand.
const ENOUGH: usize = 30;

/// Time between other calls, at most: the more records wait, the less. Cloudflare's 1,200 calls in 5 minutes are
/// 4 a second for the whole token; less than half of that for a zone leaves room.
const LONGEST: Duration = Duration::from_millis(750);

/// What is worth a record's waiting: so long for as many as are worth a call, less for what is there of them.
const WORTH: Duration = Duration::from_millis(1_050);

/// Records that are worth a call where most of those that are under way are there …
const SOME: usize = 12;

/// … and fewer that have come within so long since the last call: nothing trickles in behind them.
const FEW: usize = 8;
const BURST: Duration = Duration::from_millis(300);

/// Records that came alone and go at once although the last call was just now …
const QUICK: u32 = 2;

/// … counted anew after no record was written for so long.
const QUIET: Duration = Duration::from_secs(2);

/// How long a delete waits for company. The orders' clean-ups come together anyhow; a process that
/// does not live long must get them done, too.
const DELETE_PATIENCE: Duration = Duration::from_millis(300);

/// The changes that wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting {
    /// Records to write.
    pub creates: usize,
    /// Others that may follow within moments.
    pub expected: usize,
    /// Since when the oldest delete waits.
    pub delete_since: Option<Instant>,
    /// Whether there are as many deletes as one call takes.
    pub deletes_fill_a_call: bool,
}

/// The intervals between one zone's calls.
#[derive(Debug, Default)]
pub(super) struct Pace {
    last_call: Option<Instant>,
    last_create: Option<Instant>,
    /// Of [`QUICK`], since the last quiet time.
    used: u32,
}

impl Pace {
    /// When the next call may be made; `None` when there is nothing to do. `is_short` says that
    /// most of what may be asked of the provider was asked lately.
    pub(super) fn due(&self, waiting: Waiting, is_short: bool, now: Instant) -> Option<Instant> {
        let pause = match waiting.creates {
            _ if is_short => LONGEST,
            1 if self.used_at(now) < QUICK => Duration::ZERO,
            ENOUGH.. => Duration::ZERO,
            some @ FEW.. if waiting.expected < some / 2 && (some >= SOME || self.is_burst(now)) => {
                Duration::ZERO
            }
            some => LONGEST.min(WORTH.mul_f64(1.0 - share(some))),
        };
        let earliest = self.last_call.map_or(now, |last| last + pause);
        if waiting.creates > 0 {
            return Some(earliest);
        }
        let patience = if waiting.deletes_fill_a_call { Duration::ZERO } else { DELETE_PATIENCE };
        waiting.delete_since.map(|since| earliest.max(since + patience))
    }

    /// A call is made now that writes so many records.
    pub(super) fn called(&mut self, creates: usize, now: Instant) {
        let is_quick = self.last_call.is_some_and(|last| now < last + LONGEST);
        if creates > 0 {
            self.used = self.used_at(now) + u32::from(creates == 1 && is_quick);
            self.last_create = Some(now);
        }
        self.last_call = Some(now);
    }

    fn is_burst(&self, now: Instant) -> bool {
        self.last_call.is_none_or(|last| now < last + BURST)
    }

    fn used_at(&self, now: Instant) -> u32 {
        if self.last_create.is_some_and(|last| now < last + QUIET) { self.used } else { 0 }
    }
}

/// The part that is there of what is worth a call.
fn share(records: usize) -> f64 {
    let [some, enough] = [records, ENOUGH].map(|count| u32::try_from(count).unwrap_or(u32::MAX));
    f64::from(some) / f64::from(enough)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn creates(creates: usize) -> Waiting {
        Waiting { creates, expected: ENOUGH, delete_since: None, deletes_fill_a_call: false }
    }

    #[test]
    fn a_record_now_and_then_never_waits() {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        for _ in 0..100 {
            assert!(pace.due(creates(1), false, now).unwrap() <= now);
            pace.called(1, now);
            now += LONGEST;
        }
        // One more, and a few right after it, are no stream yet.
        for _ in 0..=QUICK {
            now += Duration::from_millis(10);
            assert!(pace.due(creates(1), false, now).unwrap() <= now);
            pace.called(1, now);
        }
        assert!(pace.due(creates(1), false, now).unwrap() > now + LONGEST.mul_f64(0.9));
    }

    #[test]
    fn a_hundred_records_within_five_seconds_cost_at_most_fifteen_calls() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let (mut waiting, mut calls) = (0, 0);
        for millisecond in 0_u64..6_000 {
            let now = start + Duration::from_millis(millisecond);
            waiting += usize::from(millisecond % 50 == 0 && millisecond < 5_000);
            if waiting > 0 && pace.due(creates(waiting), false, now).is_some_and(|at| at <= now) {
                pace.called(waiting, now);
                (waiting, calls) = (0, calls + 1);
            }
        }

        assert!(calls <= 15, "{calls}");
    }

    #[test]
    fn a_thousand_records_that_trickle_in_gather_into_some_fifty_calls() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let (mut waiting, mut calls) = (0, 0);
        for millisecond in 0_u64.. {
            let now = start + Duration::from_millis(millisecond);
            if millisecond % 10 == 0 && millisecond < 10_000 {
                waiting += 1;
            }
            if waiting == 0 && millisecond > 10_000 {
                break;
            }
            if waiting > 0 && pace.due(creates(waiting), false, now).is_some_and(|at| at <= now) {
                pace.called(waiting, now);
                (waiting, calls) = (0, calls + 1);
            }
        }

        assert!(calls <= 55, "{calls}");
    }

    #[test]
    fn what_comes_at_once_goes_at_once_and_what_trickles_in_gathers() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        pace.called(20, start);
        let waiting = |creates| Waiting { creates, expected: 1, ..self::creates(creates) };
        let soon = start + BURST / 2;
        assert!(pace.due(waiting(FEW), false, soon).unwrap() <= soon);
        let later = start + BURST * 2;
        assert!(pace.due(waiting(FEW), false, later).unwrap() > later);
        assert!(pace.due(waiting(SOME), false, later).unwrap() <= later);
    }

    #[test]
    fn when_calls_are_short_every_call_waits_its_time() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        pace.called(1, now);

        assert_eq!(pace.due(creates(1), true, now), Some(now + LONGEST));
        assert_eq!(pace.due(creates(ENOUGH), true, now), Some(now + LONGEST));
    }

    #[test]
    fn deletes_wait_for_company_unless_they_fill_a_call() {
        let (pace, now) = (Pace::default(), Instant::now());
        let few = Waiting {
            creates: 0,
            expected: 0,
            delete_since: Some(now),
            deletes_fill_a_call: false,
        };

        assert_eq!(pace.due(few, false, now), Some(now + DELETE_PATIENCE));
        assert_eq!(pace.due(Waiting { creates: 1, ..few }, false, now), Some(now));
        let many = Waiting { deletes_fill_a_call: true, ..few };
        assert_eq!(pace.due(many, false, now), Some(now));
        assert_eq!(pace.due(creates(0), false, now), None);
    }
}
