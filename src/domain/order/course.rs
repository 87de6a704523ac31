//! How far an order ever was, and what it has asked of its CA: bounds the load, whatever the CA answers.
//!
//! An order for n names sends at most 10 + 10 n requests in the minute that begins with its first one,
//! and at most 10 + n in any later minute. Requests are counted in slots of twenty seconds: a minute
//! touches four of them at most.

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use super::Stage;

/// The history of an order that its next steps depend on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Course {
    /// The furthest stage that the CA ever confirmed. Only what goes beyond it is progress.
    pub reached: Option<Stage>,
    /// Polls since the last progress that found nothing new.
    #[serde(rename = "looks")]
    pub polls: u32,
    /// Since when the CA answers 404 to what it has handed out, without another answer in between.
    #[serde(with = "time::serde::timestamp::milliseconds::option")]
    pub denied_since: Option<OffsetDateTime>,
    /// When the authorizations were last read to see what keeps the CA.
    #[serde(with = "time::serde::timestamp::milliseconds::option")]
    pub inspected_at: Option<OffsetDateTime>,
    /// When this order and its predecessors last asked the CA for an order that it may have made; at
    /// most `ORDERS` moments.
    #[serde(with = "moments")]
    pub asked: Vec<OffsetDateTime>,
    /// The requests of the last minutes.
    pub requests: Requests,
    /// A name for which DNSSEC validation failed before the CA was asked.
    pub bogus: Option<String>,
    /// Since when the order does not get on, for whatever reasons.
    #[serde(with = "time::serde::timestamp::milliseconds::option")]
    pub troubled_since: Option<OffsetDateTime>,
    /// The code of the trouble that was told last: telling it again would be no news.
    pub told: Option<String>,
}

/// Orders that one request asks a CA for within [`ORDERS_WITHIN`], at most.
pub(super) const ORDERS: usize = 3;
const ORDERS_WITHIN: Duration = Duration::minutes(10);

impl Course {
    /// The course of a fresh order for the same request.
    #[must_use]
    pub fn for_successor(&self) -> Self {
        Self { asked: self.asked.clone(), ..Self::default() }
    }

    /// The CA was asked for an order, and may have made one.
    pub(super) fn ordered(&mut self, now: OffsetDateTime) {
        self.asked.push(now);
        let too_many = self.asked.len().saturating_sub(ORDERS);
        self.asked.drain(..too_many);
    }

    /// When the CA may be asked for one more order.
    pub fn may_order_at(&self) -> Option<OffsetDateTime> {
        (self.asked.len() == ORDERS).then(|| self.asked[0] + ORDERS_WITHIN)
    }
}

/// Requests by slots of time, since the first of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Requests {
    /// When the first was sent.
    #[serde(with = "time::serde::timestamp::milliseconds::option")]
    since: Option<OffsetDateTime>,
    /// The slot that [`Self::counts`] begins with.
    slot: i64,
    /// Requests in that slot, and in those before it.
    counts: [u32; SLOTS],
}

const SLOT: Duration = Duration::seconds(20);
/// Slots that a minute may touch.
const SLOTS: usize = 4;
/// Slots of the first minute.
const FIRST: i64 = 3;

impl Requests {
    /// How many requests may be sent at `now` for an order of `names` names.
    pub fn allowed(&self, names: usize, now: OffsetDateTime) -> u32 {
        let Some(slot) = self.slot_at(now) else { return limit(names, 0) };
        let sent = (0_i64..).zip(self.counts);
        let counted = sent.filter(|(age, _)| {
            let at = self.slot - age;
            let is_first = at < FIRST;
            at >= 0 && at > slot - 4 && is_first == (slot < FIRST)
        });
        limit(names, slot).saturating_sub(counted.map(|(_, count)| count).sum())
    }

