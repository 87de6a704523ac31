//! A pause that grows after calls that brought nothing, for all callers alike.

use parking_lot::Mutex;
use time::OffsetDateTime;

use super::gather::Refusal;
use crate::domain::backoff::{self, Jitter};

/// The error that callers get without a call, as long as it would only fail again.
pub(super) struct Setback<E>(Mutex<State<E>>);

struct State<E> {
    /// How often in a row a call brought nothing.
    times: u32,
    held: Option<(OffsetDateTime, E)>,
}

impl<E> Default for State<E> {
    fn default() -> Self {
        Self { times: 0, held: None }
    }
}

impl<E> Default for Setback<E> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<E: Refusal> Setback<E> {
    /// Why not to call at `now`, if there is a reason.
    pub(super) fn holds(&self, now: OffsetDateTime) -> Option<E> {
        let state = self.0.lock();
        let (until, error) = state.held.as_ref().filter(|(until, _)| *until > now)?;
        Some(error.clone().held_until(*until))
    }

    /// A call brought nothing; returns what to tell those who waited for it.
    pub(super) fn again(&self, error: E, now: OffsetDateTime) -> E {
        let mut state = self.0.lock();
        let until = now + backoff::transient(state.times, Jitter::NONE);
        state.times = state.times.saturating_add(1);
        state.held = Some((until, error.clone()));
        error.held_until(until)
    }

    /// A call brought something, or is likely to now.
    pub(super) fn over(&self) {
        *self.0.lock() = State::default();
    }

    /// There is room where there was none.
    pub(super) fn room_was_made(&self) {
        let mut state = self.0.lock();
        if state.held.as_ref().is_some_and(|(_, error)| error.says_zone_is_full()) {
            *state = State::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use time::Duration;
    use time::macros::datetime;

    use super::*;
    use crate::solver::dns01::cloudflare::ApiError;

    #[test]
    fn pauses_grow_until_a_call_brings_something() {
        let (setback, mut now) = (Setback::default(), datetime!(2026-01-01 0:00 UTC));
        let error = || ApiError::Unusable { status: None, reason: "silence".to_owned() };
        let mut pauses = Vec::new();
        for _ in 0..8 {
            assert_eq!(setback.holds(now), None);
            setback.again(error(), now);
            let begun = now;
            while setback.holds(now).is_some() {
                now += Duration::seconds(1);
            }
            pauses.push((now - begun).whole_seconds());
        }

        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300]);
        setback.again(error(), now);
        setback.room_was_made();
        assert!(setback.holds(now).is_some(), "it was not for want of room");
        setback.over();
        assert_eq!(setback.holds(now), None);
    }
}
