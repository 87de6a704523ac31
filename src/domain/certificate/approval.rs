//! Approval of a request by a person, where policies ask for one: before an order, and never after it.

use time::OffsetDateTime;

use super::attempt::PROBE_EVERY;
use super::{Certificate, State, Transition};
use crate::domain::approval::{Decision, Verdict};
use crate::domain::event::Event;
use crate::domain::event_type::EventType;
use crate::domain::failure::{Failure, code};
use crate::domain::id::RequestId;
use crate::domain::policy::{Approval, Judgement};
use crate::domain::principal::PrincipalRef;

/// How an attempt goes on. Orders are placed for no other reason than [`Course::Order`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Course {
    /// No policy allows the certificate.
    Block(Failure),
    /// Nobody has to approve, or somebody has: an order is placed.
    Order,
    /// Its request waits until somebody decides.
    Ask,
    /// Nobody has decided by the end of the wait.
    GiveUp,
}

/// How an approval stands that somebody was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Pending,
    Approved,
    Denied,
}

impl Certificate {
    /// Decides how an attempt goes on that was judged just now. `deadline` is that of the request that waits for
    /// approval, if one does.
    pub fn course(
        &self,
        judged: Result<&Judgement, Failure>,
        deadline: Option<OffsetDateTime>,
        now: OffsetDateTime,
    ) -> Course {
        match judged {
            Err(failure) => Course::Block(failure),
            Ok(judged) if !self.needs_approval(judged.approval) => Course::Order,
            Ok(_) if deadline.is_some_and(|deadline| deadline <= now) => Course::GiveUp,
            Ok(_) => Course::Ask,
        }
    }

    /// Why an order that was placed goes no further, by the policies of this moment.
    pub fn objection(&self, judged: Result<Judgement, Failure>) -> Option<Failure> {
        match judged {
            Err(failure) => Some(failure),
            Ok(judged) if self.needs_approval(judged.approval) => {
                let detail = "A policy wants it to be approved, which it did not when the order was placed, or the issuer has another CA since it was approved.";
                Some(Failure::of(code::APPROVAL_PENDING, detail))
            }
            Ok(_) => None,
        }
    }

    /// Whether somebody still has to approve the next revision.
    pub(super) fn needs_approval(&self, approval: Approval) -> bool {
        match approval {
            Approval::Auto => false,
            Approval::Manual => self.approved.is_none(),
            Approval::Always => self.approved.is_none_or(|newest| newest < self.next_revision()),
        }
    }

    /// Whether it is blocked because its request was denied. Another request is made only if somebody asks.
    pub(super) fn is_denied(&self) -> bool {
        self.last_error.as_ref().is_some_and(|error| error.is(code::REQUEST_DENIED))
    }

    /// How the approval of the next revision stands, where somebody was asked.
    pub fn approval(&self) -> Option<Standing> {
        match self.state {
            State::AwaitingApproval(_) => Some(Standing::Pending),
            State::Blocked if self.is_denied() => Some(Standing::Denied),
            _ if self.approved == Some(self.next_revision()) => Some(Standing::Approved),
            _ => None,
        }
    }

    /// As wanted by this principal.
    #[must_use]
    pub fn requested_by(self, principal: PrincipalRef) -> Self {
        Self { requested_by: Some(principal), triggered_by: None, ..self }
    }

    /// As issued anew at the wish of this principal, which asked for that as the first one asked for the certificate.
    /// Where nobody is known who did, it is the first.
    #[must_use]
    pub fn triggered_by(self, principal: PrincipalRef) -> Self {
        match self.requested_by {
            None => self.requested_by(principal),
            Some(_) => Self { triggered_by: Some(principal), ..self },
        }
    }

    /// Whether a change that wants nothing else brings the next revision forward.
    pub fn comes_sooner_than(&self, before: &Self) -> bool {
        let is_triggered = |one: &Self| matches!(one.state, State::Triggered(_));
        let renewal = |one: &Self| one.current.as_ref().map(|issued| issued.renewal_time);
        let is_rewritten = self.generation != before.generation;
        is_triggered(self) && !is_triggered(before)
            || is_rewritten && renewal(self) < renewal(before)
    }