    /// The first moment from `at` on at which `wanted` requests may be sent, or as many as are ever
    /// allowed at once.
    pub fn free_at(&self, names: usize, wanted: u32, at: OffsetDateTime) -> OffsetDateTime {
        let Some((since, slot)) = self.since.zip(self.slot_at(at)) else { return at };
        let starts =
            (slot + 1..).map(|slot| since + SLOT * i32::try_from(slot).unwrap_or(i32::MAX));
        let moments = std::iter::once(at).chain(starts.take(SLOTS));
        let enough = |at: &OffsetDateTime| {
            let slot = self.slot_at(*at).unwrap_or_default();
            self.allowed(names, *at) >= wanted.min(limit(names, slot))
        };
        let mut moments = moments.skip_while(|at| !enough(at));
        moments.next().unwrap_or(at + SLOT * 4)
    }

    /// Counts a request that is sent at `now`.
    pub fn count(&mut self, now: OffsetDateTime) {
        self.sent(1, now);
    }

    /// Counts requests that were sent at `now`.
    pub(super) fn sent(&mut self, count: u32, now: OffsetDateTime) {
        if count == 0 {
            return;
        }
        self.since.get_or_insert(now);
        // A clock that was put back changes nothing about what was sent.
        let slot = self.slot_at(now).unwrap_or_default().max(self.slot);
        while self.slot < slot {
            if slot - self.slot > 4 {
                self.slot = slot - 4;
            }
            self.slot += 1;
            self.counts.rotate_right(1);
            self.counts[0] = 0;
        }
        self.counts[0] = self.counts[0].saturating_add(count);
    }

    fn slot_at(&self, now: OffsetDateTime) -> Option<i64> {
        let since = self.since?;
        let slot = (now - since).whole_milliseconds().max(0) / SLOT.whole_milliseconds();
        Some(i64::try_from(slot).unwrap_or(i64::MAX))
    }
}

/// The requests that an order of so many names may send within a minute.
fn limit(names: usize, slot: i64) -> u32 {
    let names = u32::try_from(names).unwrap_or(u32::MAX);
    let each: u32 = if slot < FIRST { 10 } else { 1 };
    names.saturating_mul(each).saturating_add(10)
}

/// Moments as milliseconds.
mod moments {
    use serde::{Deserialize as _, Deserializer, Serializer};
    use time::OffsetDateTime;

    pub(super) fn serialize<S: Serializer>(
        moments: &[OffsetDateTime],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(moments.iter().map(|at| at.unix_timestamp_nanos() / 1_000_000))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<OffsetDateTime>, D::Error> {
        let read = |millis: i64| {
            OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000)
                .map_err(serde::de::Error::custom)
        };
        Vec::<i64>::deserialize(from)?.into_iter().map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);

    #[test]
    fn the_first_minute_has_room_for_an_issuance_and_later_ones_for_looks() {
        let mut requests = Requests::default();
        assert_eq!(requests.allowed(2, NOW), 30);
        requests.sent(20, NOW);
        requests.sent(9, NOW + Duration::seconds(59));
        assert_eq!(requests.allowed(2, NOW + Duration::seconds(59)), 1);
        assert_eq!(requests.allowed(2, NOW + Duration::seconds(60)), 12);

        requests.sent(12, NOW + Duration::seconds(70));
        assert_eq!(requests.allowed(2, NOW + Duration::seconds(139)), 0);
        assert_eq!(requests.allowed(2, NOW + Duration::seconds(140)), 12);
    }

    #[test]
    fn what_is_not_allowed_yet_is_allowed_at_a_known_time() {
        let mut requests = Requests::default();
        requests.sent(20, NOW);
        assert_eq!(requests.free_at(1, 1, NOW), NOW + Duration::minutes(1));
        let later = NOW + Duration::minutes(5);
        requests.sent(11, later);
        assert_eq!(requests.free_at(1, 2, later), later + Duration::seconds(80));
        assert_eq!(requests.free_at(1, 100, later), later + Duration::seconds(80));
        assert_eq!(requests.free_at(1, 0, later), later);
    }

    #[test]
    fn no_more_than_three_orders_are_asked_for_in_ten_minutes() {
        let mut course = Course::default();
        for second in [0, 5, 15] {
            assert_eq!(course.may_order_at(), None);
            course.ordered(NOW + Duration::seconds(second));
        }
        assert_eq!(course.may_order_at(), Some(NOW + Duration::minutes(10)));
        assert_eq!(course.for_successor().may_order_at(), course.may_order_at());
    }
}
