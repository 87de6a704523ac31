//! How long CAs and DNS providers take, as this process has learned it.

use std::sync::Arc;

use moka::sync::Cache;
use parking_lot::Mutex;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::domain::completion_time::CompletionTimes;
use crate::domain::order::{Order, Stage, Status};

/// Bounds the memory: 2 KiB for each kind of work.
const MOST_KINDS: u64 = 1_000;
const KNOWN_FOR: std::time::Duration = std::time::Duration::from_hours(24);

/// Looks that found something not done, until it is.
const MOST_LOOKS: u64 = 10_000;
const LOOKS_FOR: std::time::Duration = std::time::Duration::from_hours(1);

/// Work that takes about as long each time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Work {
    /// An order is ready when the slowest of its names is validated; so how many they are counts, by doublings.
    Validation {
        ca: String,
        names: u32,
    },
    Issuance {
        ca: String,
    },
    Propagation {
        credential: String,
        zone: String,
    },
}

/// A look at whether something is done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    /// The order or challenge.
    pub(crate) at_what: Uuid,
    pub(crate) began: OffsetDateTime,
    pub(crate) at: OffsetDateTime,
    pub(crate) is_first: bool,
}

pub(crate) struct LearnedWaits {
    times: Cache<Work, Arc<Mutex<CompletionTimes>>>,
    not_yet: Cache<Uuid, OffsetDateTime>,
}

impl Work {
    /// What the CA was told to do for an order that is at this stage.
    pub(super) fn of(order: &Order, ca: &str, stage: Stage) -> Self {
        let ca = ca.to_owned();
        match stage {
            Stage::Processing => Self::Issuance { ca },
            _ => Self::Validation { ca, names: order.names.len().max(1).ilog2() },
        }
    }

    /// Whether this status says that it is done.
    pub(super) fn is_done(&self, status: Status) -> bool {
        match self {
            Self::Issuance { .. } => status == Status::Valid,
            _ => matches!(status, Status::Ready | Status::Processing | Status::Valid),
        }
    }
}

impl LearnedWaits {
    pub(super) fn new() -> Self {
        Self {
            times: Cache::builder().max_capacity(MOST_KINDS).time_to_idle(KNOWN_FOR).build(),
            not_yet: Cache::builder().max_capacity(MOST_LOOKS).time_to_live(LOOKS_FOR).build(),
        }
    }

    /// When work is likely to be done that was not after `waited`, counted from its beginning.
    pub(crate) fn likely(&self, work: &Work, waited: Duration) -> Duration {
        self.with(work, |times| times.next_look(waited))
    }

    /// A look found the work done or not.
    pub(crate) fn looked(&self, work: &Work, look: Look, is_done: bool) {
        let Look { at_what, began, at, is_first } = look;
        if !is_done {
            self.not_yet.insert(at_what, at);
            return;
        }
        let not_yet = self.not_yet.remove(&at_what).filter(|not_yet| *not_yet > began);
        // Who has forgotten when it was not done, after a restart, learns nothing.
        let not_yet = not_yet.or(is_first.then_some(began));
        if let Some(not_yet) = not_yet.filter(|_| at >= began) {
            self.with(work, |times| times.record(not_yet - began, at - began));
        }
    }

    /// What is known of orders with fewer names, where there was none with as many.
    fn hint(&self, work: &Work) -> CompletionTimes {
        let Work::Validation { ca, names } = work else { return CompletionTimes::default() };
        let mut fewer = (0..*names).rev().map(|names| Work::Validation { ca: ca.clone(), names });
        let known = fewer.find_map(|fewer| self.times.get(&fewer));
        known.map_or_else(CompletionTimes::default, |times| times.lock().as_hint())
    }

