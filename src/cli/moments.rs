//! Spans of time and moments, as people type them.

use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::exit::Complaint;
use crate::domain::duration;

/// `5m`, `1h30m`, or a number of seconds.
pub(super) fn span(text: &str) -> Result<Duration, Complaint> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    let read = duration::parse(text).map_err(Complaint::Usage)?;
    Duration::try_from(read).map_err(|_| Complaint::Usage(format!("`{text}` is no time to wait")))
}

/// A moment, or how long ago it was: `2026-11-24T12:00:00Z`, `10m`. Returned as RFC 3339.
pub(super) fn since(text: &str, now: OffsetDateTime) -> Result<String, Complaint> {
    if OffsetDateTime::parse(text, &Rfc3339).is_ok() {
        return Ok(text.to_owned());
    }
    let ago = duration::parse(text).ok().and_then(|ago| now.checked_sub(ago));
    ago.map(shown).ok_or_else(|| {
        Complaint::Usage(format!(
            "`{text}` is no moment; write it as `10m`, `2h` or `2026-11-24T12:00:00Z`"
        ))
    })
}

/// A moment in whole seconds.
pub(super) fn shown(at: OffsetDateTime) -> String {
    at.truncate_to_second().format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_moments_are_read_as_typed() {
        let now = OffsetDateTime::from_unix_timestamp(1_000_000).unwrap();
        assert_eq!(span("20").unwrap(), Duration::from_secs(20));
        assert_eq!(span("1h30m").unwrap(), Duration::from_mins(90));
        assert!(span("soon").is_err() && span("-1").is_err());
        assert_eq!(since("10m", now).unwrap(), "1970-01-12T13:36:40Z");
        assert_eq!(since("2026-11-24T12:00:00Z", now).unwrap(), "2026-11-24T12:00:00Z");
        assert!(since("yesterday", now).is_err());
    }
}
