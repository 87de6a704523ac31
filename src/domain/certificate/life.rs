//! The life of an issued certificate: renewal, revocation and deletion.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use super::{Certificate, Issued, State, Transition, Trigger, renewal_remark, renewal_time};
use crate::domain::ari::{self, Ari};
use crate::domain::backoff::Jitter;
use crate::domain::event::{Event, Resource};
use crate::domain::event_type::EventType;
use crate::domain::failure::Failure;
use crate::domain::revocation::{self, Reason, Revocation};

/// A revocation, as its certificate shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Revoked {
    pub revision: i64,
    pub reason: Reason,
    #[serde(with = "time::serde::rfc3339")]
    pub requested_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    pub revoked_at: Option<OffsetDateTime>,
    /// Why the CA has not done it.
    pub last_error: Option<Failure>,
}

/// Earliest automatic renewal after issuance, or a third of a short life, whatever the spec or the CA
/// says: a certificate that is due at once would be renewed over and over.
const SHORTEST_LIFE: Duration = Duration::days(1);

impl Certificate {
    /// The time of the renewal: as the CA suggests, else by its own schedule. An explicit wish
    /// of the client's can make it earlier; and when a twentieth of the lifetime is left, no
    /// suggestion counts any more.
    pub fn renewal(
        &self,
        not_before: OffsetDateTime,
        not_after: OffsetDateTime,
        ari: Option<&Ari>,
    ) -> OffsetDateTime {
        let since = ari.map_or(not_before, |ari| ari.issued_at);
        let earliest = since + SHORTEST_LIFE.min((not_after - not_before) / 3);
        self.wished_renewal(not_before, not_after, ari, self.spread()).max(earliest)
    }

    /// The time of the renewal without the lower bound.
    fn wished_renewal(
        &self,
        not_before: OffsetDateTime,
        not_after: OffsetDateTime,
        ari: Option<&Ari>,
        spread: Jitter,
    ) -> OffsetDateTime {
        let lifetime = not_after - not_before;
        let own = renewal_time(&self.spec, not_before, not_after, spread);
        let is_explicit =
            self.spec.renew_before.is_some() || self.spec.renew_before_percentage.is_some();
        match ari.and_then(|ari| ari.chosen) {
            Some(chosen) if is_explicit => chosen.min(own),
            // The window may have changed since the moment was chosen.
            Some(chosen) => chosen.min(not_after - lifetime / 20),
            None => own,
        }
    }

    /// Jitter derived from the certificate's identifier: certificates of one moment spread, and a
    /// restart changes nothing.
    fn spread(&self) -> Jitter {
        let random = u32::try_from(self.id.0.as_u128() & u128::from(u32::MAX)).unwrap_or_default();
        Jitter::new(f64::from(random) / (f64::from(u32::MAX) + 1.0))
    }

    /// Renewal follows the spec that a client has just changed: for once as soon as it says. The
    /// successor is left in peace for a while like any other.
    pub(super) fn rescheduled(self, now: OffsetDateTime) -> Transition {
        let at = self.current.as_ref().map(|issued| {
            self.wished_renewal(
                issued.not_before,
                issued.not_after,
                self.ari.as_ref(),
                Jitter::NONE,
            )
        });
        let remark = self
            .current
            .as_ref()
            .and_then(|issued| renewal_remark(&self.spec, issued.not_before, issued.not_after));
        let about = Resource::Certificate(self.id);
        let events = remark.map(|remark| Event::warning(about, "RenewBefore", remark));
        Transition::silent(self.renewed_at(at), now).with(events.into_iter().collect())
    }

    fn renewed_at(mut self, at: Option<OffsetDateTime>) -> Self {
        if let (Some(issued), Some(at)) = (&mut self.current, at) {
            issued.renewal_time = at;
        }
        if let (State::Idle, None, Some(at)) = (self.state, self.deleting_since, self.idle_until())
        {
            self.next_action_at = at;
        }
        self
    }

    /// The next wake-up while all is well: a renewal, or a question about it.
    pub(super) fn idle_until(&self) -> Option<OffsetDateTime> {
        self.current.as_ref().map(|issued| self.idle_until_renewal(issued))
    }

    pub(super) fn idle_until_renewal(&self, issued: &Issued) -> OffsetDateTime {
        self.ari.as_ref().map_or(issued.renewal_time, |ari| ari.next_check.min(issued.renewal_time))
    }

