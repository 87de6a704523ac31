//! A message on its way to one webhook: a pure state machine.
//!
//! `Queued` behind an earlier one about the same subject, then `Pending` until it is `Delivered`, or
//! `Dead` after the last try. What a disabled webhook would have been sent is `Held`, for whoever
//! asks for it later. At least once: who is not sure sends again, under the same identifier.

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use utoipa::ToSchema;

use super::backoff::Jitter;
use super::event::{Event, Resource};
use super::event_type::EventType;
use super::id::{DeliveryId, MessageId, WebhookId};
use super::text::foreign_words;
use crate::domain::words::words;

/// A message on its way to one webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub id: DeliveryId,
    pub webhook: WebhookId,
    /// Its identifier lets the receiver detect duplicates.
    pub message: MessageId,
    pub event_type: EventType,
    /// Messages about one subject arrive in order.
    pub subject: Resource,
    /// Empty for a `ClusterIssuer`; `None` if it is not known any more.
    pub namespace: Option<String>,
    pub state: State,
    pub tries: u32,
    pub attempts: u32,
    pub last: Option<Attempt>,
    pub created_at: OffsetDateTime,
    pub finished_at: Option<OffsetDateTime>,
    /// `None` unless it is pending.
    pub next_action_at: Option<OffsetDateTime>,
    /// After this moment it is dead, however often it was tried.
    pub deadline: OffsetDateTime,
}

words! {
    /// The state of a delivery.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
    #[schema(as = DeliveryState)]
    pub serde enum State {
        /// Waits for an earlier one about the same subject.
        Queued = "queued",
        /// Waits to be sent.
        Pending = "pending",
        /// Taken by the endpoint.
        Delivered = "delivered",
        /// Given up.
        Dead = "dead",
        /// Kept back, because the webhook is disabled.
        Held = "held",
    }
}

impl State {
    /// Whether it has come to its end.
    pub fn is_final(self) -> bool {
        match self {
            Self::Queued | Self::Pending => false,
            Self::Delivered | Self::Dead | Self::Held => true,
        }
    }
}

/// One try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    pub at: OffsetDateTime,
    pub took: Duration,
    /// The HTTP status of the answer, if there was one.
    pub status: Option<u16>,
    /// Why there was none, or what was wrong with it.
    pub error: Option<String>,
    /// The beginning of the answer, cleaned.
    pub answer: Option<String>,
}

/// The result of a try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub attempt: Attempt,
    /// `Retry-After`, if the endpoint sent it.
    pub retry_at: Option<OffsetDateTime>,
}

/// The step of a delivery that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Post it.
    Send,
    /// Its time is up.
    Expire,
}

/// A verdict about the endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It took the message.
    Well,
    /// It did not.
    Failed {
        /// Why.
        reason: String,
        /// `Retry-After`, if it was sent.
        retry_at: Option<OffsetDateTime>,
    },
    /// It wants nothing any more.
    Gone,
    /// It says nothing: a test message, or no request was made.
    None,
}

/// The result of a step of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    pub delivery: Delivery,
    pub verdict: Verdict,
    pub events: Vec<Event>,
}

/// The pause before each try, as Standard Webhooks advises: three days in all.
pub const SCHEDULE: [Duration; 10] = [
    Duration::ZERO,
    Duration::seconds(5),
    Duration::minutes(5),
    Duration::minutes(30),
    Duration::hours(2),
    Duration::hours(5),
    Duration::hours(10),
    Duration::hours(14),
    Duration::hours(20),
    Duration::hours(24),
];

/// While an endpoint is down its messages take turns: not every one gets all its tries.
pub const DEADLINE: Duration = Duration::days(5);

/// Longest `Retry-After` that is respected.
const LONGEST_WAIT: Duration = Duration::hours(24);

/// Bytes of an answer that are kept.
const SHOWN: usize = 1024;

impl Delivery {
    /// A message for a webhook; where it stands in the row is for [`Delivery::queued`] to say.
    pub fn new(
        webhook: WebhookId,
        message: MessageId,
        event_type: EventType,
        subject: Resource,
        namespace: &str,
        now: OffsetDateTime,
    ) -> Self {
        Self {
            id: DeliveryId::generate(now),
            webhook,
            message,
            event_type,
            subject,
            namespace: Some(namespace.to_owned()),
            state: State::Pending,
            tries: 0,
            attempts: 0,
            last: None,
            created_at: now,
            finished_at: None,
            // A test is sent before whatever else waits: somebody looks on.
            next_action_at: Some(if event_type == EventType::WebhookTest {
                now - DEADLINE
            } else {
                now
            }),
            deadline: now + DEADLINE,
        }
    }