    /// Whoever asked for what is issued next, and so does not approve it.
    pub fn askers(&self) -> impl Iterator<Item = &PrincipalRef> {
        self.requested_by.iter().chain(&self.triggered_by)
    }

    /// Its request is stored, and waits for approval until the deadline. Told once for each request.
    #[must_use]
    pub fn await_approval(
        self,
        request: RequestId,
        deadline: OffsetDateTime,
        now: OffsetDateTime,
    ) -> Transition {
        let trigger = self.wanted_because();
        let is_new = self.request != Some(request);
        let mut events = self.request_made(request);
        let named = self.request_name();
        let mut next = self.become_state(State::AwaitingApproval(trigger), now);
        next.request = Some(request);
        next.next_action_at = deadline;
        let detail =
            format!("The request \"{named}\" is denied if nobody has decided by {deadline}.");
        next.last_error = Some(Failure::of(code::APPROVAL_PENDING, detail));
        if !is_new {
            return Transition::silent(next, now);
        }
        let waits = "Not signing CertificateRequest until it is Approved";
        events.push(Event::normal(request, "WaitingForApproval", waits));
        let told = Transition::silent(next, now).with(events);
        told.telling(vec![EventType::RequestPending])
    }

    /// Somebody has decided about the request that it waits for, or nobody in time.
    #[must_use]
    pub fn decided(mut self, decision: &Decision, now: OffsetDateTime) -> Transition {
        let about = self.request;
        let message = decision.message();
        match decision.verdict {
            Verdict::Approved => {
                self.approved = Some(self.next_revision());
                let events = about.map(|about| Event::normal(about, "Approved", message));
                let released = self.released(now);
                released.remarking(events).telling(vec![EventType::RequestApproved])
            }
            Verdict::Denied => {
                let named = self.request_name();
                let mut next = self.become_state(State::Blocked, now);
                next.next_action_at = now + PROBE_EVERY;
                let detail = format!("The request \"{named}\" was denied. {message}.");
                next.last_error = Some(Failure::of(code::REQUEST_DENIED, detail));
                let events = about.map(|about| Event::warning(about, "Denied", message));
                let told = Transition::silent(next, now).remarking(events);
                told.telling(vec![EventType::RequestDenied])
            }
        }
    }

    /// It goes on with the request that it has.
    #[must_use]
    pub fn released(self, now: OffsetDateTime) -> Transition {
        let trigger = self.wanted_because();
        let mut next = self.become_state(State::Triggered(trigger), now);
        next.last_error = None;
        next.next_action_at = now;
        Transition::silent(next, now)
    }
}

#[cfg(test)]
mod tests {
    use time::Duration;
    use uuid::Uuid;

    use super::super::tests::{NOW, issued, served, wanted};
    use super::*;
    use crate::domain::backoff::Jitter;
    use crate::domain::certificate::{Phase, Spec, Trigger};
    use crate::domain::order;
    use crate::domain::policy::AdmittedBy;
    use crate::domain::principal::PrincipalKind;

    const REQUEST: RequestId = RequestId(Uuid::from_u128(7));

    fn judged(approval: Approval) -> Judgement {
        Judgement { by: AdmittedBy::Policy("team".into()), approval }
    }

    fn waiting() -> Certificate {
        wanted().await_approval(REQUEST, NOW + Duration::days(7), NOW).certificate
    }

    fn decision(verdict: Verdict) -> Decision {
        let by = PrincipalRef { kind: PrincipalKind::ApiKey, id: None, name: "boss".into() };
        Decision { verdict, by: Some(by), at: NOW, reason: "as agreed".into() }
    }