    /// Whether renewal information is due to be fetched.
    pub fn ari_is_due(&self, now: OffsetDateTime) -> bool {
        self.state == State::Idle
            && self.deleting_since.is_none()
            && self.ari.as_ref().is_some_and(|ari| ari.next_check <= now)
    }

    /// The CA has answered, or not, when it would like the certificate `about` to be replaced.
    #[must_use]
    pub fn ari_answered(
        mut self,
        about: &str,
        answer: ari::Answer,
        now: OffsetDateTime,
        jitter: Jitter,
    ) -> Transition {
        // An answer about a former certificate is none about this one.
        let Some(known) = self.ari.take_if(|ari| ari.certificate == about) else {
            return Transition::silent(self, now);
        };
        let before = known.chosen;
        let next = known.apply(answer, now, jitter);
        let news = next.window.zip(next.chosen).filter(|(_, chosen)| Some(*chosen) != before);
        let why = next.explanation_url.clone();
        self.ari = Some(next);
        let at = self
            .current
            .as_ref()
            .map(|issued| self.renewal(issued.not_before, issued.not_after, self.ari.as_ref()));
        let mut transition = Transition::silent(self.renewed_at(at), now);
        if let Some((window, chosen)) = news {
            let mut message = format!(
                "The CA suggests renewal between {} and {}; {chosen} was chosen",
                window.start, window.end
            );
            if let Some(why) = why {
                // Writing to a String cannot fail.
                write!(message, ". It explains why: {why}").ok();
            }
            let about = Resource::Certificate(transition.certificate.id);
            transition.events.push(Event::normal(about, "RenewalSuggested", message));
        }
        transition
    }

    /// The `replaces` of a new order (RFC 9773, section 5): the current certificate, if the account is
    /// the one that it was issued to.
    pub fn replaces(&self, account: Option<&str>) -> Option<String> {
        let ari = self.ari.as_ref()?;
        // A CA that has never answered may not know what is meant.
        let may = ari.last_checked.is_some()
            && account == Some(ari.account.as_str())
            && matches!(
                self.wanted_because(),
                Trigger::Renewing | Trigger::ManuallyTriggered | Trigger::Revoked
            );
        may.then(|| ari.certificate.clone())
    }

    /// Whether the CA suggests at this moment to replace the certificate of that name in ARI's words: an
    /// order that says that it does is then free of the CA's limits, and at no other time.
    pub fn is_to_be_replaced(&self, name: &str, now: OffsetDateTime) -> bool {
        let ari = self.ari.as_ref().filter(|ari| ari.certificate == name);
        ari.and_then(|ari| ari.window).is_some_and(|window| window.contains(now))
    }

    /// Whether the current revision is revoked.
    pub fn is_revoked(&self) -> bool {
        self.of_current().is_some_and(|revoked| revoked.revoked_at.is_some())
    }

    /// Whether somebody else may have the key of what is served: it must not be used again.
    pub fn key_is_compromised(&self) -> bool {
        self.of_current().is_some_and(|revoked| revoked.reason == Reason::KeyCompromise)
    }

    /// A worker may be at it, and what is saved now takes its lease away: the row then shows when that
    /// would have run out. What is due must be due for the next one.
    fn look_again(&mut self, now: OffsetDateTime) {
        match self.state {
            State::Triggered(_) | State::AwaitingIssuer(_) => self.next_action_at = now,
            State::Idle if self.deleting_since.is_none() => {
                self.next_action_at = self.idle_until().unwrap_or(now);
            }
            State::Idle | State::Ordering(_) | State::Backoff | State::Blocked => {}
        }
    }

    fn of_current(&self) -> Option<&Revoked> {
        let revision = self.current.as_ref()?.revision;
        self.revocation.as_ref().filter(|revoked| revoked.revision == revision)
    }

    /// A client wants a revision to be revoked.
    #[must_use]
    pub fn revocation_wanted(
        mut self,
        revision: i64,
        reason: Reason,
        now: OffsetDateTime,
    ) -> Transition {
        let about = Resource::Certificate(self.id);
        // The revocation of the served revision takes precedence over those of its predecessors.
        let is_current = self.current.as_ref().is_some_and(|issued| issued.revision == revision);
        if is_current || self.of_current().is_none() {
            self.revocation = Some(Revoked {
                revision,
                reason,
                requested_at: now,
                revoked_at: None,
                last_error: None,
            });
        }
        self.look_again(now);
        let message =
            format!("Revocation of revision {revision} was requested ({})", reason.as_str());
        let event = Event::normal(about, "RevocationRequested", message);
        Transition::silent(self, now).with(vec![event])
    }

