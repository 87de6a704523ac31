//! ACME Renewal Information (RFC 9773): the CA's suggestion when to renew.
//!
//! One moment is chosen at random in the suggested window, kept with the certificate that it is for,
//! and kept to until the window changes: neither a restart nor the next look draws another. What
//! cannot be understood is no answer; without one, a certificate is renewed by its own schedule.

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use utoipa::ToSchema;

use super::backoff::{self, Jitter};
use super::failure::{Failure, code};

/// Renewal information for one certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ari {
    /// ARI's name for the certificate: nothing here is ever taken for another one.
    pub certificate: String,
    /// The account that it was issued to; only that one may say that it replaces it.
    pub account: String,
    #[serde(with = "time::serde::rfc3339")]
    pub issued_at: OffsetDateTime,
    /// The time at which a twentieth of the lifetime is left: no suggestion counts from then on.
    #[serde(with = "time::serde::rfc3339")]
    pub latest: OffsetDateTime,
    /// `None` while the CA has suggested nothing.
    pub window: Option<Window>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub chosen: Option<OffsetDateTime>,
    pub explanation_url: Option<String>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_checked: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339")]
    pub next_check: OffsetDateTime,
    /// Questions in a row without an answer.
    pub failures: u32,
    /// Why there was none.
    pub last_error: Option<Failure>,
}

/// When the CA would like a certificate to be replaced: from `start` until before `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Window {
    /// Not before.
    #[serde(with = "time::serde::rfc3339")]
    pub start: OffsetDateTime,
    /// Not at or after.
    #[serde(with = "time::serde::rfc3339")]
    pub end: OffsetDateTime,
}

/// The result of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The CA suggests.
    Suggested {
        window: Window,
        /// Why.
        explanation_url: Option<String>,
        /// `Retry-After`.
        retry_at: Option<OffsetDateTime>,
    },
    /// The CA gives no such information, or it is not wanted.
    NotOffered,
    /// It did not work.
    Failed(Failure),
}

/// The CA's `Retry-After` counts between these.
const SHORTEST_PAUSE: Duration = Duration::minutes(1);
const LONGEST_PAUSE: Duration = Duration::days(1);
/// Interval when the CA names none, and after a long silence.
const USUAL_PAUSE: Duration = Duration::hours(6);
/// The first question comes this soon, or within a twentieth of a short life.
const FIRST_WITHIN: Duration = Duration::minutes(10);

impl Ari {
    /// Starts for a new certificate: the first question comes soon, with jitter.
    pub fn new(
        certificate: String,
        account: String,
        validity: (OffsetDateTime, OffsetDateTime),
        now: OffsetDateTime,
        jitter: Jitter,
    ) -> Self {
        let (not_before, not_after) = validity;
        let twentieth = (not_after - not_before) / 20;
        Self {
            certificate,
            account,
            issued_at: now,
            latest: not_after - twentieth,
            window: None,
            chosen: None,
            explanation_url: None,
            last_checked: None,
            next_check: now + jitter.share(FIRST_WITHIN.min(twentieth)),
            failures: 0,
            last_error: None,
        }
    }

    /// Applies an answer.
    #[must_use]
    pub fn apply(mut self, answer: Answer, now: OffsetDateTime, jitter: Jitter) -> Self {
        match answer {
            Answer::Suggested { window, .. } if window.end <= window.start => {
                self.unanswered(nonsense(window), now, jitter)
            }
            Answer::Suggested { window, explanation_url, retry_at } => {
                if self.window != Some(window) {
                    self.chosen = Some(window.pick(now, self.latest, jitter));
                }
                self.window = Some(window);
                self.explanation_url = explanation_url;
                self.last_checked = Some(now);
                self.next_check = now + pause(retry_at, now, jitter);
                self.failures = 0;
                self.last_error = None;
                self
            }
            Answer::NotOffered => Self {
                window: None,
                chosen: None,
                explanation_url: None,
                last_checked: None,
                next_check: now + jitter.stretch(LONGEST_PAUSE, 0.1),
                failures: 0,
                last_error: None,
                ..self
            },
            Answer::Failed(failure) => self.unanswered(failure, now, jitter),
        }
    }

