//! Tells when what is served nears its end and has no successor: a pure state machine.
//!
//! Independent of issuing: it speaks up also where an order hangs, a certificate is blocked, or its
//! issuer is gone. Each revision is told of at most four times: with a third, a sixth and a twentieth
//! of its lifetime left, and when it has ended.
//!
//! By default a renewal falls due exactly when a third is left. So nothing is told before the renewal
//! is in trouble: due, and either failed already or late by a sixtieth of the lifetime, which for 90
//! days is a day and a half. Where a renewal is wanted later than a stage, that stage is passed over.

use time::{Duration, OffsetDateTime};

use super::event::Event;
use super::event_type::EventType;
use super::failure::Failure;
use super::id::CertificateId;
use crate::domain::words::words;

words! {
    /// Stages of an approaching expiry.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    pub enum Stage {
        /// A third of the lifetime is left.
        Third = "third",
        /// A sixth is left.
        Sixth = "sixth",
        /// A twentieth is left.
        Twentieth = "twentieth",
        /// The certificate has expired.
        Expired = "expired",
    }
}

/// A renewal is late when it is overdue by the lifetime divided by this.
const LATE: i64 = 60;

/// The expiry watch of a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    pub certificate: CertificateId,
    pub revision: i64,
    pub not_before: OffsetDateTime,
    pub not_after: OffsetDateTime,
    pub told: Option<Stage>,
    /// `None` once the end was told.
    pub next_action_at: Option<OffsetDateTime>,
}

/// The state of the renewal.
#[derive(Debug, Clone)]
pub struct Renewal<'a> {
    pub due: OffsetDateTime,
    pub failed_attempts: u32,
    pub last_error: Option<&'a Failure>,
}

/// The result of looking at a watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    pub watch: Watch,
    pub events: Vec<Event>,
    pub event_types: Vec<EventType>,
    pub at: OffsetDateTime,
}

impl Watch {
    /// Over a revision that was just issued.
    pub fn over(
        certificate: CertificateId,
        revision: i64,
        not_before: OffsetDateTime,
        not_after: OffsetDateTime,
    ) -> Self {
        let mut watch =
            Self { certificate, revision, not_before, not_after, told: None, next_action_at: None };
        watch.next_action_at = Some(watch.begin_of(Stage::Third));
        watch
    }

    /// Looks whether there is something to tell.
    #[must_use]
    pub fn look(mut self, renewal: &Renewal<'_>, now: OffsetDateTime) -> Transition {
        let reached = Stage::ALL.into_iter().rfind(|stage| self.begin_of(*stage) <= now);
        let late_from = renewal.due + self.lifetime(LATE);
        let in_trouble = now >= late_from || (now >= renewal.due && renewal.failed_attempts > 0);
        let news = reached.filter(|stage| self.told.is_none_or(|told| told < *stage));
        let tells = news.filter(|stage| *stage == Stage::Expired || in_trouble);
        let (mut events, mut event_types) = (vec![], vec![]);
        if let Some(stage) = tells {
            self.told = Some(stage);
            events.push(self.event(stage, renewal, now));
            event_types.push(match stage {
                Stage::Expired => EventType::CertificateExpired,
                Stage::Third | Stage::Sixth | Stage::Twentieth => EventType::CertificateExpiring,
            });
        }
        let next_stage =
            Stage::ALL.into_iter().map(|stage| self.begin_of(stage)).find(|at| *at > now);
        self.next_action_at = match (news, tells) {
            // The stage is reached, and the renewal may still succeed in time.
            (Some(_), None) => next_stage.map(|at| at.min(late_from)),
            _ => next_stage,
        };
        Transition { watch: self, events, event_types, at: now }
    }

    /// A part of the lifetime, in whole seconds as the database keeps them.
    fn lifetime(&self, divided_by: i64) -> Duration {
        Duration::seconds((self.not_after - self.not_before).whole_seconds() / divided_by)
    }

    fn begin_of(&self, stage: Stage) -> OffsetDateTime {
        self.not_after
            - match stage {
                Stage::Third => self.lifetime(3),
                Stage::Sixth => self.lifetime(6),
                Stage::Twentieth => self.lifetime(20),
                Stage::Expired => Duration::ZERO,
            }
    }

    fn event(&self, stage: Stage, renewal: &Renewal<'_>, now: OffsetDateTime) -> Event {
        let (revision, end, due) = (self.revision, self.not_after, renewal.due);
        let attempts = match renewal.failed_attempts {
            0 => "no attempt has ended yet".to_owned(),
            1 => "one attempt has failed".to_owned(),
            many => format!("{many} attempts have failed"),
        };
        let trouble = renewal.last_error.map(|error| format!(": {error}")).unwrap_or_default();
        let why = format!("its renewal was due at {due}, and {attempts}{trouble}");
        match stage {
            Stage::Expired => {
                let message = format!("Revision {revision} ended at {end}; {why}");
                Event::warning(self.certificate, "Expired", message)
            }
            Stage::Third | Stage::Sixth | Stage::Twentieth => {
                let left = in_words(end - now);
                let message = format!("Revision {revision} ends in {left}, at {end}; {why}");
                Event::warning(self.certificate, "Expiring", message)
            }
        }
    }
}