    /// Takes in the result of a revocation. A revoked certificate that stays managed is issued anew.
    #[must_use]
    pub fn revocation_progressed(
        mut self,
        revocation: &Revocation,
        now: OffsetDateTime,
    ) -> Transition {
        let about = Resource::Certificate(self.id);
        let revision = revocation.revision;
        let is_done = revocation.state == revocation::State::Done;
        let mut news = is_done || revocation.state == revocation::State::Failed;
        if let Some(shown) = self.revocation.as_mut().filter(|shown| shown.revision == revision) {
            let code = |failure: &Option<Failure>| failure.as_ref().map(|it| it.code.clone());
            news |= code(&shown.last_error) != code(&revocation.last_error);
            shown.last_error.clone_from(&revocation.last_error);
            shown.revoked_at = is_done.then_some(now);
        }
        let why = revocation.last_error.as_ref().map(Failure::to_string).unwrap_or_default();
        let event = match revocation.state {
            revocation::State::Done => Event::normal(
                about,
                "Revoked",
                format!("Revision {revision} is revoked ({})", revocation.reason.as_str()),
            ),
            revocation::State::Pending => Event::warning(
                about,
                "RevocationDelayed",
                format!("Revision {revision} is not revoked yet; it will be tried again: {why}"),
            ),
            revocation::State::Failed => Event::warning(
                about,
                "RevocationFailed",
                format!("Revision {revision} was not revoked, and is not tried again: {why}"),
            ),
        };
        let events = if news { vec![event] } else { vec![] };
        self.look_again(now);
        let anew = is_done
            && self.deleting_since.is_none()
            && self.current.as_ref().is_some_and(|issued| issued.revision == revision);
        let event_types = if is_done { vec![EventType::CertificateRevoked] } else { vec![] };
        let told = Transition::silent(self, now).with(events).telling(event_types);
        if anew { told.then(|one| one.trigger(Trigger::Revoked, now)) } else { told }
    }

    /// Starts issuance anew. The caller cancels the orders that are under way.
    #[must_use]
    pub fn restarted(mut self, trigger: Trigger, now: OffsetDateTime) -> Transition {
        self.state = State::Backoff;
        self.trigger(trigger, now)
    }

    /// It is to be deleted once its revocations are over; nothing is issued any more. At `latest` it
    /// is deleted all the same.
    #[must_use]
    pub fn delete_once_revoked(
        mut self,
        latest: OffsetDateTime,
        now: OffsetDateTime,
    ) -> Transition {
        self.deleting_since = Some(now);
        self.last_error = None;
        let mut next = self.become_state(State::Idle, now);
        next.next_action_at = latest;
        let event = Event::normal(
            Resource::Certificate(next.id),
            "Deleting",
            "The certificate is deleted once what was issued is revoked",
        );
        Transition::silent(next, now).with(vec![event])
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, issued, wanted};
    use super::*;
    use crate::domain::certificate::{Phase, Spec};

    #[test]
    fn the_moment_that_the_ca_suggests_beats_the_own_schedule() {
        let mut served = served();
        served.ari = Some(chosen(NOW + Duration::days(30)));
        assert_eq!(renewal(&served), NOW + Duration::days(30));

        served.ari = Some(chosen(NOW + Duration::days(70)));
        assert_eq!(renewal(&served), NOW + Duration::days(70));
    }

    #[test]
    fn no_suggestion_counts_when_a_twentieth_of_the_lifetime_is_left() {
        let mut served = served();
        served.ari = Some(chosen(NOW + Duration::days(900)));
        assert_eq!(renewal(&served), NOW + Duration::days(90) - Duration::days(90) / 20);
    }

    #[test]
    fn an_explicit_wish_makes_it_earlier_but_not_later() {
        let mut served = served();
        served.spec = Spec { renew_before: Some("480h".into()), ..served.spec };
        served.ari = Some(chosen(NOW + Duration::days(80)));
        assert_eq!(renewal(&served), NOW + Duration::days(70));

        served.ari = Some(chosen(NOW + Duration::days(30)));
        assert_eq!(renewal(&served), NOW + Duration::days(30));
    }