    /// Keeps the former suggestion and asks again later.
    fn unanswered(self, failure: Failure, now: OffsetDateTime, jitter: Jitter) -> Self {
        let asked = failure.retry_at.map(|at| (at - now).clamp(SHORTEST_PAUSE, LONGEST_PAUSE));
        let pause = backoff::renewal_information(self.failures, jitter);
        Self {
            next_check: now + asked.map_or(pause, |asked| asked.max(pause)),
            failures: self.failures.saturating_add(1),
            last_error: Some(failure),
            ..self
        }
    }
}

impl Window {
    /// Whether the CA wants the certificate replaced by now.
    pub fn contains(&self, now: OffsetDateTime) -> bool {
        self.start <= now && now < self.end
    }

    /// A moment in what is left of it, before `latest` where it begins before that; now, when nothing
    /// is left.
    fn pick(&self, now: OffsetDateTime, latest: OffsetDateTime, jitter: Jitter) -> OffsetDateTime {
        let from = self.start.max(now);
        let until = if from < latest { self.end.min(latest) } else { self.end };
        if from < until { from + jitter.share(until - from) } else { now }
    }
}

fn pause(retry_at: Option<OffsetDateTime>, now: OffsetDateTime, jitter: Jitter) -> Duration {
    match retry_at {
        Some(at) => (at - now).clamp(SHORTEST_PAUSE, LONGEST_PAUSE),
        None => jitter.stretch(USUAL_PAUSE, 0.1),
    }
}