    fn with<T>(&self, work: &Work, f: impl FnOnce(&mut CompletionTimes) -> T) -> T {
        let known = self.times.get(work);
        let times = known.unwrap_or_else(|| {
            let hint = self.hint(work);
            self.times.get_with_by_ref(work, || Arc::new(Mutex::new(hint)))
        });
        f(&mut times.lock())
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::domain::backoff::Jitter;
    use crate::domain::fixtures;
    use crate::domain::id::OrderId;
    use crate::domain::order::{Answer, Conditions, Seen, State};

    const BEGAN: OffsetDateTime = datetime!(2026-11-27 12:00 UTC);

    fn look(at_what: u128, after: Duration, is_first: bool) -> Look {
        Look { at_what: Uuid::from_u128(at_what), began: BEGAN, at: BEGAN + after, is_first }
    }

    fn issuance(ca: &str) -> Work {
        Work::Issuance { ca: ca.to_owned() }
    }

    #[test]
    fn each_ca_and_stage_is_learned_by_itself() {
        let waits = LearnedWaits::new();
        let validation = Work::Validation { ca: "near".to_owned(), names: 0 };
        let unknown = waits.likely(&validation, Duration::ZERO);
        for order in 0..100 {
            waits.looked(&issuance("near"), look(order, Duration::milliseconds(8), true), true);
            waits.looked(&issuance("far"), look(order, Duration::milliseconds(900), true), false);
            waits.looked(&issuance("far"), look(order, Duration::SECOND, false), true);
        }

        let [near, far] = ["near", "far"]
            .map(|ca| waits.likely(&issuance(ca), Duration::ZERO).whole_milliseconds());
        assert!((3..=8).contains(&near) && (950..1_100).contains(&far), "{near}, {far}");
        assert_eq!(waits.likely(&validation, Duration::ZERO), unknown);
    }

    #[test]
    fn an_order_with_many_names_begins_with_what_is_known_of_fewer() {
        let waits = LearnedWaits::new();
        let validation = |names| Work::Validation { ca: "ca".to_owned(), names };
        for order in 0..50 {
            waits.looked(&validation(0), look(order, Duration::milliseconds(900), true), false);
            waits.looked(&validation(0), look(order, Duration::SECOND, false), true);
        }

        let likely = waits.likely(&validation(4), Duration::ZERO).whole_milliseconds();
        assert!((950..1_100).contains(&likely), "{likely}");
    }

    /// Polls an order until a CA that takes so long has validated it; the polls, and when the last one came.
    fn validated(waits: &LearnedWaits, takes: Duration) -> (u32, Duration) {
        let accepting = Stage::Accepting;
        let mut order = Order {
            id: OrderId::generate(BEGAN),
            state: State::Open { url: "https://ca.example/1".into(), stage: accepting },
            challenges: vec![fixtures::challenge(1, BEGAN)],
            ..fixtures::order(BEGAN)
        };
        let mut polls = 0;
        let (mut now, mut answer) = (BEGAN, Answer::Accepted);
        loop {
            let work = Work::of(&order, "ca", Stage::Validating);
            let likely_done = Some(waits.likely(&work, now - BEGAN));
            let conditions = Conditions { likely_done, ..Jitter::NONE.into() };
            order = order.apply(answer, now, conditions).unwrap().order;
            now = order.next_action_at.unwrap();
            let is_done = now - BEGAN >= takes;
            let look = Look {
                at_what: order.id.0,
                began: order.handed_out_at,
                at: now,
                is_first: order.course.polls == 0,
            };
            waits.looked(&work, look, is_done);
            polls += 1;
            if is_done {
                return (polls, now - BEGAN);
            }
            let (expires, retry_at) = (None, None);
            answer = Answer::Polled(Seen { status: Status::Pending, expires, retry_at });
        }
    }

    #[test]
    fn orders_at_a_far_ca_are_polled_when_they_are_done_from_the_second_one_on() {
        let waits = LearnedWaits::new();
        let takes = Duration::milliseconds(2_500);
        let (first, _) = validated(&waits, takes);
        assert!(first <= 6, "{first}: a client that begins with 25 ms and grows by half needs 10");

        for order in 2..=30 {
            let (polls, at) = validated(&waits, takes);
            assert!(polls <= 8 && at - takes < takes / 4, "order {order}: {polls}, {at}");
        }
        let later: Vec<_> = (0..10).map(|_| validated(&waits, takes)).collect();
        assert!(later.iter().map(|(polls, _)| polls).sum::<u32>() <= 40, "{later:?}");
        assert!(later.iter().all(|(_, at)| *at - takes < takes / 10), "{later:?}");
    }

    #[test]
    fn nothing_is_learned_from_a_look_whose_predecessor_is_forgotten() {
        let waits = LearnedWaits::new();
        let unknown = waits.likely(&issuance("ca"), Duration::ZERO);

        waits.looked(&issuance("ca"), look(1, Duration::SECOND, false), true);

        assert_eq!(waits.likely(&issuance("ca"), Duration::ZERO), unknown);
    }
}
