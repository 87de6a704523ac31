//! Durations as cert-manager's manifests write them: `720h`, `1h30m`, `30s`.

use time::Duration;

/// Reads a duration; says what is wrong with it otherwise.
pub fn parse(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .ok_or_else(|| format!("`{text}` is not a duration; write it as `720h`, `30m` or `1h30m`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_style_durations_are_understood() {
        assert_eq!(parse("720h").unwrap(), Duration::hours(720));
        assert_eq!(parse("1h30m").unwrap(), Duration::minutes(90));
        assert_eq!(parse("0s").unwrap(), Duration::ZERO);
        assert!(parse("soon").unwrap_err().contains("soon"));
        assert!(parse("-5m").is_err());
    }
}