    #[test]
    fn an_order_follows_only_where_nobody_has_to_approve_or_somebody_has() {
        use Approval::{Always, Auto, Manual};
        let approved = || waiting().decided(&decision(Verdict::Approved), NOW).certificate;
        let renewed = || Certificate { approved: Some(1), ..served() };
        let imported = || Certificate { approved: None, ..served() };
        let respecified = || {
            let spec = Spec { dns_names: vec!["b.example.com".into()], ..renewed().spec };
            let (labels, by) = (renewed().labels, renewed().admitted_by);
            renewed().respecified(spec, labels, by, NOW).certificate
        };
        let (soon, passed) = (Some(NOW + Duration::SECOND), Some(NOW));
        for (what, certificate, approval, deadline, course) in vec![
            ("new", wanted(), Auto, None, Course::Order),
            ("new", wanted(), Manual, None, Course::Ask),
            ("new", wanted(), Always, None, Course::Ask),
            ("waits", waiting(), Manual, soon, Course::Ask),
            ("waits", waiting(), Always, soon, Course::Ask),
            ("waits, of a policy that is Auto by now", waiting(), Auto, soon, Course::Order),
            ("waited too long", waiting(), Manual, passed, Course::GiveUp),
            ("waited too long", waiting(), Always, passed, Course::GiveUp),
            ("approved", approved(), Manual, None, Course::Order),
            ("approved", approved(), Always, None, Course::Order),
            ("approved in time, but late", approved(), Manual, passed, Course::Order),
            ("due again as it was", renewed(), Manual, None, Course::Order),
            ("due again as it was", renewed(), Always, None, Course::Ask),
            ("made elsewhere", imported(), Manual, None, Course::Ask),
            ("changed", respecified(), Manual, None, Course::Ask),
            ("changed", respecified(), Auto, None, Course::Order),
        ] {
            let found = certificate.course(Ok(&judged(approval)), deadline, NOW);
            assert_eq!(found, course, "{what}, {approval:?}");
        }
        let refused = Failure::of(code::NAME_NOT_ALLOWED, "");
        assert_eq!(approved().course(Err(refused.clone()), None, NOW), Course::Block(refused));
    }

    #[test]
    fn an_order_goes_no_further_once_somebody_has_to_approve_and_the_request_is_made_at_once() {
        use Approval::{Always, Auto, Manual};
        let approved = waiting().decided(&decision(Verdict::Approved), NOW).certificate;
        let renewed = Certificate { approved: Some(1), ..served() };
        for (what, certificate, approval, stops) in [
            ("new", &wanted(), Auto, false),
            ("new", &wanted(), Manual, true),
            ("approved", &approved, Manual, false),
            ("approved", &approved, Always, false),
            ("due again as it was", &renewed, Manual, false),
            ("due again as it was", &renewed, Always, true),
        ] {
            let found = certificate.objection(Ok(judged(approval)));
            assert_eq!(found.is_some(), stops, "{what}, {approval:?}");
        }
        let why = wanted().objection(Ok(judged(Manual))).unwrap();
        let ended = order::Outcome::Blocked(why);
        let stopped = wanted().order_failed(ended, 0, NOW, Jitter::NONE).certificate;
        assert_eq!((stopped.state, stopped.next_action_at), (State::Blocked, NOW));
        let next = stopped.wake(NOW).certificate;
        assert_eq!(next.course(Ok(&judged(Manual)), None, NOW), Course::Ask);
    }

    #[test]
    fn whoever_asked_is_who_wanted_it_and_who_had_it_issued_anew() {
        let one = |name: &str| PrincipalRef {
            kind: PrincipalKind::ApiKey,
            id: Some(Uuid::from_u128(name.len() as u128)),
            name: name.into(),
        };
        let (ann, boss) = (one("ann"), one("boss"));
        let asked = |certificate: &Certificate| {
            certificate.askers().map(|one| one.name.clone()).collect::<Vec<_>>()
        };
        let renewed = served().requested_by(ann).triggered_by(boss.clone());
        assert_eq!(asked(&renewed), ["ann", "boss"]);
        let over = renewed.clone().issued(issued(NOW + Duration::days(90)), None, NOW).certificate;
        assert_eq!(asked(&over), ["ann"], "it is over");
        assert_eq!(asked(&renewed.requested_by(boss.clone())), ["boss"], "another wish");
        assert_eq!(asked(&served().triggered_by(boss)), ["boss"], "nobody else is known");
    }