    /// Queues it behind an earlier delivery about the same subject.
    #[must_use]
    pub fn queued(self) -> Self {
        Self { state: State::Queued, next_action_at: None, ..self }
    }

    /// Keeps it back, because the webhook is disabled.
    #[must_use]
    pub fn held(self, now: OffsetDateTime) -> Self {
        Self { state: State::Held, next_action_at: None, finished_at: Some(now), ..self }
    }

    /// The message's identifier for the receiver: `webhook-id`.
    pub fn message_id(&self) -> String {
        format!("msg_{}", self.message.0.simple())
    }

    /// The step that is due at `now`.
    pub fn next_step(&self, now: OffsetDateTime) -> Option<Step> {
        match self.state {
            State::Pending if self.deadline <= now => Some(Step::Expire),
            State::Pending => self.next_action_at.is_some_and(|at| at <= now).then_some(Step::Send),
            State::Queued | State::Delivered | State::Dead | State::Held => None,
        }
    }

    /// Its time is up.
    #[must_use]
    pub fn expire(self, now: OffsetDateTime) -> Transition {
        let tries = self.tries;
        self.die(Verdict::None, &format!("in time, nor by any of {tries} tries"), now)
    }

    /// Applies the answer to a try.
    #[must_use]
    pub fn apply(mut self, answer: Answer, now: OffsetDateTime, jitter: Jitter) -> Transition {
        let Answer { attempt, retry_at } = answer;
        let status = attempt.status;
        let reason = match (status, &attempt.error) {
            (Some(status), _) => format!("it answered {status}"),
            (None, Some(error)) => error.clone(),
            (None, None) => "no answer".to_owned(),
        };
        self.attempts = self.attempts.saturating_add(1);
        self.last = Some(attempt);
        let only_tried_out = self.event_type == EventType::WebhookTest;
        match status {
            Some(200..=299) => {
                self.state = State::Delivered;
                self.finished_at = Some(now);
                self.next_action_at = None;
                return Transition { delivery: self, verdict: Verdict::Well, events: vec![] };
            }
            Some(410) if !only_tried_out => {
                let delivery = self.held(now);
                return Transition { delivery, verdict: Verdict::Gone, events: vec![] };
            }
            _ => {}
        }
        self.tries = self.tries.saturating_add(1);
        if only_tried_out {
            return self.die(Verdict::None, &reason, now);
        }
        let Some(pause) = SCHEDULE.get(self.tries as usize) else {
            let tries = self.tries;
            let why = format!("by any of {tries} tries; last because: {reason}");
            return self.die(Verdict::Failed { reason, retry_at }, &why, now);
        };
        let own = now + jitter.stretch(*pause, 0.1);
        let asked = retry_at.map(|asked| asked.min(now + LONGEST_WAIT));
        self.next_action_at = Some(asked.map_or(own, |asked| asked.max(own)));
        let verdict = Verdict::Failed { reason, retry_at };
        Transition { delivery: self, verdict, events: vec![] }
    }

    fn die(mut self, verdict: Verdict, why: &str, now: OffsetDateTime) -> Transition {
        self.state = State::Dead;
        self.finished_at = Some(now);
        self.next_action_at = None;
        let message = format!(
            "The {} of /{}/{} could not be delivered {why}; delivery {} can be sent again",
            self.event_type.as_str(),
            self.subject.collection(),
            self.subject.id(),
            self.id
        );
        let event = Event::warning(self.webhook, "DeliveryFailed", message);
        let events = if self.event_type == EventType::WebhookTest { vec![] } else { vec![event] };
        Transition { delivery: self, verdict, events }
    }
}