/// The largest unit of which there are at least two.
fn in_words(left: Duration) -> String {
    match (left.whole_days(), left.whole_hours(), left.whole_minutes()) {
        (days @ 2.., _, _) => format!("{days} days"),
        (_, hours @ 2.., _) => format!("{hours} hours"),
        (_, _, minutes) => format!("{minutes} minutes"),
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;
    use uuid::Uuid;

    use super::*;
    use crate::domain::failure::code;

    const START: OffsetDateTime = datetime!(2026-01-01 00:00 UTC);
    const DAYS: i64 = 90;

    fn day(day: f64) -> OffsetDateTime {
        START + Duration::seconds_f64(day * 86_400.0)
    }

    fn watch() -> Watch {
        Watch::over(CertificateId(Uuid::nil()), 3, START, START + Duration::days(DAYS))
    }

    fn renewal(due: f64, failed_attempts: u32) -> Renewal<'static> {
        Renewal { due: day(due), failed_attempts, last_error: None }
    }

    /// Looks whenever it is time, until it never is again; what was told when.
    fn told(renewal: &Renewal<'_>) -> Vec<(OffsetDateTime, Stage)> {
        let (mut watch, mut told) = (watch(), Vec::new());
        while let Some(at) = watch.next_action_at {
            let next = watch.look(renewal, at);
            assert!(
                next.watch.next_action_at.is_none_or(|again| again > at),
                "it makes no progress"
            );
            assert_eq!(next.events.len(), next.event_types.len());
            if !next.event_types.is_empty() {
                told.extend(next.watch.told.map(|stage| (at, stage)));
            }
            watch = next.watch;
        }
        told
    }

    #[test]
    fn a_renewal_that_failed_is_told_at_every_stage() {
        let expected = [
            (day(60.0), Stage::Third),
            (day(75.0), Stage::Sixth),
            (day(85.5), Stage::Twentieth),
            (day(90.0), Stage::Expired),
        ];
        assert_eq!(told(&renewal(60.0, 1)), expected);
        assert_eq!(told(&renewal(30.0, 0)), expected, "one that never came is late");
    }

    #[test]
    fn a_renewal_that_has_just_begun_has_a_sixtieth_of_the_lifetime() {
        let told = told(&renewal(60.0, 0));
        assert_eq!(told[0], (day(61.5), Stage::Third));
        assert_eq!(told[1], (day(75.0), Stage::Sixth));
        assert_eq!(told.len(), 4);
    }

    #[test]
    fn stages_before_the_renewal_is_due_are_passed_over() {
        assert_eq!(
            told(&renewal(80.0, 7)),
            [(day(81.5), Stage::Sixth), (day(85.5), Stage::Twentieth), (day(90.0), Stage::Expired)]
        );
        assert_eq!(told(&renewal(89.0, 0)), [(day(90.0), Stage::Expired)]);
        assert_eq!(told(&renewal(500.0, 0)), [(day(90.0), Stage::Expired)]);
    }

    #[test]
    fn a_look_that_comes_late_tells_the_nearest_stage_once() {
        let late = watch().look(&renewal(60.0, 4), day(86.0));
        assert_eq!(late.watch.told, Some(Stage::Twentieth));
        assert_eq!(late.event_types, [EventType::CertificateExpiring]);

        let again = late.watch.look(&renewal(60.0, 5), day(86.0));
        assert_eq!((again.event_types.len(), again.events.len()), (0, 0));

        let ended = again.watch.look(&renewal(60.0, 5), day(200.0));
        assert_eq!(ended.event_types, [EventType::CertificateExpired]);
        assert_eq!(ended.watch.next_action_at, None);
    }

    #[test]
    fn the_shortest_lifetimes_make_progress_too() {
        for seconds in 0..200 {
            let end = START + Duration::seconds(seconds);
            let mut watch = Watch::over(CertificateId(Uuid::nil()), 1, START, end);
            let due = START + Duration::seconds(seconds) * 2 / 3;
            let renewal = Renewal { due, failed_attempts: 0, last_error: None };
            let mut looks = 0;
            while let Some(at) = watch.next_action_at {
                watch = watch.look(&renewal, at).watch;
                looks += 1;
                assert!(looks < 9, "{seconds}");
            }
            assert_eq!(watch.told, Some(Stage::Expired), "{seconds}");
        }
    }

    #[test]
    fn what_is_told_says_how_long_and_why() {
        let failure = Failure::of(code::ACME_DNS, "There was no record.").titled("No proof");
        let renewal = Renewal { due: day(60.0), failed_attempts: 2, last_error: Some(&failure) };
        let told = watch().look(&renewal, day(75.0));

        let message = &told.events[0].message;
        for part in ["Revision 3 ends in 15 days", "2 attempts have failed", "There was no record."]
        {
            assert!(message.contains(part), "{message}");
        }
    }
}