    #[test]
    fn what_was_just_issued_is_not_replaced_at_once_whoever_says_so() {
        let mut served = served();
        served.ari = Some(chosen(NOW - Duration::days(5)));
        assert_eq!(renewal(&served), NOW + Duration::days(1));

        served.ari = None;
        served.spec = Spec { renew_before: Some("2159h59m".into()), ..served.spec };
        assert_eq!(renewal(&served), NOW + Duration::days(1));

        let short = served.renewal(NOW, NOW + Duration::seconds(60), None);
        assert_eq!(short, NOW + Duration::seconds(30), "a renewBefore beyond the lifetime is none");
    }

    #[test]
    fn a_client_that_wants_it_renewed_now_has_it_renewed_now_but_once() {
        let served = served();
        let spec = Spec { renew_before: Some("2159h59m".into()), ..served.spec.clone() };
        let labels = served.labels.clone();

        let changed = served.respecified(spec, labels, NOW + Duration::minutes(1)).certificate;

        assert_eq!(changed.next_action_at, NOW + Duration::minutes(1));
        assert_eq!(renewal(&changed), NOW + Duration::days(1), "its successor is not");
    }

    #[test]
    fn certificates_that_were_made_together_part() {
        let mut times: Vec<_> = (0..1_000_u128)
            .map(|n| {
                let mut one = served();
                one.id.0 = uuid::Uuid::from_u128(
                    n << 64 | u128::from(u32::try_from(n).unwrap().wrapping_mul(2_654_435_761)),
                );
                renewal(&one)
            })
            .collect();
        times.sort();
        let busiest = (0..times.len())
            .map(|from| {
                times[from..]
                    .iter()
                    .take_while(|at| **at - times[from] < Duration::minutes(1))
                    .count()
            })
            .max();
        assert!(busiest.unwrap() < 30, "{busiest:?} of 1,000 in one minute");
    }

    #[test]
    fn a_replacement_is_exempt_inside_the_suggested_window_and_at_no_other_time() {
        let mut served = served();
        let window = ari::Window { start: NOW, end: NOW + Duration::hours(22) };
        served.ari = Some(Ari { window: Some(window), ..chosen(NOW) });

        assert!(served.is_to_be_replaced("a.b", NOW));
        assert!(
            !served.is_to_be_replaced("a.b", NOW + Duration::hours(22)),
            "retries come after it"
        );
        assert!(!served.is_to_be_replaced("a.b", NOW - Duration::hours(1)), "renewed early");
        assert!(!served.is_to_be_replaced("a.c", NOW), "another one's");
        served.ari = Some(chosen(NOW));
        assert!(!served.is_to_be_replaced("a.b", NOW), "nothing is suggested");
    }

    #[test]
    fn a_renew_before_that_a_life_has_no_room_for_is_said() {
        let remark = |hours: u32, days: i64| {
            let mut wanted = wanted();
            wanted.spec.renew_before = Some(format!("{hours}h"));
            let told = wanted.issued(issued(NOW + Duration::days(days)), None, NOW);
            told.events.iter().find(|one| one.reason == "RenewBefore").map(|it| it.message.clone())
        };

        assert!(remark(1440, 45).unwrap().contains("does not count"), "longer than the life");
        assert!(remark(720, 45).unwrap().contains("more than half"));
        assert_eq!((remark(540, 45), remark(720, 90)), (None, None));
    }

    #[test]
    fn an_answer_about_a_former_certificate_changes_nothing() {
        let mut served = served();
        served.ari = Some(chosen(NOW + Duration::days(30)));
        let window = ari::Window { start: NOW, end: NOW + Duration::days(1) };
        let answer = ari::Answer::Suggested { window, explanation_url: None, retry_at: None };

        let next = served.clone().ari_answered("other.id", answer, NOW, Jitter::NONE);

        assert_eq!(next.certificate, served);
    }

    #[test]
    fn a_window_that_is_over_renews_at_once_what_has_served_for_a_day() {
        let mut served = served();
        served.ari = Some(chosen(NOW + Duration::days(60)));
        let later = NOW + Duration::days(3);
        let window =
            ari::Window { start: later - Duration::hours(2), end: later - Duration::hours(1) };
        let answer = ari::Answer::Suggested {
            window,
            explanation_url: Some("https://ca.example/incident".into()),
            retry_at: None,
        };

        let told = served.ari_answered("a.b", answer, later, Jitter::NONE);

        assert_eq!(told.certificate.next_action_at, later);
        assert!(told.events[0].message.contains("https://ca.example/incident"));
        let woken = told.certificate.wake(later).certificate;
        assert_eq!(woken.state, State::Triggered(Trigger::Renewing));
        assert_eq!(woken.replaces(Some("https://ca.example/1")), Some("a.b".into()));
        assert_eq!(woken.replaces(Some("https://ca.example/2")), None, "another account");
    }

