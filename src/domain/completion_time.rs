//! How long something out there takes, as learned from looks at it, and when to look next.
//!
//! Whoever looks now and then knows only between which two looks something was done. So a histogram of decaying
//! weights is kept, and the next look comes where its cost for the chance of an answer is least: the schedule
//! for inspecting what fails unseen (Barlow, Hunter and Proschan, "Optimum checking procedures", 1963).

use std::sync::LazyLock;

use time::Duration;

/// The first bucket ends after two milliseconds, and twelve make a doubling: the last ends after ten minutes.
const BUCKETS: usize = 219;
const FIRST: f64 = 2.0;
const PER_DOUBLING: f64 = 12.0;

/// The part of an observation's weight that is left when the next one comes: some fifty count.
const DECAY: f64 = 0.98;

/// The share of an observation that is spread evenly between its two looks. The rest goes to where others were
/// done; by that alone the looks themselves would soon be the only times at which anything seems to be done.
const EVEN: f64 = 0.4;

/// What is lost counts by its share of the time, to which so many milliseconds are added: nobody minds a few.
const SLACK: f64 = 500.0;

/// The share of the time that a look is worth; and, divided by the weight of what is known, as much more: whoever
/// knows little asks little.
const PRICE: f64 = 0.006;
const PRICE_OF_IGNORANCE: f64 = 0.08;

/// A look soon after the beginning is cheap, since a CA next door that is missed by a little is waited for as long
/// again: at once it has this share of the price, and half of the rest is added after so many milliseconds.
const SHARE_AT_ONCE: f64 = 0.4;
const SOON: f64 = 30.0;

/// What the prior weighs in the end, beside fifty observations.
const DOUBT: f64 = 0.2;

/// The ends of the buckets, in milliseconds.
static ENDS: LazyLock<[f64; BUCKETS]> = LazyLock::new(|| {
    let mut place = 0.0;
    std::array::from_fn(|_| {
        let end = FIRST * f64::exp2(place / PER_DOUBLING);
        place += 1.0;
        end
    })
});

/// The weight of each bucket by itself, that of one observation in all. What is not known yet may be next door;
/// public CAs take from a third of a second to ten.
static PRIOR: LazyLock<[f64; BUCKETS]> = LazyLock::new(|| {
    let weights = ENDS.map(|end| match end {
        ..30.0 => 4.0,
        30.0..300.0 => 1.0,
        300.0..10_000.0 => 7.0,
        _ => 0.5,
    });
    let total: f64 = weights.iter().sum();
    weights.map(|weight| weight / total)
});

/// The times after which something was done, of which the latest count most.
#[derive(Debug, Clone)]
pub struct CompletionTimes {
    weights: [f64; BUCKETS],
}

impl Default for CompletionTimes {
    fn default() -> Self {
        Self { weights: *PRIOR }
    }
}

impl CompletionTimes {
    /// What is known, as a beginning for something like it: no more than ten observations.
    #[must_use]
    pub fn as_hint(&self) -> Self {
        let known: f64 = self.weights.iter().sum();
        let scale = (10.0 / known).min(1.0);
        Self { weights: self.weights.map(|weight| weight * scale) }
    }

    /// Something was not done after `not_yet` (zero where nobody had looked), and was after `done`.
    pub fn record(&mut self, not_yet: Duration, done: Duration) {
        let first = first_after(not_yet);
        let last = nearest(done).max(first);
        let span = ENDS[last] - begin(first);
        let total: f64 = self.weights[first..=last].iter().sum();
        let buckets = (0..).zip(self.weights.iter_mut().zip(PRIOR.iter()));
        for (bucket, (weight, prior)) in buckets {
            let share = if (first..=last).contains(&bucket) {
                let even = (ENDS[bucket] - begin(bucket)) / span;
                EVEN * even + (1.0 - EVEN) * *weight / total
            } else {
                0.0
            };
            *weight = DECAY * *weight + (1.0 - DECAY) * DOUBT * prior + share;
        }
    }

