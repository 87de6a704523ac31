//! An attempt at issuance: what it waits for, the order that it places, and how it ends.

use time::{Duration, OffsetDateTime};

use super::rehearsal::is_rehearsed;
use super::{Certificate, Issued, State, Told, Transition, renewal_remark};
use crate::domain::ari::Ari;
use crate::domain::backoff::{self, Jitter, Retry};
use crate::domain::event::Event;
use crate::domain::event_type::EventType;
use crate::domain::failure::{Failure, code};
use crate::domain::id::{OrderId, RequestId};
use crate::domain::issuer::{self, Issuer};
use crate::domain::order::{self, ORDER_DEADLINE};

/// Fresh orders for one request, before its loss counts as a failed attempt.
const FRESH_ORDERS: u32 = 2;

/// The second fresh order comes this long after the first.
const FRESH_ORDER_PAUSE: Duration = Duration::seconds(60);

/// An attempt makes [`FRESH_ORDERS`] and one more at most, and the next one does not begin within
/// this: three orders for one certificate in ten minutes, whatever a CA does with them.
pub(super) const SHORTEST_BACKOFF: Duration = Duration::minutes(10);

/// However little is left of what is served, an order gets this long.
const SHORTEST_ATTEMPT: Duration = Duration::minutes(10);

/// Interval at which a blocked certificate is tried; shorter if the current revision ends within eight
/// intervals.
pub(super) const PROBE_EVERY: Duration = Duration::hours(24);

/// Pause before it is looked again whether the issuer is ready. The issuer wakes the certificate when it
/// becomes ready, and once more [`crate::domain::issuer::WAKES_AGAIN_AFTER`].
const ISSUER_RECHECK: Duration = Duration::minutes(5);

impl Certificate {
    /// It is to be issued for the first time: at once, or as soon as its issuer is ready.
    #[must_use]
    pub fn begin(self, issuer: Option<&Issuer>, now: OffsetDateTime) -> Transition {
        let text = "Issuing certificate as none has been issued yet";
        let events = vec![Event::normal(self.id, "Issuing", text)];
        let begun = Transition::silent(self, now).with(events);
        match issuer {
            Some(issuer) if issuer.state == issuer::State::Ready => begun,
            issuer => begun.then(|one| one.wait_for(issuer, now)),
        }
    }

    /// Waits for its issuer, which does not exist (`None`), or has no account yet.
    #[must_use]
    pub fn wait_for(self, issuer: Option<&Issuer>, now: OffsetDateTime) -> Transition {
        let (kind, name) = (self.spec.issuer_ref.kind.as_str(), &self.spec.issuer_ref.name);
        let Some(issuer) = issuer else {
            let why = format!(
                "There is no {kind} named \"{name}\"; create it, and this goes on by itself"
            );
            return self.await_issuer("IssuerNotFound", &why, now);
        };
        let (_, reason, message) = issuer.ready();
        let why = format!("Referenced {kind} \"{name}\" is not ready ({reason}): {message}");
        let waiting = self.await_issuer("IssuerNotReady", &why, now);
        waiting.with_page_of(issuer.last_error.as_ref())
    }

    /// Its issuer is not there or not ready; `why` says which.
    #[must_use]
    pub fn await_issuer(self, reason: &'static str, why: &str, now: OffsetDateTime) -> Transition {
        let trigger = self.wanted_because();
        let first = !matches!(self.state, State::AwaitingIssuer(_));
        let mut next = self.become_state(State::AwaitingIssuer(trigger), now);
        next.next_action_at = now + ISSUER_RECHECK;
        let code = match reason {
            "IssuerNotFound" => code::ISSUER_NOT_FOUND,
            _ => code::ISSUER_NOT_READY,
        };
        next.last_error =
            Some(Failure::of(code.with_advice(""), why).titled("Waiting for the issuer"));
        let events = if first { vec![Event::normal(next.id, reason, why)] } else { vec![] };
        Transition::silent(next, now).with(events)
    }

    /// An attempt has begun: key and CSR are made, and an order is wanted.
    #[must_use]
    pub fn order_placed(
        self,
        request: RequestId,
        order: OrderId,
        now: OffsetDateTime,
    ) -> Transition {
        let trigger = self.wanted_because();
        let named = self.request_name();
        let mut events = self.request_made(request);
        let mut next = self.become_state(State::Ordering(trigger), now);
        next.request = Some(request);
        next.order = Some(order);
        // Neither the issuer nor an approval is waited for any more.
        next.last_error = next.last_error.filter(|it| {
            let waited = [code::ISSUER_NOT_FOUND, code::ISSUER_NOT_READY, code::APPROVAL_PENDING];
            !waited.into_iter().any(|code| it.is(code))
        });
        // The order's end changes this row; the wake-up is for the case that it never comes.
        next.next_action_at = now + ORDER_DEADLINE + Duration::hours(1);
        let created = format!("Created Order resource \"{}\"", order::name(&named, order));
        events.push(Event::normal(request, "OrderCreated", created));
        Transition::silent(next, now).with(events)
    }

