//! A rate limit for a line of the log that is about a trouble that repeats itself, such as a database that is away:
//! with every request and every step it would be written again.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Between the first line and the second; the pause doubles with each line.
const SHORTEST: Duration = Duration::from_mins(1);
const LONGEST: Duration = Duration::from_hours(1);

/// The limit of one line, for the whole process.
pub struct LogLimit(Mutex<Option<Written>>);

struct Written {
    at: Instant,
    pause: Duration,
    /// Lines that were not written since.
    left_out: u64,
}

impl LogLimit {
    /// The first line may be written.
    pub const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Takes note of a line: `Some` if it may be written, with the number of those that were left out since the last one.
    pub fn pass(&self) -> Option<u64> {
        let mut written = self.0.lock();
        let now = Instant::now();
        let (pause, left_out) = match &mut *written {
            None => (SHORTEST, 0),
            Some(last) if now - last.at < last.pause => {
                last.left_out += 1;
                return None;
            }
            // It had been quiet: this is another trouble.
            Some(last) if now - last.at >= 2 * last.pause => (SHORTEST, last.left_out),
            Some(last) => ((2 * last.pause).min(LONGEST), last.left_out),
        };
        *written = Some(Written { at: now, pause, left_out: 0 });
        Some(left_out)
    }
}

impl Default for LogLimit {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_trouble_that_goes_on_is_logged_ever_more_seldom_and_a_new_one_at_once() {
        let limit = LogLimit::new();
        let mut written = Vec::new();
        for second in 0..8 * 60 * 60 {
            if let Some(left_out) = limit.pass() {
                written.push((second, left_out));
            }
            advance(Duration::from_secs(1)).await;
        }
        let minutes: Vec<_> = written.iter().map(|(second, _)| second / 60).collect();
        assert_eq!(minutes, [0, 1, 3, 7, 15, 31, 63, 123, 183, 243, 303, 363, 423]);
        assert_eq!(written[2], (180, 119), "with the number of those between");

        advance(3 * LONGEST).await;
        assert!(limit.pass().is_some());
        advance(SHORTEST).await;
        assert_eq!(limit.pass(), Some(0), "it begins anew");
    }
}