    /// When to look at what was not done after `waited`, counted from its beginning.
    pub fn next_look(&self, waited: Duration) -> Duration {
        let first = first_after(waited);
        let known: f64 = self.weights.iter().sum();
        let left: f64 = self.weights[first..].iter().sum();
        let price = PRICE + PRICE_OF_IGNORANCE / known;
        // What is done until the end of a bucket has its chance, and waits for the look there.
        let (mut chance, mut per_time, mut begun) = (0.0, 0.0, 0.0);
        let mut best = (f64::INFINITY, first);
        for (bucket, weight) in (0..).zip(&self.weights).skip(first) {
            let (end, share) = (ENDS[bucket], weight / left);
            let done = f64::midpoint(begin(bucket), end);
            chance += share;
            per_time += share / (done + SLACK);
            begun += share * done / (done + SLACK);
            let price = price * (SHARE_AT_ONCE * SOON + end) / (SOON + end);
            let cost = (price + per_time * end - begun) / chance;
            if cost < best.0 {
                best = (cost, bucket);
            }
        }
        Duration::seconds_f64(ENDS[best.1] / 1_000.0)
    }
}

/// In milliseconds.
fn begin(bucket: usize) -> f64 {
    bucket.checked_sub(1).map_or(0.0, |before| ENDS[before])
}

/// The bucket at whose end somebody looked: looks come a little later than they are meant to.
fn nearest(look: Duration) -> usize {
    let half_a_bucket = f64::exp2(0.5 / PER_DOUBLING);
    let milliseconds = look.as_seconds_f64() * 1_000.0;
    ENDS.partition_point(|end| end * half_a_bucket < milliseconds).min(BUCKETS - 1)
}

