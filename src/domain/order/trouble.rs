//! Which troubles of an order somebody should hear of while it goes on.

use time::{Duration, OffsetDateTime};

use super::Order;
use crate::domain::failure::{Class, Failure, code};

/// So many failures in a row are no hiccup any more.
const PERSISTENT: u32 = 3;

/// Whoever has to wait for so long is in trouble, in one pause or in many short ones.
const LONG_WAIT: Duration = Duration::minutes(10);

impl Order {
    /// Takes note of a trouble that is to be told, or of its end.
    pub(super) fn take_note_of_trouble(&mut self, now: OffsetDateTime) {
        let Some(failure) = &self.last_error else {
            (self.course.told, self.course.troubled_since) = (None, None);
            return;
        };
        let since = *self.course.troubled_since.get_or_insert(now);
        // Between the requests that find out whether the CA answers again, the orders wait for them: what was told
        // still holds.
        let is_known = self.course.told.is_some() && failure.is(code::CIRCUIT_OPEN);
        if !is_known && self.is_serious(failure, since, now) {
            self.course.told = Some(failure.code.clone());
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

    /// Whether somebody should hear of a failure, in a row of them that began at `since`.
    fn is_serious(&self, failure: &Failure, since: OffsetDateTime, now: OffsetDateTime) -> bool {
        // The more orders there are, the longer it takes until all had their turn.
        let is_in_line = failure.is(code::ACME_NO_TURN);
        if now - since >= LONG_WAIT && !is_in_line {
            return true;
        }
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
    fn an_outage_is_told_to_each_order_that_it_holds_however_seldom_the_order_asks_itself() {
        let (closed, down) = (code::CIRCUIT_OPEN, code::ACME_UNREACHABLE);
        for (what, failures, expected) in [
            (
                "others ask",
                &[(0, closed), (9, closed), (10, closed), (11, closed)][..],
                &["circuit_open"][..],
            ),
            (
                "it asks itself now and then",
                &[(0, down), (5, closed), (12, closed), (14, down), (20, closed), (50, down)],
                &["circuit_open", "acme_unreachable"],
            ),
            (
                "the CA keeps forgetting",
                &[(0, code::ACME_NOT_FOUND_YET), (10, code::ACME_NOT_FOUND_YET)],
                &["acme_not_found_yet"],
            ),
            ("it is not its turn", &[(0, code::ACME_NO_TURN), (60, code::ACME_NO_TURN)], &[]),
        ] {
            let mut order = order([]);
            let mut told = Vec::new();
            for (minute, failure) in failures {
                let before = order.course.told.clone();
                let now = NOW + Duration::minutes(*minute);
                order.tries = 1;
                order.next_action_at = Some(now + Duration::seconds(2));
                order.last_error = Some(Failure::of(*failure, ""));
                order.take_note_of_trouble(now);
                told.extend(order.new_trouble(before.as_deref()).map(|told| told.code.clone()));
            }
            assert_eq!(told, expected, "{what}");
        }
    }

    #[test]
    fn an_order_names_its_certificate() {
        let mut order = order([]);
        order.name = "my-web-12-3905810924".into();
        assert_eq!(order.certificate_name(), "my-web");
    }
}
