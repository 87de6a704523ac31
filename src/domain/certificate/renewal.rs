//! When an issued certificate is renewed: by its spec, or as the CA suggests (RFC 9773).

use std::fmt::Write as _;

use time::{Duration, OffsetDateTime};

use super::{Certificate, Issued, Spec, State, Transition, Trigger};
use crate::domain::ari::{self, Ari};
use crate::domain::backoff::Jitter;
use crate::domain::duration;
use crate::domain::event::Event;

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
        whole_millisecond(
            self.wished_renewal(not_before, not_after, ari, self.spread()).max(earliest),
        )
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
        whole_millisecond(match ari.and_then(|ari| ari.chosen) {
            Some(chosen) if is_explicit => chosen.min(own),
            // The window may have changed since the moment was chosen.
            Some(chosen) => chosen.min(not_after - lifetime / 20),
            None => own,
        })
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
        let events = remark.map(|remark| Event::warning(self.id, "RenewBefore", remark));
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
            transition.events.push(Event::normal(
                transition.certificate.id,
                "RenewalSuggested",
                message,
            ));
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
}

/// The time of a certificate's renewal: as the spec says, else when a third of its real lifetime is
/// left, or half of it below ten days (Let's Encrypt's advice). It is spread over the hour after, or less
/// for short lives, so that certificates of one moment do not renew together.
pub fn renewal_time(
    spec: &Spec,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
    jitter: Jitter,
) -> OffsetDateTime {
    let lifetime = not_after - not_before;
    let default = if lifetime < Duration::days(10) { lifetime / 2 } else { lifetime / 3 };
    let before =
        renew_before(spec, lifetime).filter(|before| *before < lifetime).unwrap_or(default);
    let spread = Duration::hours(1).min(before / 10);
    not_after - before + jitter.stretch(spread, 1.0) - spread
}

/// A moment as exactly as it is stored, so that what is answered is what is read later.
fn whole_millisecond(moment: OffsetDateTime) -> OffsetDateTime {
    moment.replace_millisecond(moment.millisecond()).unwrap_or(moment)
}

/// The time before its end at which its spec wants a certificate renewed.
fn renew_before(spec: &Spec, lifetime: Duration) -> Option<Duration> {
    let by_duration = spec.renew_before.as_deref().and_then(|text| duration::parse(text).ok());
    let by_share =
        spec.renew_before_percentage.map(|percent| lifetime * (f64::from(percent) / 100.0));
    by_duration.or(by_share)
}

/// A remark for people where the spec's renewal time does not fit this lifetime.
pub fn renewal_remark(
    spec: &Spec,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
) -> Option<String> {
    let lifetime = not_after - not_before;
    let before = renew_before(spec, lifetime)?;
    let (life, hours) = (lifetime.whole_hours(), before.whole_hours());
    if before >= lifetime {
        Some(format!(
            "It is to be renewed {hours} h before its end, and lives {life} h: that does not count, and it is renewed as if nothing were said"
        ))
    } else if before > lifetime / 2 {
        Some(format!(
            "It is to be renewed {hours} h before its end, and lives {life} h: that is more than half of its life, and costs more orders than the usual third"
        ))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, issued, served, wanted};
    use super::*;

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

        let (right, soon) = (served.admitted_by.clone(), NOW + Duration::minutes(1));
        let changed = served.respecified(spec, labels, right, soon).certificate;

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
}
