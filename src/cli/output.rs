//! Output: kubectl's tables and ages, JSON, YAML, and colour.

use std::io::{IsTerminal as _, Write as _};

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use crate::clock::{Clock as _, SystemClock};
use crate::yaml;

/// Prints to standard output; a reader that closes the pipe, such as `head`, is no error.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Prints to standard error.
pub(super) fn note(text: &str) {
    // A closed standard error is ignored.
    writeln!(std::io::stderr(), "{text}").ok();
}

/// Columns as kubectl prints them: as wide as they need to be, three spaces between.
pub(super) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|word| word.chars().count()).collect();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &[String]| {
        let padded: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", padded.join("   ").trim_end())
    };
    let header: Vec<String> = header.iter().map(|word| (*word).to_owned()).collect();
    let mut text = if header.is_empty() { String::new() } else { line(&header) };
    text.extend(rows.iter().map(|row| line(row)));
    text
}

/// JSON for machines.
pub(super) fn json(value: &Value) -> String {
    format!("{value:#}\n")
}

/// YAML for people.
pub(super) fn yaml(value: &Value) -> String {
    let text = yaml::write(value);
    if text.ends_with('\n') { text } else { format!("{text}\n") }
}

/// The text at a JSON pointer; empty where there is none.
pub(super) fn text(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}

/// A field of the condition of this type: `status`, `reason` or `message`.
pub(super) fn condition(value: &Value, kind: &str, field: &str) -> String {
    let conditions = value.pointer("/status/conditions").or_else(|| value.get("conditions"));
    conditions
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .find(|one| one.get("type").and_then(Value::as_str) == Some(kind))
        .map(|one| text(one, &format!("/{field}")))
        .unwrap_or_default()
}

/// Now.
pub(super) fn now() -> OffsetDateTime {
    SystemClock.now()
}

/// The time at a JSON pointer.
pub(super) fn moment(value: &Value, pointer: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(value.pointer(pointer)?.as_str()?, &Rfc3339).ok()
}

/// The age of a resource, as kubectl writes it. A resource without a time has one in its identifier.
pub(super) fn age(value: &Value, now: OffsetDateTime) -> String {
    let made = moment(value, "/createdAt").or_else(|| {
        let id: Uuid = value.get("id")?.as_str()?.parse().ok()?;
        let (seconds, _) = id.get_timestamp()?.to_unix();
        OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).ok()?).ok()
    });
    made.map_or_else(|| "<unknown>".to_owned(), |made| duration(now - made))
}

/// A duration as kubectl writes it: two units at most, and one where that is exact enough.
pub(super) fn duration(duration: time::Duration) -> String {
    let seconds = duration.whole_seconds().max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |big: i64, unit: &str, small: i64, other: &str| match small {
        0 => format!("{big}{unit}"),
        small => format!("{big}{unit}{small}{other}"),
    };
    match seconds {
        ..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        _ => format!("{days}d"),
    }
}

/// True if standard output may be coloured.
pub(super) fn is_colourful() -> bool {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !plain && std::io::stdout().is_terminal()
}

/// A colour of the terminal.
#[derive(Debug, Clone, Copy)]
pub(super) enum Colour {
    Red = 31,
    Green = 32,
    Yellow = 33,
}

/// The text in this colour, if colours are wanted.
pub(super) fn paint(colour: Colour, text: &str) -> String {
    if is_colourful() {
        format!("\u{1b}[{}m{text}\u{1b}[0m", colour as u8)
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_need_to_be() {
        let rows =
            [vec!["www".to_owned(), "True".to_owned()], vec!["a-long-name".into(), String::new()]];

        let text = table(&["NAME", "READY"], &rows);
        assert_eq!(text, "NAME          READY\nwww           True\na-long-name\n");
        assert_eq!(table(&[], &rows), "www           True\na-long-name\n");
    }

    #[test]
    fn ages_are_kubectls() {
        for (seconds, shown) in [
            (-5, "0s"),
            (119, "119s"),
            (125, "2m5s"),
            (180, "3m"),
            (3_599, "59m"),
            (11_000, "3h3m"),
            (30_000, "8h"),
            (180_000, "2d2h"),
            (864_000, "10d"),
        ] {
            assert_eq!(duration(time::Duration::seconds(seconds)), shown);
        }
    }
}