/// The first bucket that is not over at a look.
fn first_after(look: Duration) -> usize {
    if look.is_zero() { 0 } else { (nearest(look) + 1).min(BUCKETS - 1) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::backoff;

    /// Numbers in [0, 1) from a seed.
    struct Chance(u64);

    impl Chance {
        fn next(&mut self) -> f64 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            f64::from(u32::try_from(self.0 >> 32).unwrap()) / f64::from(u32::MAX)
        }

        fn between(&mut self, least: f64, most: f64) -> f64 {
            least + (most - least) * self.next()
        }
    }

    /// Looks at what is done after so many milliseconds; the looks, and what was lost of the time.
    fn watch(times: &mut CompletionTimes, milliseconds: f64) -> (u32, f64) {
        let (done, mut looks) = (milliseconds / 1_000.0, 0);
        let (mut not_yet, mut waited) = (Duration::ZERO, Duration::ZERO);
        loop {
            let likely = times.next_look(waited);
            waited += backoff::likely(looks, waited, likely);
            if waited.as_seconds_f64() >= done {
                times.record(not_yet, waited);
                return (looks + 1, waited.as_seconds_f64() / done - 1.0);
            }
            (not_yet, looks) = (waited, looks + 1);
        }
    }

    fn average(of: impl ExactSizeIterator<Item = f64>) -> f64 {
        let count = f64::from(u32::try_from(of.len()).unwrap());
        of.sum::<f64>() / count
    }

    /// The median loss, and looks for each, once it is known.
    fn learned(draw: impl Fn(&mut Chance) -> f64) -> (f64, f64) {
        let (mut times, mut chance) = (CompletionTimes::default(), Chance(1));
        let seen: Vec<_> = (0..5_100).map(|_| watch(&mut times, draw(&mut chance))).collect();
        let seen = &seen[100..];
        let mut losses: Vec<_> = seen.iter().map(|(_, loss)| *loss).collect();
        losses.sort_by(f64::total_cmp);
        (losses[2_500], average(seen.iter().map(|(looks, _)| f64::from(*looks))))
    }

    #[test]
    fn at_the_median_less_than_a_tenth_is_lost_with_few_looks() {
        type Draw = fn(&mut Chance) -> f64;
        let cas: [(&str, f64, Draw); 6] = [
            ("0.5 to 2 s", 4.3, |chance| chance.between(500.0, 2_000.0)),
            ("3 to 10 s", 4.5, |chance| chance.between(3_000.0, 10_000.0)),
            ("always a second", 3.0, |_| 1_000.0),
            ("always 8 ms", 1.1, |_| 8.0),
            ("at once, or four seconds", 3.0, |chance| {
                if chance.next() < 0.5 { 60.0 } else { chance.between(3_800.0, 4_200.0) }
            }),
            ("the slowest of 25 names", 3.5, |chance| {
                (0..25).map(|_| chance.between(500.0, 2_000.0)).fold(0.0, f64::max)
            }),
        ];
        for (ca, most_looks, draw) in cas {
            let (loss, looks) = learned(draw);
            assert!(loss < 0.1, "{ca}: {loss:.3} lost");
            assert!(looks < most_looks, "{ca}: {looks:.2} looks");
        }
    }

    #[test]
    fn next_door_a_look_in_three_at_most_comes_too_early() {
        let (_, looks) = learned(|chance| chance.between(4.0, 12.0));
        assert!(looks < 1.36, "{looks:.2}");
    }

    #[test]
    fn a_ca_next_door_that_was_busy_is_asked_as_soon_as_it_answers_within_a_dozen_orders() {
        let (mut times, mut chance) = (CompletionTimes::default(), Chance(3));
        for _ in 0..150 {
            watch(&mut times, chance.between(10.0, 50.0));
        }
        for _ in 0..12 {
            watch(&mut times, 6.0);
        }
        let look = times.next_look(Duration::ZERO).as_seconds_f64() * 1_000.0;
        assert!((6.0..14.0).contains(&look), "{look:.0} ms");
    }

    #[test]
    fn what_is_not_known_is_learned_within_five_orders() {
        // A client that looks after 25 ms, and then after 1.5 times as long each time, needs 1, 8 and 12 or 13.
        for (ms, at_first, then) in [(8.0, 1, 1), (1_000.0, 3, 3), (8_000.0, 8, 4)] {
            let mut times = CompletionTimes::default();
            let seen: Vec<_> = (0..6).map(|_| watch(&mut times, ms)).collect();
            let [(first, _), .., (sixth, loss)] = seen[..] else { unreachable!() };
            assert!(first <= at_first && sixth <= then, "{ms} ms: {seen:?}");
            // Next door that is 25 ms.
            assert!(loss < if ms < 100.0 { 3.0 } else { 0.3 }, "{ms} ms: {loss:.3} lost");
        }
    }

    #[test]
    fn a_ca_that_changes_its_ways_is_followed() {
        for (before, after) in
            [(8.0, 2_000.0), (2_000.0, 8.0), (1_000.0, 5_000.0), (5_000.0, 1_000.0)]
        {
            let mut times = CompletionTimes::default();
            let mut looks =
                |ms, count| -> Vec<_> { (0..count).map(|_| watch(&mut times, ms)).collect() };
            looks(before, 200);
            let (at_first, later) = (looks(after, 50), looks(after, 50));
            let mean = |of: &[(u32, f64)]| average(of.iter().map(|(looks, _)| f64::from(*looks)));
            assert!(mean(&at_first) < 6.0, "{before}, {after}: {:.2} looks", mean(&at_first));
            assert!(mean(&later) < 4.5, "{before}, {after}: {:.2} looks", mean(&later));
            let loss = average(later.iter().map(|(_, loss)| *loss));
            // Next door that is a few milliseconds.
            assert!(
                loss < if after < 100.0 { 1.0 } else { 0.1 },
                "{before}, {after}: {loss:.3} lost"
            );
        }
    }

    #[test]
    fn whatever_was_learned_the_next_look_is_ahead() {
        let (mut times, mut chance) = (CompletionTimes::default(), Chance(7));
        for _ in 0..500 {
            let after = Duration::seconds_f64(chance.between(0.0, 1_000.0));
            let done = after + Duration::seconds_f64(chance.between(0.0, 1_000.0));
            times.record(after, done);
            for waited in [0.0, 0.003, 0.5, 30.0, 500.0] {
                let waited = Duration::seconds_f64(waited);
                assert!(times.next_look(waited) > waited, "{waited}");
            }
        }
    }
}
