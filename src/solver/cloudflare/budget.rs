//! How many calls a token may still make.
//!
//! Cloudflare counts 1,200 calls in 5 minutes and, past that, refuses everything of that user for
//! the next 5 minutes, the dashboard included. We stop ourselves before that.

use std::sync::{Mutex, PoisonError};

use time::{Duration, OffsetDateTime};

/// A call is earned every so often …
const INTERVAL: Duration = Duration::milliseconds(500);

/// … and this much may be saved up: 500 calls at once and 600 in the 5 minutes after them stay
/// below 1,200 and leave something to other users of the account.
const SAVINGS: Duration = Duration::seconds(250);

/// The calls that one token may make, by the generic cell rate algorithm.
#[derive(Default)]
pub(super) struct Budget(Mutex<State>);

#[derive(Default)]
struct State {
    /// When everything that was spent will have been earned again.
    earned_back: Option<OffsetDateTime>,
    /// Cloudflare asked not to be called before.
    parked_until: Option<OffsetDateTime>,
}

impl Budget {
    /// Spends one call, or says when to come back.
    pub(super) fn spend(&self, now: OffsetDateTime) -> Result<(), OffsetDateTime> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(until) = state.parked_until.filter(|until| *until > now) {
            return Err(until);
        }
        // Capped, so that a clock that was put back does not close the account for long.
        let debt_until = state.earned_back.unwrap_or(now).clamp(now, now + SAVINGS);
        let spent = debt_until + INTERVAL;
        if spent > now + SAVINGS {
            return Err(spent - SAVINGS);
        }
        state.earned_back = Some(spent);
        Ok(())
    }

    /// Whether less is left than has been spent lately.
    pub(super) fn is_short(&self, now: OffsetDateTime) -> bool {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.earned_back.is_some_and(|at| at - now > SAVINGS / 2)
    }

    /// Remembers that nothing more will be answered before `until`.
    pub(super) fn park(&self, until: OffsetDateTime) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).parked_until = Some(until);
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const START: OffsetDateTime = datetime!(2026-01-01 0:00 UTC);

    #[test]
    fn five_minutes_of_haste_stay_below_the_limit() {
        let budget = Budget::default();

        let calls = (0..300_000)
            .filter(|ms| budget.spend(START + Duration::milliseconds(*ms)).is_ok())
            .count();

        assert!((1000..1150).contains(&calls), "{calls}");
    }

    #[test]
    fn an_empty_budget_says_when_the_next_call_is_earned() {
        let budget = Budget::default();
        while budget.spend(START).is_ok() {}

        let at = budget.spend(START).unwrap_err();

        assert_eq!(at, START + INTERVAL);
        assert!(budget.spend(at).is_ok());
    }

    #[test]
    fn half_a_budget_is_short() {
        let budget = Budget::default();

        let calls = (0..).take_while(|_| !budget.is_short(START)).map(|_| budget.spend(START));

        assert_eq!(calls.flatten().count(), 251);
        assert!(!budget.is_short(START + Duration::minutes(1)));
    }

    #[test]
    fn nothing_is_asked_before_cloudflare_wants_to_be_asked() {
        let budget = Budget::default();
        budget.park(START + Duration::minutes(5));

        assert_eq!(budget.spend(START), Err(START + Duration::minutes(5)));
        assert!(budget.spend(START + Duration::minutes(5)).is_ok());
    }
}
