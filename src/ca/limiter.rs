//! The limiter of requests that a CA refuses or does not answer: a token bucket for each account.
//!
//! A request takes a token before it is sent and gives it back when the answer is good, so that a CA that
//! is well is never waited for, and one that refuses everything sees no more than was set, however many
//! orders there are. What finds no token is told when its turn comes, and waits in the database.

use std::sync::Arc;

use parking_lot::Mutex;
use time::{Duration, OffsetDateTime};
use tokio::sync::Notify;

use crate::domain::limits::Refusals;

/// A process begins with this part of its tokens, and earns the others by good answers: one that is
/// started over and over is no way around the limit.
const AT_FIRST: f64 = 1.0 / 8.0;

/// Requests that are under way may give their tokens back; for so long they are waited for.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);

/// Longest wait that a caller is told; without a token it is then told another.
const LONGEST_WAIT: Duration = Duration::minutes(5);

/// The tokens of one account.
pub struct Limiter {
    tokens: Mutex<Tokens>,
    returned: Notify,
}

struct Tokens {
    refusals: Refusals,
    left: f64,
    /// The capacity by now: it grows with good answers up to `refusals.at_once`.
    most: f64,
    counted_at: OffsetDateTime,
    under_way: u32,
    /// The turn of whoever was told to wait last.
    promised: OffsetDateTime,
}

/// Leave to send one request. Spent when it is dropped, unless it is given back.
pub(super) struct Token {
    limiter: Arc<Limiter>,
    came: Came,
}

/// The outcome of the request that a token was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Came {
    /// It was refused, or not answered: the token is spent.
    ToNothing,
    /// It is not held against anybody, and earns nothing.
    Excused,
    Good,
}

impl Limiter {
    /// A full bucket, at the size that a new process has.
    pub fn new(refusals: Refusals, now: OffsetDateTime) -> Self {
        let most = (f64::from(refusals.at_once) * AT_FIRST).max(1.0).ceil();
        let tokens =
            Tokens { refusals, left: most, most, counted_at: now, under_way: 0, promised: now };
        Self { tokens: Mutex::new(tokens), returned: Notify::new() }
    }

    /// Takes over the limits that the issuer has now.
    pub fn set(&self, refusals: Refusals) {
        self.tokens.lock().set(refusals);
    }

    /// A token, or when to come back for one.
    pub(super) async fn take(
        self: &Arc<Self>,
        now: OffsetDateTime,
    ) -> Result<Token, OffsetDateTime> {
        let waits = async {
            loop {
                let returned = self.returned.notified();
                {
                    let mut tokens = self.tokens.lock();
                    tokens.earn(now);
                    if tokens.take() {
                        return true;
                    }
                    if tokens.under_way == 0 {
                        return false;
                    }
                }
                returned.await;
            }
        };
        if tokio::time::timeout(PATIENCE, waits).await.unwrap_or(false) {
            return Ok(Token { limiter: Arc::clone(self), came: Came::ToNothing });
        }
        Err(self.tokens.lock().promise(now))
    }
}

impl Tokens {
    fn set(&mut self, refusals: Refusals) {
        if self.refusals != refusals {
            self.refusals = refusals;
            self.most = self.most.min(f64::from(refusals.at_once));
            self.left = self.left.min(self.most);
        }
    }

    fn earn(&mut self, now: OffsetDateTime) {
        let passed = (now - self.counted_at).max(Duration::ZERO).as_seconds_f64();
        let free = self.most - f64::from(self.under_way);
        self.left = (self.left + passed * self.refusals.per_second).min(free);
        self.counted_at = self.counted_at.max(now);
    }

    fn take(&mut self) -> bool {
        let is_there = self.left >= 1.0;
        if is_there {
            self.left -= 1.0;
            self.under_way += 1;
        }
        is_there
    }

    fn promise(&mut self, now: OffsetDateTime) -> OffsetDateTime {
        let each = Duration::seconds_f64(1.0 / self.refusals.per_second.max(0.001));
        self.promised = self.promised.clamp(now, now + LONGEST_WAIT) + each;
        self.promised
    }

    fn came_back(&mut self, came: Came) {
        self.under_way = self.under_way.saturating_sub(1);
        let more = match came {
            Came::ToNothing => return,
            Came::Excused => 0.0,
            Came::Good => (f64::from(self.refusals.at_once) - self.most).clamp(0.0, 1.0),
        };
        self.most += more;
        self.left = (self.left + 1.0 + more).min(self.most - f64::from(self.under_way));
    }
}

impl Token {
    /// The answer was good: the request has cost nothing.
    pub(super) fn give_back(mut self) {
        self.came = Came::Good;
    }

    /// It was not sent, or refused for a reason that the next request has mended.
    pub(super) fn excuse(mut self) {
        self.came = Came::Excused;
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.limiter.tokens.lock().came_back(self.came);
        self.limiter.returned.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);
    const REFUSALS: Refusals = Refusals { at_once: 80, per_second: 4.0 };

    #[tokio::test]
    async fn a_ca_that_refuses_everything_sees_what_was_set_and_no_more() {
        let limiter = Arc::new(Limiter::new(REFUSALS, NOW));
        let mut sent = 0;
        for second in 0..600 {
            while limiter.take(NOW + Duration::seconds(second)).await.is_ok() {
                sent += 1;
            }
        }
        assert_eq!(
            sent,
            10 + 599 * 4,
            "a new process has an eighth, and then one is earned at a time"
        );
    }

    #[tokio::test]
    async fn a_ca_that_is_well_is_never_waited_for() {
        let limiter = Arc::new(Limiter::new(REFUSALS, NOW));
        for _ in 0..100_000 {
            limiter.take(NOW).await.unwrap().give_back();
        }
        let mut at_once = Vec::new();
        while at_once.len() < 80 {
            at_once.push(limiter.take(NOW).await.unwrap());
        }
        drop(at_once);
        assert!(limiter.take(NOW).await.is_err(), "all of them were refused");
    }

    #[tokio::test]
    async fn who_has_to_wait_is_told_a_turn_of_its_own() {
        let limiter = Arc::new(Limiter::new(REFUSALS, NOW));
        while limiter.take(NOW).await.is_ok() {}

        let turns = [limiter.take(NOW).await.err(), limiter.take(NOW).await.err()];

        assert_eq!(
            turns,
            [500, 750].map(|after| Some(NOW + Duration::milliseconds(after))),
            "the first turn was told to whoever found out"
        );
    }
}