    /// The events of a new request; none if there is one that was waited for.
    pub(super) fn request_made(&self, request: RequestId) -> Vec<Event> {
        if self.request == Some(request) {
            return vec![];
        }
        let generated = match self.spec.csr {
            Some(_) => "Took the CSR that the client gave",
            None => "Generated and stored a new private key and CSR",
        };
        let named = self.request_name();
        let requested = format!("Created new CertificateRequest resource \"{named}\"");
        vec![
            Event::normal(self.id, "Generated", generated),
            Event::normal(self.id, "Requested", requested),
        ]
    }

    /// The order ended with a certificate. What was known of the CA's wishes for the former one is
    /// forgotten: `ari` is about this one.
    #[must_use]
    pub fn issued(self, issued: Issued, ari: Option<Ari>, now: OffsetDateTime) -> Transition {
        let mut event_types = vec![match self.current {
            None => EventType::CertificateIssued,
            Some(_) => EventType::CertificateRenewed,
        }];
        if self.told != Told::default() {
            event_types.push(EventType::CertificateRecovered);
        }
        let mut next = self.become_state(State::Idle, now);
        next.told = Told::default();
        next.ari = ari;
        next.next_action_at = next.idle_until_renewal(&issued);
        let remark = renewal_remark(&next.spec, issued.not_before, issued.not_after);
        next.approved = Some(issued.revision);
        next.triggered_by = None;
        next.current = Some(issued);
        next.failed_attempts = 0;
        next.last_error = None;
        let event =
            Event::normal(next.id, "Issuing", "The certificate has been successfully issued");
        let remark = remark.map(|remark| Event::warning(next.id, "RenewBefore", remark));
        let events = std::iter::once(event).chain(remark).collect();
        Transition::silent(next, now).with(events).telling(event_types)
    }

    /// It exists already, made elsewhere, and is taken over. Nothing was issued, so that nobody is
    /// told but of a recovery.
    #[must_use]
    pub fn imported(self, issued: Issued, ari: Option<Ari>, now: OffsetDateTime) -> Transition {
        let message = format!("Imported a certificate that is valid until {}", issued.not_after);
        let mut next = self.issued(issued, ari, now);
        next.events.retain(|event| event.reason == "RenewBefore");
        next.events.insert(0, Event::normal(next.certificate.id, "Imported", message));
        next.event_types.retain(|event_type| *event_type == EventType::CertificateRecovered);
        // Nobody here has judged what was made elsewhere.
        next.certificate.approved = None;
        next
    }

    /// The order ended without one. `predecessors` counts the orders that the CA lost before it.
    #[must_use]
    pub fn order_failed(
        self,
        outcome: order::Outcome,
        predecessors: u32,
        now: OffsetDateTime,
        jitter: Jitter,
    ) -> Transition {
        self.order_failed_under(None, outcome, predecessors, now, jitter)
    }

