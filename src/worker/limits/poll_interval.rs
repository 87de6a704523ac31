//! Adaptive intervals before the first poll: about when the CA was done lately, where that is sooner than
//! usual.
//!
//! A CA on the same network has validated a name within milliseconds; one on the internet takes seconds,
//! and is not asked any sooner for it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moka::sync::Cache;

use crate::domain::order::Stage;

/// The order machine polls after this anyhow.
const LONGEST: Duration = Duration::from_millis(25);

/// No CA is done sooner.
const SHORTEST: Duration = Duration::from_millis(3);

/// Factors that let about one poll in ten come too early, which costs a request.
const DECREASE: f64 = 0.95;
const INCREASE: f64 = 1.5;

/// Bounds the memory.
const MOST_CAS: u64 = 1_000;
const IDLE: Duration = Duration::from_mins(10);

/// The interval of every CA, for each stage that is waited for.
pub(super) struct PollIntervals(Cache<String, Arc<Mutex<Intervals>>>);

struct Intervals {
    validating: Duration,
    processing: Duration,
}

impl PollIntervals {
    pub(super) fn new() -> Self {
        Self(Cache::builder().max_capacity(MOST_CAS).time_to_idle(IDLE).build())
    }

    /// The interval before the first poll of an order at this stage, if that is sooner than usual.
    pub(super) fn initial(&self, ca: &str, stage: Stage) -> Option<Duration> {
        let of_ca = self.of(ca);
        let mut of_ca = of_ca.lock().unwrap_or_else(PoisonError::into_inner);
        Some(*of_ca.at(stage)).filter(|interval| *interval < LONGEST)
    }

    /// Takes note of whether the CA was done at the first poll.
    pub(super) fn record(&self, ca: &str, stage: Stage, is_done: bool) {
        let of_ca = self.of(ca);
        let mut of_ca = of_ca.lock().unwrap_or_else(PoisonError::into_inner);
        let interval = of_ca.at(stage);
        let factor = if is_done { DECREASE } else { INCREASE };
        *interval = interval.mul_f64(factor).clamp(SHORTEST, LONGEST);
    }

    fn of(&self, ca: &str) -> Arc<Mutex<Intervals>> {
        self.0.get_with_by_ref(ca, || {
            Arc::new(Mutex::new(Intervals { validating: LONGEST, processing: LONGEST }))
        })
    }
}

impl Intervals {
    fn at(&mut self, stage: Stage) -> &mut Duration {
        match stage {
            Stage::Processing => &mut self.processing,
            _ => &mut self.validating,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_that_is_quick_is_asked_sooner_and_one_that_is_not_as_ever() {
        let intervals = PollIntervals::new();
        for _ in 0..100 {
            // One is done after 8 ms, the other never at the first look.
            let quick = intervals.initial("quick", Stage::Validating).unwrap_or(LONGEST);
            intervals.record("quick", Stage::Validating, quick >= Duration::from_millis(8));
            intervals.record("slow", Stage::Validating, false);
        }

        let quick = intervals.initial("quick", Stage::Validating).unwrap().as_millis();
        assert!((7..13).contains(&quick), "{quick}");
        assert_eq!(intervals.initial("quick", Stage::Processing), None, "each by itself");
        assert_eq!(intervals.initial("slow", Stage::Validating), None);
    }
}