/// The beginning of a stranger's answer, fit to be shown: text on one line, nothing that a terminal
/// would obey.
pub fn shown(bytes: &[u8]) -> String {
    foreign_words(&String::from_utf8_lossy(bytes), SHOWN).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;
    use uuid::Uuid;

    const NOW: OffsetDateTime = datetime!(2026-11-25 12:00 UTC);

    #[test]
    fn it_is_tried_ten_times_over_three_days_and_then_it_is_dead() {
        let mut delivery = delivery(EventType::CertificateIssued);
        let mut now = NOW;
        for (n, pause) in SCHEDULE.iter().enumerate() {
            now += *pause;
            assert_eq!(delivery.next_step(now), Some(Step::Send), "try {n}");
            let next = delivery.apply(answer(500), now, Jitter::NONE);
            let reason = "it answered 500".to_owned();
            assert_eq!(next.verdict, Verdict::Failed { reason, retry_at: None });
            delivery = next.delivery;
            assert_eq!(next.events.len(), usize::from(n == 9), "told when it is given up");
        }
        assert_eq!((delivery.state, delivery.attempts), (State::Dead, 10));
        assert_eq!(now - NOW, Duration::minutes(75 * 60 + 35) + Duration::seconds(5));
        assert!(now - NOW < DEADLINE);
    }

    #[test]
    fn whatever_is_not_2xx_is_no_success() {
        for status in [100, 199, 301, 302, 304, 400, 404, 418, 500, 503] {
            let next =
                delivery(EventType::CertificateIssued).apply(answer(status), NOW, Jitter::NONE);
            assert_eq!(next.delivery.state, State::Pending, "{status}");
        }
        for status in [200, 202, 204, 299] {
            let next =
                delivery(EventType::CertificateIssued).apply(answer(status), NOW, Jitter::NONE);
            assert_eq!((next.delivery.state, next.verdict), (State::Delivered, Verdict::Well));
        }
    }

    #[test]
    fn gone_keeps_the_message_for_later() {
        let next = delivery(EventType::CertificateIssued).apply(answer(410), NOW, Jitter::NONE);
        assert_eq!((next.delivery.state, next.verdict), (State::Held, Verdict::Gone));
    }

    #[test]
    fn retry_after_lengthens_a_pause_within_bounds_and_never_shortens_it() {
        let ask = |wait: Duration| {
            let answer = Answer { retry_at: Some(NOW + wait), ..answer(429) };
            delivery(EventType::CertificateIssued).apply(answer, NOW, Jitter::NONE).delivery
        };
        assert_eq!(ask(Duration::ZERO).next_action_at, Some(NOW + Duration::seconds(5)));
        assert_eq!(ask(Duration::minutes(2)).next_action_at, Some(NOW + Duration::minutes(2)));
        assert_eq!(ask(Duration::days(30)).next_action_at, Some(NOW + Duration::hours(24)));
    }

    #[test]
    fn a_test_is_tried_once_and_says_nothing_about_the_endpoint_when_it_fails() {
        let test = delivery(EventType::WebhookTest);
        assert!(test.next_action_at < Some(NOW), "before everything else");
        let failed = test.clone().apply(answer(500), NOW, Jitter::NONE);
        assert_eq!((failed.delivery.state, failed.verdict), (State::Dead, Verdict::None));
        assert!(failed.events.is_empty());
        assert_eq!(test.apply(answer(200), NOW, Jitter::NONE).verdict, Verdict::Well);
    }

    #[test]
    fn its_time_is_up_after_five_days() {
        let late = delivery(EventType::CertificateIssued);
        assert_eq!(late.next_step(NOW + DEADLINE), Some(Step::Expire));
        let dead = late.expire(NOW + DEADLINE);
        assert_eq!((dead.delivery.state, dead.verdict), (State::Dead, Verdict::None));
        assert_eq!(dead.events[0].reason, "DeliveryFailed");
    }

    #[test]
    fn an_answer_is_shown_without_what_a_terminal_obeys() {
        assert_eq!(shown(b"no\r\nthanks\x1b[31m\xff\0"), "no thanks[31m\u{fffd}");
        assert_eq!(shown(&[b'a'; 5000]).chars().count(), SHOWN);
    }

    fn answer(status: u16) -> Answer {
        let attempt = Attempt {
            at: NOW,
            took: Duration::ZERO,
            status: Some(status),
            error: None,
            answer: None,
        };
        Answer { attempt, retry_at: None }
    }

    fn delivery(event_type: EventType) -> Delivery {
        let subject = Resource::Certificate(super::super::id::CertificateId(Uuid::nil()));
        Delivery::new(
            WebhookId(Uuid::nil()),
            MessageId(Uuid::nil()),
            event_type,
            subject,
            "team",
            NOW,
        )
    }
}
