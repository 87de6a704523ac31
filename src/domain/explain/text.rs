//! An explanation in lines of text, and moments in it.

use std::fmt::Write as _;

use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use super::{Explanation, Sighting};

impl Explanation {
    /// A few lines for a terminal; `name` is the certificate's.
    pub fn to_text(&self, name: &str, now: OffsetDateTime) -> String {
        let mut lines = String::new();
        // Writing to a String cannot fail.
        writeln!(lines, "{name}: {:?}", self.phase).ok();
        writeln!(lines, "  {}", self.summary).ok();
        writeln!(lines, "since:    {} ({} ago)", text(self.since), length(now - self.since)).ok();
        if let Some(why) = &self.why {
            writeln!(lines, "why:      {} [{}]", why.title.trim_end_matches('.'), why.code).ok();
            writeln!(lines, "          {}", why.detail).ok();
            for part in &why.subproblems {
                let who = part.identifier.as_deref().unwrap_or("?");
                writeln!(lines, "          {who}: {}", part.detail).ok();
            }
        }
        for Sighting { dns_name, observation } in &self.observations {
            let mark = if observation.seen { "seen" } else { "not seen" };
            writeln!(lines, "{mark:9} {dns_name}: {observation}").ok();
        }
        if let Some(next) = &self.next {
            let in_time = format!("in {}", length(next.at - now));
            let when = if next.at > now { in_time } else { "now".to_owned() };
            writeln!(lines, "next:     {} ({when}) {}", text(next.at), next.what).ok();
        }
        for action in &self.actions {
            writeln!(lines, "to do:    {action}").ok();
        }
        if let Some(order) = &self.order {
            let until = self.deadline.map(|at| format!(", given up at {}", text(at)));
            writeln!(lines, "order:    {order}{}", until.unwrap_or_default()).ok();
        }
        lines
    }
}

pub(super) fn text(moment: OffsetDateTime) -> String {
    let seconds = moment.replace_nanosecond(0).unwrap_or(moment);
    seconds.format(&Rfc3339).unwrap_or_else(|_| moment.to_string())
}

/// The largest unit or two are enough for a person.
fn length(time: Duration) -> String {
    let seconds = time.whole_seconds().max(0);
    match (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, m, s) => format!("{m} min {s} s"),
        (0, h, m, _) => format!("{h} h {m} min"),
        (d, h, _, _) => format!("{d} d {h} h"),
    }
}