    #[test]
    fn what_failed_is_not_hurried_by_a_suggestion() {
        let mut failed = served();
        failed.state = State::Backoff;
        failed.ari = Some(chosen(NOW - Duration::days(60)));
        failed.next_action_at = NOW + Duration::hours(8);

        assert!(!failed.ari_is_due(NOW));
        assert_eq!(failed.rescheduled(NOW).certificate.next_action_at, NOW + Duration::hours(8));
    }

    #[test]
    fn the_next_certificate_knows_nothing_of_the_former_ones_window() {
        let mut served = served();
        served.ari = Some(chosen(NOW - Duration::days(60)));
        let next = served.issued(issued(NOW + Duration::days(90)), None, NOW).certificate;

        assert_eq!(next.ari, None);
    }

    #[test]
    fn a_revoked_certificate_says_so_and_is_issued_anew() {
        let wanted = served().revocation_wanted(1, Reason::KeyCompromise, NOW).certificate;
        assert_eq!(wanted.phase(NOW), Phase::Ready, "not before the CA has done it");
        assert!(wanted.key_is_compromised(), "but its key is not used again from now on");

        let revoked = wanted.revocation_progressed(&revocation(revocation::State::Done), NOW);

        assert_eq!(revoked.certificate.phase(NOW), Phase::Revoked);
        assert_eq!(revoked.certificate.state, State::Triggered(Trigger::Revoked));
    }

    #[test]
    fn what_a_worker_was_at_when_its_lease_was_taken_away_is_due_at_once() {
        let mut claimed = served();
        claimed.state = State::Triggered(Trigger::Revoked);
        claimed.next_action_at = NOW + Duration::minutes(2);

        let told = claimed.revocation_progressed(&revocation(revocation::State::Done), NOW);

        assert_eq!(told.certificate.next_action_at, NOW);
    }

    #[test]
    fn what_is_being_deleted_is_not_issued_anew() {
        let wanted = served().revocation_wanted(1, Reason::CessationOfOperation, NOW).certificate;
        let deleting = wanted.delete_once_revoked(NOW + Duration::days(3), NOW).certificate;
        assert_eq!(deleting.clone().wake(NOW + Duration::days(80)).certificate, deleting);

        let revoked = deleting.revocation_progressed(&revocation(revocation::State::Done), NOW);

        assert_eq!(revoked.certificate.state, State::Idle);
    }

    #[test]
    fn an_older_revisions_revocation_does_not_hide_that_of_the_served_one() {
        let both = served()
            .revocation_wanted(1, Reason::KeyCompromise, NOW)
            .certificate
            .revocation_wanted(0, Reason::Superseded, NOW)
            .certificate;
        assert!(both.key_is_compromised());
    }

    fn served() -> Certificate {
        let mut served = wanted();
        served.state = State::Idle;
        served.current = Some(issued(NOW + Duration::days(90)));
        served
    }

    fn renewal(certificate: &Certificate) -> OffsetDateTime {
        let issued = certificate.current.as_ref().unwrap();
        certificate.renewal(issued.not_before, issued.not_after, certificate.ari.as_ref())
    }

    fn chosen(at: OffsetDateTime) -> Ari {
        let account = "https://ca.example/1".into();
        let new =
            Ari::new("a.b".into(), account, (NOW, NOW + Duration::days(90)), NOW, Jitter::NONE);
        Ari { chosen: Some(at), last_checked: Some(NOW), ..new }
    }

    fn revocation(state: revocation::State) -> Revocation {
        let id = uuid::Uuid::nil();
        Revocation {
            id: crate::domain::id::RevocationId(id),
            certificate: crate::domain::id::CertificateId(id),
            namespace: "default".into(),
            issuer: crate::domain::id::IssuerId(id),
            revision: 1,
            reason: Reason::KeyCompromise,
            state,
            tries: 0,
            last_error: None,
            created_at: NOW,
            next_action_at: None,
            deadline: NOW,
        }
    }
}
