//! `certwright throttles`: who is asked to wait by a CA, and lifting it.

use clap::Subcommand;
use serde_json::Value;

use super::exit::Complaint;
use super::output::{duration, moment, now, print, table, text};
use super::remote::Session;

#[derive(Debug, Subcommand)]
pub(super) enum Throttles {
    /// List who is asked to wait, by whom and until when
    List,
    /// Lift a throttle: orders that wait for it are sent at once, and the CA may refuse them again
    #[command(after_help = "Examples:
  certwright throttles lift 019ab000-0000-7000-8000-000000000000
  certwright throttles lift --all")]
    Lift {
        /// Its identifier, or the end of it
        #[arg(required_unless_present = "all")]
        id: Option<String>,
        /// Every one that there is
        #[arg(long, conflicts_with = "id")]
        all: bool,
    },
}

impl Throttles {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let client = &session.client;
        let throttles = client.list("/throttles", &[]).await?;
        match &self {
            Self::List => {
                let now = now();
                let rows: Vec<_> = throttles.iter().map(|one| row(one, now)).collect();
                print(&table(&["ID", "LIMIT", "COUNTED BY", "ENDS IN", "REASON"], &rows))
            }
            Self::Lift { id, .. } => {
                for one in &meant(&throttles, id.as_deref())? {
                    let path = format!("/throttles/{}", text(one, "/id"));
                    client.delete(&path).await?;
                    print(&format!("throttle of {} lifted\n", limit(one)))?;
                }
                Ok(())
            }
        }
    }
}

fn meant<'a>(throttles: &'a [Value], id: Option<&str>) -> Result<Vec<&'a Value>, Complaint> {
    let Some(id) = id else { return Ok(throttles.iter().collect()) };
    let found: Vec<_> = throttles.iter().filter(|one| text(one, "/id").ends_with(id)).collect();
    match found.len() {
        1 => Ok(found),
        0 => Err(Complaint::NotFound(format!(
            "there is no throttle `{id}`; `certwright throttles list` shows those that there are"
        ))),
        _ => Err(Complaint::Usage(format!("several throttles end in `{id}`; say more of it"))),
    }
}

fn row(throttle: &Value, now: time::OffsetDateTime) -> Vec<String> {
    vec![
        text(throttle, "/id"),
        limit(throttle),
        text(throttle, "/countedBy"),
        moment(throttle, "/until").map_or_else(String::new, |until| duration(until - now)),
        text(throttle, "/lastError/detail"),
    ]
}

/// `registered domain example.com`, `account`.
fn limit(throttle: &Value) -> String {
    let words = match text(throttle, "/limit/kind").as_str() {
        "endpoint" => "every request",
        "account" => "new orders of the account",
        "registeredDomain" => "registered domain",
        "exactSet" => "exact set of names",
        "name" => "name",
        _ => "unknown",
    };
    match text(throttle, "/limit/of").as_str() {
        "" => words.to_owned(),
        name => format!("{words} {name}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::macros::datetime;

    use super::*;

    fn throttle(id: &str) -> Value {
        json!({"id": id, "countedBy": "ca.example:443", "until": "2026-11-27T14:00:00Z",
            "limit": {"kind": "registeredDomain", "of": "example.com"}, "lastError": {"detail": "too many"}})
    }

    #[test]
    fn a_row_says_who_waits_for_whom_and_for_how_long() {
        let row = row(&throttle("1-a"), datetime!(2026-11-27 12:00 UTC));
        assert_eq!(
            row,
            ["1-a", "registered domain example.com", "ca.example:443", "120m", "too many"]
        );
    }

    #[test]
    fn the_end_of_an_identifier_is_enough_if_it_is_the_only_one() {
        let throttles = [throttle("1-a"), throttle("2-a"), throttle("3-b")];
        assert_eq!(meant(&throttles, Some("b")).unwrap(), [&throttles[2]]);
        assert!(matches!(meant(&throttles, Some("a")), Err(Complaint::Usage(_))));
        assert!(matches!(meant(&throttles, Some("c")), Err(Complaint::NotFound(_))));
        assert_eq!(meant(&throttles, None).unwrap().len(), 3);
    }
}
