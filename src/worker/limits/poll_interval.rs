//! How soon a CA is asked whether it is done: about when it was lately, where that is sooner than usual.
//!
//! A CA on the same network has validated a name within milliseconds; one on the internet takes seconds,
//! and is not asked any sooner for it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moka::sync::Cache;

use crate::domain::order::Stage;

/// The first look comes no later than this anyhow.
const LONGEST: Duration = Duration::from_millis(25);

/// No CA is done sooner.
const SHORTEST: Duration = Duration::from_millis(3);

/// A look that came too early costs a request: about one in ten may.
const SOONER: f64 = 0.95;
const LATER: f64 = 1.5;

/// CAs that are kept in mind.
const MOST_CAS: u64 = 1_000;
const IDLE: Duration = Duration::from_mins(10);

/// When to look first, for every CA and what it is waited for.
pub(in crate::worker) struct Haste(Cache<String, Arc<Mutex<Pauses>>>);

struct Pauses {
    validating: Duration,
    processing: Duration,
}

impl Haste {
    pub(in crate::worker) fn new() -> Self {
        Self(Cache::builder().max_capacity(MOST_CAS).time_to_idle(IDLE).build())
    }

    /// After how long to look while an order is at this stage, if that is sooner than usual.
    pub(in crate::worker) fn first_look(&self, ca: &str, stage: Stage) -> Option<Duration> {
        let pauses = self.of(ca);
        let mut pauses = pauses.lock().unwrap_or_else(PoisonError::into_inner);
        Some(*pauses.at(stage)).filter(|pause| *pause < LONGEST)
    }

    /// Takes note of whether the CA was done at the first look.
    pub(in crate::worker) fn looked(&self, ca: &str, stage: Stage, is_done: bool) {
        let pauses = self.of(ca);
        let mut pauses = pauses.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = pauses.at(stage);
        let factor = if is_done { SOONER } else { LATER };
        *pause = pause.mul_f64(factor).clamp(SHORTEST, LONGEST);
    }

    fn of(&self, ca: &str) -> Arc<Mutex<Pauses>> {
        self.0.get_with_by_ref(ca, || {
            Arc::new(Mutex::new(Pauses { validating: LONGEST, processing: LONGEST }))
        })
    }
}

impl Pauses {
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
        let haste = Haste::new();
        for _ in 0..100 {
            // One is done after 8 ms, the other never at the first look.
            let quick = haste.first_look("quick", Stage::Validating).unwrap_or(LONGEST);
            haste.looked("quick", Stage::Validating, quick >= Duration::from_millis(8));
            haste.looked("slow", Stage::Validating, false);
        }

        let quick = haste.first_look("quick", Stage::Validating).unwrap().as_millis();
        assert!((7..13).contains(&quick), "{quick}");
        assert_eq!(haste.first_look("quick", Stage::Processing), None, "each by itself");
        assert_eq!(haste.first_look("slow", Stage::Validating), None);
    }
}
