//! Durations as cert-manager's manifests write them: `720h`, `1h30m`, `30s`. Go's form is what is written; longer
//! units (`30d`) and other spellings are read as well.

use std::fmt::Write as _;

use serde::{Deserialize, Deserializer};
use time::Duration;

/// Units of Go's durations, with their nanoseconds, in the order in which they are written.
const UNITS: [(&str, i128); 7] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("µs", 1_000),
    ("ns", 1),
];

/// Reads a duration; says what is wrong with it otherwise.
pub fn parse(text: &str) -> Result<Duration, String> {
    let longer = || {
        let read = humantime::parse_duration(text).ok()?;
        Duration::try_from(read).ok()
    };
    of_go(text)
        .or_else(longer)
        .ok_or_else(|| format!("`{text}` is not a duration; write it as `720h`, `30m` or `1h30m`"))
}

/// A duration that is not negative, by the rules of Go's `time.ParseDuration`: fractions are allowed, blanks are not.
fn of_go(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut total) = (text, 0_i128);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at(end);
        let (_, nanoseconds) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || whole.len() > 15 || fraction.len() > 15 {
            return None;
        }
        let digits = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<i128>().ok() };
        let scale = 10_i128.pow(u32::try_from(fraction.len()).ok()?);
        total += digits(whole)? * nanoseconds + digits(fraction)? * nanoseconds / scale;
        rest = next;
    }
    let seconds = i64::try_from(total / 1_000_000_000).ok()?;
    let below = i32::try_from(total % 1_000_000_000).ok()?;
    (!text.is_empty()).then(|| Duration::new(seconds, below))
}

/// The one spelling of a duration, which Go reads too: `720h`, `1h30m`.
pub fn canonical(duration: Duration) -> String {
    let mut left = duration.whole_nanoseconds().max(0);
    let mut text = String::new();
    for (unit, nanoseconds) in UNITS {
        let count = left / nanoseconds;
        if count > 0 {
            // Writing into a string does not fail.
            write!(text, "{count}{unit}").ok();
            left -= count * nanoseconds;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// The canonical spelling of a text; one that is no duration stays as it is, to be refused.
pub fn respelled(text: String) -> String {
    parse(&text).map_or(text, canonical)
}

/// Reads a duration into its canonical spelling. An empty text is none.
pub fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let given = Option::<String>::deserialize(deserializer)?;
    Ok(given.filter(|text| !text.is_empty()).map(respelled))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_understood_as_go_does() {
        assert_eq!(parse("720h").unwrap(), Duration::hours(720));
        assert_eq!(parse("1h30m").unwrap(), Duration::minutes(90));
        assert_eq!(parse("1.5h").unwrap(), Duration::minutes(90));
        assert_eq!(parse("48h0m0s").unwrap(), Duration::hours(48));
        assert_eq!(parse("0s").unwrap(), Duration::ZERO);
        assert_eq!(parse("0").unwrap(), Duration::ZERO);
        assert_eq!(parse(".5s").unwrap(), Duration::milliseconds(500));
        assert_eq!(parse("30d").unwrap(), Duration::days(30));
        assert_eq!(parse("1day 2h").unwrap(), Duration::hours(26));
        for wrong in ["", "-5m", "5", "h", ".h", "1.2.3h", "9999999999999999h", "1h-2m", "1 h 2"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert!(parse("soon").unwrap_err().contains("soon"));
    }

    #[test]
    fn the_same_duration_has_one_spelling() {
        for (spellings, canonical) in [
            (&["720h", "720h0m0s", "43200m", "30d", "2592000s"][..], "720h"),
            (&["1h30m", "90m", "1.5h", "5400s"], "1h30m"),
            (&["0s", "0", "0h0m"], "0s"),
            (&["1500ms", "1.5s"], "1s500ms"),
        ] {
            for spelling in spellings {
                assert_eq!(respelled((*spelling).to_owned()), canonical, "{spelling}");
            }
        }
        assert_eq!(respelled("soon".to_owned()), "soon");
    }
}
