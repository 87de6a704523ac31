//! Decides, as a pure function, how a run goes on once a step was taken.

use time::Duration;

use crate::domain::order::Step;
use crate::storage::lease::LEASE;
use crate::worker::context::STEP_TIMEOUT;

/// After a pause as short as this the next step follows in the same run: giving the lease back, and
/// taking it and everything up again, would cost more than keeping it.
const SHORT: Duration = Duration::milliseconds(500);

/// A pause that is over before a step could be saved: the next step is saved with it.
const BRIEF: Duration = Duration::milliseconds(30);

/// A lease that was extended no longer ago is long enough for any one step.
const FRESH: Duration = Duration::seconds(10);
const _: () = assert!(
    FRESH.whole_seconds().unsigned_abs() + STEP_TIMEOUT.as_secs()
        < LEASE.whole_seconds().unsigned_abs()
);

/// The facts that the decision depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    pub(super) kind: Kind,
    /// Whether the order has ended, or its last error has changed: clients can see that.
    pub(super) is_remarkable: bool,
    /// Whether the run ends in any case: the order is over, or the service stops.
    pub(super) is_last: bool,
    /// Until the next step is due; `None` where none will be.
    pub(super) pause: Option<Duration>,
    /// Since the lease was taken or extended.
    pub(super) lease_age: Duration,
}

/// What it means to lose a step's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It is not taken again.
    Effect,
    /// It may be taken again.
    Repeatable,
    /// It only looked at what the CA does: nothing is lost but that it looked.
    Look,
}

impl Kind {
    pub(super) fn of(step: &Step) -> Self {
        match step {
            Step::Poll => Self::Look,
            step if step.is_repeatable() => Self::Repeatable,
            _ => Self::Effect,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterStep {
    /// The next step is taken after this pause, and saved together with this one.
    GoOn(Duration),
    /// This step is saved, and the next one is taken under the same lease after this pause.
    SaveAndGoOn(Duration, Hold),
    /// This step is saved, and the lease given up.
    SaveAndRest,
}

/// The fate of the lease when a step is saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    Release,
    /// It goes on as it is.
    Keep,
    /// It goes on for its whole length.
    Extend,
}

pub(super) fn after_step(taken: Taken) -> AfterStep {
    let Some(pause) = taken.pause.filter(|pause| *pause <= SHORT && !taken.is_last) else {
        return AfterStep::SaveAndRest;
    };
    if taken.lease_age >= FRESH {
        // The lease is only extended by a save.
        return AfterStep::SaveAndGoOn(pause, Hold::Extend);
    }
    let may_be_lost = match taken.kind {
        Kind::Effect => false,
        Kind::Repeatable => pause <= BRIEF,
        Kind::Look => true,
    };
    if may_be_lost && !taken.is_remarkable {
        AfterStep::GoOn(pause)
    } else {
        AfterStep::SaveAndGoOn(pause, Hold::Keep)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_a_step_depends_on_its_kind_its_result_and_the_time() {
        use AfterStep::{GoOn, SaveAndGoOn, SaveAndRest};
        use Hold::{Extend, Keep};
        let (ms, s) = (Duration::milliseconds, Duration::seconds);
        let taken = Taken {
            kind: Kind::Repeatable,
            is_remarkable: false,
            is_last: false,
            pause: Some(ms(25)),
            lease_age: s(1),
        };
        let look = Taken { kind: Kind::Look, ..taken };
        let in_ms = |pause, taken| Taken { pause: Some(ms(pause)), ..taken };
        for (what, taken, expected) in [
            ("what may be done again", taken, GoOn(ms(25))),
            ("overdue", in_ms(-5, taken), GoOn(ms(-5))),
            ("just brief", in_ms(30, taken), GoOn(BRIEF)),
            ("no longer brief", in_ms(31, taken), SaveAndGoOn(ms(31), Keep)),
            ("just short", in_ms(500, taken), SaveAndGoOn(SHORT, Keep)),
            ("no longer short", in_ms(501, taken), SaveAndRest),
            ("a look that is soon repeated", look, GoOn(ms(25))),
            ("a look, just short", in_ms(500, look), GoOn(SHORT)),
            ("a look, no longer short", in_ms(501, look), SaveAndRest),
            (
                "a look that brought news",
                Taken { is_remarkable: true, ..look },
                SaveAndGoOn(ms(25), Keep),
            ),
            (
                "a look under an old lease",
                Taken { lease_age: FRESH, ..look },
                SaveAndGoOn(ms(25), Extend),
            ),
            ("a last look", Taken { is_last: true, ..look }, SaveAndRest),
            ("never due again", Taken { pause: None, ..taken }, SaveAndRest),
            ("not repeatable", Taken { kind: Kind::Effect, ..taken }, SaveAndGoOn(ms(25), Keep)),
            ("remarkable", Taken { is_remarkable: true, ..taken }, SaveAndGoOn(ms(25), Keep)),
            ("over, or stopping", Taken { is_last: true, ..taken }, SaveAndRest),
            ("an old lease", Taken { lease_age: FRESH, ..taken }, SaveAndGoOn(ms(25), Extend)),
            (
                "an old lease and news",
                Taken { lease_age: s(60), is_remarkable: true, pause: Some(ms(400)), ..taken },
                SaveAndGoOn(ms(400), Extend),
            ),
            (
                "an old lease at the end",
                Taken { lease_age: s(60), is_last: true, ..taken },
                SaveAndRest,
            ),
        ] {
            assert_eq!(after_step(taken), expected, "{what}");
        }
    }
}