fn nonsense(window: Window) -> Failure {
    Failure::of(
        code::ARI_WINDOW_INVALID,
        format!("The window ends at {}, not after its start at {}.", window.end, window.start),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);

    #[test]
    fn a_moment_is_chosen_in_the_window_once() {
        let window = window(Duration::days(50), Duration::days(52));
        let first = ari().apply(suggested(window, None), NOW, Jitter::new(0.25));
        let again =
            first.clone().apply(suggested(window, None), NOW + Duration::days(1), Jitter::new(0.9));

        assert_eq!(first.chosen, Some(NOW + Duration::days(50) + Duration::hours(12)));
        assert_eq!(again.chosen, first.chosen);
    }

    #[test]
    fn another_window_means_another_moment_in_it() {
        let first = ari().apply(
            suggested(window(Duration::days(50), Duration::days(52)), None),
            NOW,
            Jitter::NONE,
        );
        let moved = window(Duration::days(10), Duration::days(11));
        let next = first.apply(suggested(moved, None), NOW, Jitter::new(0.5));

        assert_eq!(next.chosen, Some(NOW + Duration::days(10) + Duration::hours(12)));
    }

    #[test]
    fn a_window_that_is_over_or_has_begun_is_met_at_once_or_in_what_is_left() {
        let over = window(-Duration::days(2), -Duration::days(1));
        let begun = window(-Duration::days(2), Duration::days(2));
        let chosen = |window| ari().apply(suggested(window, None), NOW, Jitter::new(0.5)).chosen;

        assert_eq!(chosen(over), Some(NOW));
        assert_eq!(chosen(begun), Some(NOW + Duration::days(1)));
    }

    #[test]
    fn a_window_that_outlasts_the_certificate_is_used_as_far_as_it_goes() {
        let long = window(Duration::days(60), Duration::days(900));
        let chosen = ari().apply(suggested(long, None), NOW, Jitter::new(0.5)).chosen.unwrap();

        // Half way between the 60th day and the emergency at 85.5.
        assert_eq!(chosen, NOW + Duration::days(60) + Duration::hours(306));
    }

    #[test]
    fn an_inverted_or_empty_window_is_no_answer() {
        let good = ari().apply(
            suggested(window(Duration::days(50), Duration::days(52)), None),
            NOW,
            Jitter::NONE,
        );
        for (start, end) in [(2, 1), (1, 1)] {
            let bad = window(Duration::days(start), Duration::days(end));
            let next = good.clone().apply(suggested(bad, None), NOW, Jitter::NONE);

            assert_eq!((next.window, next.chosen), (good.window, good.chosen));
            assert_eq!(next.last_error.unwrap().code, "ari_window_invalid");
            assert_eq!(next.failures, 1);
        }
    }

    #[test]
    fn retry_after_counts_between_a_minute_and_a_day() {
        let good = window(Duration::days(50), Duration::days(52));
        for (asked, kept) in [
            (Some(-Duration::days(9)), Duration::minutes(1)),
            (Some(Duration::ZERO), Duration::minutes(1)),
            (Some(Duration::hours(3)), Duration::hours(3)),
            (Some(Duration::days(365)), Duration::days(1)),
            (None, Duration::hours(6)),
        ] {
            let answer = suggested(good, asked.map(|pause| NOW + pause));
            assert_eq!(ari().apply(answer, NOW, Jitter::NONE).next_check, NOW + kept, "{asked:?}");
        }
    }

    #[test]
    fn failures_back_off_to_six_hours_and_keep_the_choice() {
        let mut known = ari().apply(
            suggested(window(Duration::days(50), Duration::days(52)), None),
            NOW,
            Jitter::NONE,
        );
        let chosen = known.chosen;
        let mut pauses = Vec::new();
        for _ in 0..12 {
            known = known.apply(Answer::Failed(failure(None)), NOW, Jitter::NONE);
            pauses.push(known.next_check - NOW);
        }

        assert_eq!(pauses[0], Duration::minutes(1));
        assert!(pauses.is_sorted() && pauses[11] == Duration::hours(6), "{pauses:?}");
        assert_eq!(known.chosen, chosen);

        let asked =
            known.apply(Answer::Failed(failure(Some(NOW + Duration::days(9)))), NOW, Jitter::NONE);
        assert_eq!(asked.next_check, NOW + Duration::days(1));
    }

    #[test]
    fn what_is_not_offered_any_more_is_not_kept_to() {
        let known = ari().apply(
            suggested(window(Duration::days(50), Duration::days(52)), None),
            NOW,
            Jitter::NONE,
        );
        let gone = known.apply(Answer::NotOffered, NOW, Jitter::NONE);

        assert_eq!((gone.window, gone.chosen), (None, None));
        assert_eq!(gone.next_check, NOW + Duration::days(1));
    }

    #[test]
    fn ten_thousand_new_certificates_do_not_ask_at_the_same_moment() {
        let asked = |chance| {
            let ari = Ari::new(
                "a.b".into(),
                String::new(),
                (NOW, NOW + Duration::days(90)),
                NOW,
                Jitter::new(chance),
            );
            ari.next_check - NOW
        };
        assert_eq!(asked(0.5), Duration::minutes(5));
        assert!(asked(0.999) < Duration::minutes(10));
    }

    fn ari() -> Ari {
        Ari::new(
            "a.b".into(),
            "https://ca.example/1".into(),
            (NOW, NOW + Duration::days(90)),
            NOW,
            Jitter::NONE,
        )
    }

    fn window(start: Duration, end: Duration) -> Window {
        Window { start: NOW + start, end: NOW + end }
    }

    fn suggested(window: Window, retry_at: Option<OffsetDateTime>) -> Answer {
        Answer::Suggested { window, explanation_url: None, retry_at }
    }

    fn failure(retry_at: Option<OffsetDateTime>) -> Failure {
        Failure::of(code::ACME_UNAVAILABLE, "no").not_before(retry_at)
    }
}