    /// Takes over the backoff of its issuer where it has none of its own.
    #[must_use]
    pub fn order_failed_under(
        mut self,
        issuers: Option<&Retry>,
        outcome: order::Outcome,
        predecessors: u32,
        now: OffsetDateTime,
        jitter: Jitter,
    ) -> Transition {
        let (failure, state) = match outcome {
            order::Outcome::Issued => return Transition::silent(self, now),
            order::Outcome::Lost(failure) if predecessors < FRESH_ORDERS => {
                let pause = FRESH_ORDER_PAUSE * i32::try_from(predecessors).unwrap_or(i32::MAX);
                let at = failure.retry_at.map_or(now + pause, |asked| asked.max(now + pause));
                self.last_error = Some(failure);
                // As in `order_placed`: for the case that the fresh order's end never comes.
                self.next_action_at = at + ORDER_DEADLINE + Duration::hours(1);
                let mut next = Transition::silent(self, now);
                next.fresh_order_at = Some(at);
                return next;
            }
            order::Outcome::Lost(failure) | order::Outcome::Failed(failure) => {
                (failure, State::Backoff)
            }
            order::Outcome::Blocked(failure) => (failure, State::Blocked),
        };
        let is_rehearsed = state == State::Blocked && is_rehearsed(&failure);
        let pause = if state == State::Blocked {
            jitter.stretch(PROBE_EVERY, 0.1)
        } else {
            let retry = self.spec.retry.as_ref().or(issuers).cloned().unwrap_or_default();
            let pause = backoff::issuance(self.failed_attempts, &retry, jitter);
            // The attempt has asked for several orders.
            if predecessors > 0 { pause.max(SHORTEST_BACKOFF) } else { pause }
        };
        let pause = if failure.is(code::APPROVAL_PENDING) {
            // Its next attempt asks.
            Duration::ZERO
        } else if is_rehearsed {
            jitter.stretch(backoff::rehearsal(self.failed_attempts), 0.1)
        } else {
            self.shortened(pause, now)
        };
        let asked = failure.retry_at.map(|asked| asked.min(self.half_way(now)) - now);
        let at = now + asked.map_or(pause, |asked| pause.max(asked));
        let message = match state {
            State::Blocked => format!(
                "The certificate request has failed and waits for a changed certificate, issuer, secret or policy: {failure}"
            ),
            _ => format!(
                "The certificate request has failed to complete and will be retried: {failure}"
            ),
        };
        let mut next = self.become_state(state, now);
        let event_types = next.tell_failure();
        // Failing again for the same reason is no news.
        let is_known = next.last_error.as_ref().is_some_and(|known| known.code == failure.code);
        let trouble = (!is_known || !event_types.is_empty()).then(|| failure.clone());
        next.failed_attempts = next.failed_attempts.saturating_add(1);
        next.last_error = Some(failure);
        next.next_action_at = at;
        let event = Event::warning(next.id, "Failed", message);
        let told = Transition::silent(next, now).with(vec![event]).telling(event_types);
        Transition { trouble, ..told }
    }

    /// A step failed inside. Where something is to be issued that is a failed attempt; where nothing
    /// is, what there was to do is looked at again later.
    #[must_use]
    pub fn failed_inside(
        mut self,
        failure: Failure,
        now: OffsetDateTime,
        jitter: Jitter,
    ) -> Transition {
        if !matches!(self.state, State::Idle | State::AwaitingApproval(_)) {
            return self.order_failed(order::Outcome::Failed(failure), 0, now, jitter);
        }
        self.next_action_at = now + jitter.stretch(Duration::HOUR, 0.1);
        let event = Event::warning(self.id, "InternalError", failure.to_string());
        Transition::silent(self, now).with(vec![event])
    }

    /// A failure is told once for each row of failed attempts, and so is that nobody but a person
    /// can end it. What a client changed begins a new row.
    pub(super) fn tell_failure(&mut self) -> Vec<EventType> {
        if self.failed_attempts == 0 {
            self.told = Told::default();
        }
        let (told, event_type) = match self.state {
            State::Blocked => (&mut self.told.blocked, EventType::CertificateBlocked),
            _ => (&mut self.told.failed, EventType::CertificateFailed),
        };
        let is_known = std::mem::replace(told, true);
        if is_known { vec![] } else { vec![event_type] }
    }

    /// A backoff that leaves several tries before what is served ends, and never more orders than
    /// a CA may be asked for.
    fn shortened(&self, pause: Duration, now: OffsetDateTime) -> Duration {
        match &self.current {
            Some(issued) if issued.not_after > now => {
                pause.min((issued.not_after - now) / 8).max(SHORTEST_BACKOFF)
            }
            _ => pause,
        }
    }

    /// The middle of what is left of what is served: nobody is waited for any longer.
    fn half_way(&self, now: OffsetDateTime) -> OffsetDateTime {
        match &self.current {
            Some(issued) if issued.not_after > now => now + (issued.not_after - now) / 2,
            _ => OffsetDateTime::new_utc(time::Date::MAX, time::Time::MIDNIGHT),
        }
    }

    /// Deadline of an order that begins at `from`: it leaves time for several more before the current
    /// revision ends.
    pub fn order_deadline(
        &self,
        from: OffsetDateTime,
        not_after: Option<OffsetDateTime>,
    ) -> OffsetDateTime {
        let usual = order::deadline(from, not_after);
        match &self.current {
            Some(issued) if issued.not_after > from => {
                let left = issued.not_after - from;
                usual.min(from + SHORTEST_ATTEMPT.max(left / 8))
            }
            _ => usual,
        }
    }
}
