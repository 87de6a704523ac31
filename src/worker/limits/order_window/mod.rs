//! How many new orders of an account may be under way at once: a congestion window, as TCP has it.
//!
//! It grows by one with each answer (slow start), and by one in each round of answers once the CA has had
//! trouble (congestion avoidance). Trouble closes it to one order, which finds out when the CA takes orders
//! again; then it grows as from the start up to half of the level at which there was trouble, and slowly up
//! to just below it. That level is tried again after a while, and after twice as long each time.

use std::time::Duration;

use time::OffsetDateTime;

/// An answer within this time is quick, wherever the CA is …
const QUICK: Duration = Duration::from_secs(1);
/// … and so is one that takes no longer than so many times the quickest: others do not queue for it.
const QUEUEING: u32 = 3;

/// How long the window stays below a level at which there was trouble: at first, and at most.
const SHORTEST_HOLD: time::Duration = time::Duration::seconds(30);
const LONGEST_HOLD: time::Duration = time::Duration::hours(1);
/// Trouble at the level that comes within so many holds is the same again.
const AGAIN: i32 = 3;

/// After so long without a new order what is known of the CA is old: the window begins as at the start.
const IDLE: time::Duration = time::Duration::seconds(30);

/// The bounds of every account's window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewOrders {
    /// Under way at once before anything is known of the CA.
    pub start: usize,
    /// At most.
    pub ceiling: usize,
}

/// The window of one account.
#[derive(Debug)]
pub(super) struct Window {
    bounds: NewOrders,
    size: usize,
    under_way: usize,
    /// Up to here the window grows with each answer.
    threshold: usize,
    /// Answers since it has grown last.
    answers: usize,
    /// The number of troubles; what was under way when one came belongs to that one.
    troubles: u64,
    level: Option<Level>,
    quickest: Duration,
    last_sent: OffsetDateTime,
}

/// A number of orders at once that was too many for the CA.
#[derive(Debug)]
struct Level {
    orders: usize,
    /// When the CA may be asked again.
    since: OffsetDateTime,
    /// The window stays below the level for so long from then on.
    hold: time::Duration,
}

/// One new order that is under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    /// How many were under way, this one included.
    place: usize,
    troubles: u64,
}

impl Window {
    pub(super) fn new(bounds: NewOrders, now: OffsetDateTime) -> Self {
        let ceiling = bounds.ceiling.max(1);
        let bounds = NewOrders { start: bounds.start.clamp(1, ceiling), ceiling };
        Self {
            bounds,
            size: bounds.start,
            under_way: 0,
            threshold: ceiling,
            answers: 0,
            troubles: 0,
            level: None,
            quickest: Duration::MAX,
            last_sent: now,
        }
    }

    /// How many may be under way.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// One more is under way.
    pub(super) fn sent(&mut self, now: OffsetDateTime) -> Sent {
        if self.under_way == 0 && now - self.last_sent > IDLE {
            self.size = self.size.min(self.bounds.start);
        }
        self.last_sent = now;
        self.under_way += 1;
        Sent { place: self.under_way, troubles: self.troubles }
    }

    /// One is no more under way.
    pub(super) fn ended(&mut self) {
        self.under_way -= 1;
    }

    /// The CA has taken an order within this time.
    pub(super) fn taken(&mut self, sent: Sent, took: Duration, now: OffsetDateTime) {
        self.quickest = self.quickest.min(took);
        let is_quick = took <= QUICK.max(self.quickest.saturating_mul(QUEUEING));
        // An answer says nothing of a level that the order was far below.
        let is_telling = sent.troubles == self.troubles && 2 * sent.place >= self.size;
        if !is_quick || !is_telling || self.size >= self.most(now) {
            return;
        }
        self.answers += 1;
        // In a round half of the answers are telling.
        if self.size < self.threshold || 2 * self.answers >= self.size {
            self.size += 1;
            self.answers = 0;
        }
    }

    /// The CA wants no order before `until`, or has not answered one. What was under way at the same time
    /// counts once, at the lowest level.
    pub(super) fn refused(&mut self, sent: Sent, now: OffsetDateTime, until: OffsetDateTime) {
        // That one was refused alone does not say that it may never be two.
        let orders = sent.place.max(2);
        let level = match self.level.take() {
            Some(level) if sent.troubles < self.troubles => Level {
                orders: level.orders.min(orders),
                since: level.since.max(until),
                hold: level.hold,
            },
            before => {
                self.troubles += 1;
                self.size = 1;
                self.answers = 0;
                let is_again = |level: &Level| {
                    sent.place >= level.orders && now <= level.since + AGAIN * level.hold
                };
                let again = before.filter(is_again);
                let hold = again.map_or(SHORTEST_HOLD, |level| 2 * level.hold);
                Level { orders, since: until, hold: hold.min(LONGEST_HOLD) }
            }
        };
        self.threshold = (level.orders / 2).max(1);
        self.level = Some(level);
    }

    fn most(&self, now: OffsetDateTime) -> usize {
        match &self.level {
            Some(level) if now < level.since + level.hold => {
                (level.orders - 1).min(self.bounds.ceiling)
            }
            _ => self.bounds.ceiling,
        }
    }
}

#[cfg(test)]
mod tests;