    #[test]
    fn what_is_issued_is_approved_for_its_renewals_and_what_is_imported_is_not() {
        let end = NOW + Duration::days(90);
        assert_eq!(wanted().issued(issued(end), None, NOW).certificate.approved, Some(1));
        assert_eq!(wanted().imported(issued(end), None, NOW).certificate.approved, None);
    }

    #[test]
    fn a_request_that_waits_is_told_once_and_has_a_wake_up() {
        let asked = wanted().await_approval(REQUEST, NOW + Duration::days(7), NOW);

        assert_eq!(asked.event_types, [EventType::RequestPending]);
        let reasons: Vec<_> = asked.events.iter().map(|event| event.reason).collect();
        assert_eq!(reasons, ["Generated", "Requested", "WaitingForApproval"]);
        let one = asked.certificate;
        assert_eq!(one.next_action_at, NOW + Duration::days(7));
        assert_eq!(one.phase(NOW), Phase::Blocked);
        assert!(one.is_settled() && one.order.is_none());
        let again = one.clone().await_approval(REQUEST, one.next_action_at, NOW);
        assert_eq!(again, Transition::silent(one.clone(), NOW));
        let joined = one.clone().trigger(Trigger::ManuallyTriggered, NOW);
        assert_eq!(joined, Transition::silent(one.clone(), NOW), "nothing hurries it");
        assert_eq!(one.clone().wake(NOW), Transition::silent(one, NOW));
    }

    #[test]
    fn what_is_approved_goes_on_at_once_and_what_is_denied_only_when_somebody_asks() {
        let approved = waiting().decided(&decision(Verdict::Approved), NOW);
        assert_eq!(approved.event_types, [EventType::RequestApproved]);
        assert_eq!(approved.events[0].message, "Approved by API key `boss`: as agreed");
        let next = approved.certificate;
        assert_eq!(next.state, State::Triggered(Trigger::DoesNotExist));
        assert_eq!((next.next_action_at, next.last_error), (NOW, None));

        let denied = waiting().decided(&decision(Verdict::Denied), NOW);
        assert_eq!(denied.event_types, [EventType::RequestDenied]);
        let blocked = denied.certificate;
        let shown = blocked.last_error.clone().unwrap();
        assert!(shown.is(code::REQUEST_DENIED) && shown.detail.contains("`boss`: as agreed"));
        let mut later = blocked.clone();
        for _ in 0..30 {
            let now = later.next_action_at;
            later = later.wake(now).certificate;
            assert_eq!(later.state, State::Blocked, "no other request by itself");
            assert!(later.next_action_at > now);
        }
        let asked = blocked.trigger(Trigger::ManuallyTriggered, NOW).certificate;
        assert_eq!(asked.course(Ok(&judged(Approval::Manual)), None, NOW), Course::Ask);
    }

    #[test]
    fn a_review_wakes_what_waits_only_if_it_does_not_have_to_wait_any_more() {
        let refused = Failure::of(code::NAME_NOT_ALLOWED, "");
        assert_eq!(waiting().reviewed(Ok(judged(Approval::Manual)), NOW), None);
        for judgement in [Ok(judged(Approval::Auto)), Err(refused)] {
            let woken = waiting().reviewed(judgement, NOW).unwrap().certificate;
            assert_eq!(woken, Certificate { next_action_at: NOW, ..waiting() });
        }
    }

    #[test]
    fn a_failure_inside_ends_no_wait_for_approval() {
        let failure = Failure::of(code::INTERNAL_ERROR, "");
        let next = waiting().failed_inside(failure, NOW, Jitter::NONE).certificate;
        assert_eq!(next.state, State::AwaitingApproval(Trigger::DoesNotExist));
        assert_eq!(next.next_action_at, NOW + Duration::HOUR);
    }
}
