//! Which troubles of an order somebody should hear of while it goes on.

use time::{Duration, OffsetDateTime};

use super::Order;
use crate::domain::failure::{Class, Failure};

/// So many failures in a row are no hiccup any more.
const PERSISTENT: u32 = 3;

/// Whoever was asked to wait for so long is in trouble.
const LONG_WAIT: Duration = Duration::minutes(10);

impl Order {
    /// Takes note of a trouble that is to be told, or of its end.
    pub(super) fn take_note_of_trouble(&mut self, now: OffsetDateTime) {
        match &self.last_error {
            None => self.course.told = None,
            Some(failure) if self.is_serious(failure, now) => {
                self.course.told = Some(failure.code.clone());
            }
            // It may pass; what was told before still holds.
            Some(_) => {}
        }
    }

    /// The trouble that has come, or changed, since `told` was noted; `None` for an order that has ended, whose
    /// certificate has a transition of its own.
    pub fn new_trouble(&self, told: Option<&str>) -> Option<&Failure> {
        let is_new =
            !self.is_over() && self.course.told.is_some() && self.course.told.as_deref() != told;
        self.last_error.as_ref().filter(|_| is_new)
    }

    /// The name of its certificate, which its own begins with; see [`super::name`].
    pub fn certificate_name(&self) -> &str {
        let without_end = |name| str::rsplit_once(name, '-').map_or(name, |(rest, _)| rest);
        without_end(without_end(&self.name))
    }

    fn is_serious(&self, failure: &Failure, now: OffsetDateTime) -> bool {
        match failure.class {
            Class::Consistency | Class::Gone => false,
            Class::Transient | Class::Conflict => self.tries >= PERSISTENT,
            Class::Throttle => self.next_action_at.is_some_and(|at| at - now >= LONG_WAIT),
            Class::Validation | Class::Blocked => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::failure::code;
    use crate::domain::order::tests::{NOW, order};

    #[test]
    fn only_what_lasts_or_does_not_pass_by_itself_is_told() {
        let soon = Duration::minutes(1);
        for (code, tries, pause, is_told) in [
            (code::ACME_TIMEOUT, 1, soon, false),
            (code::ACME_TIMEOUT, 2, soon, false),
            (code::ACME_TIMEOUT, 3, soon, true),
            (code::ACME_CONFLICT, 3, soon, true),
            (code::ACME_RATE_LIMITED, 0, soon, false),
            (code::ACME_RATE_LIMITED, 0, LONG_WAIT, true),
            (code::CLOUDFLARE_INVALID_TOKEN, 0, soon, true),
        ] {
            let mut order = order([]);
            order.tries = tries;
            order.next_action_at = Some(NOW + pause);
            order.last_error = Some(Failure::of(code, ""));

            order.take_note_of_trouble(NOW);

            let told = order.new_trouble(None).map(|failure| failure.code.as_str());
            assert_eq!(told, is_told.then_some(code.text), "{} {tries} {pause}", code.text);
        }
    }

    #[test]
    fn a_trouble_is_told_once_until_it_changes_or_has_ended() {
        let mut order = order([]);
        let mut told = Vec::new();
        let timeout = Some(code::ACME_TIMEOUT);
        let refused = Some(code::ACME_UNAVAILABLE);
        for (tries, failure) in
            [(3, timeout), (4, timeout), (5, refused), (0, None), (1, timeout), (3, timeout)]
        {
            let before = order.course.told.clone();
            order.tries = tries;
            order.last_error = failure.map(|code| Failure::of(code, ""));
            order.take_note_of_trouble(NOW);
            told.extend(order.new_trouble(before.as_deref()).map(|failure| failure.code.clone()));
        }
        assert_eq!(told, ["acme_timeout", "acme_unavailable", "acme_timeout"]);
    }

    #[test]
    fn an_order_names_its_certificate() {
        let mut order = order([]);
        order.name = "my-web-12-3905810924".into();
        assert_eq!(order.certificate_name(), "my-web");
    }
}
