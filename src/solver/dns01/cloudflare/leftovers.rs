//! What this installation has written, wherever it stands: so that what a crash, a restored backup
//! or a lost database left behind can be taken away.

use super::records::{self, Txt};
use super::{Cloudflare, concerning};
use crate::domain::challenge::Record;
use crate::domain::failure::Failure;
use crate::domain::id::ChallengeId;

/// A TXT record whose comment says that this installation wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ours {
    /// Where it stands.
    pub record: Record,
    /// What it was written for.
    pub challenge: ChallengeId,
}

impl Cloudflare {
    /// The zones that this token may have written to. A token that sees more zones than can be
    /// listed is looked at only with a `zoneID`.
    pub async fn zones(&self) -> Result<Vec<String>, Failure> {
        match &self.zone_id {
            Some(id) => Ok(vec![id.clone()]),
            None => Ok(self.zones.all().await?.unwrap_or_default()),
        }
    }

    /// What this installation has in a zone; not asked for while calls are scarce, as certificates need them.
    /// Whatever has no comment, or another's, is not ours.
    pub async fn ours(&self, zone: &str) -> Result<Vec<Ours>, Failure> {
        let mark = self.mark();
        self.api
            .spare_calls()
            .map_err(|error| error.into_failure(concerning(zone, "its records")))?;
        let found = records::list(&self.api, zone, ("comment.startswith", &mark)).await;
        let found = found.map_err(|error| error.into_failure(concerning(zone, "its records")))?;
        Ok(found.into_iter().filter_map(|txt| ours(txt, zone, &mark)).collect())
    }
}

/// The comment is read here again: a filter that an API does not know it may pass over.
fn ours(txt: Txt, zone: &str, mark: &str) -> Option<Ours> {
    let challenge = txt.comment.as_deref()?.strip_prefix(mark)?.parse().ok()?;
    let value = txt.content.trim_matches('"').to_owned();
    let record = Record { name: txt.name, value, zone: zone.to_owned(), id: txt.id };
    Some(Ours { record, challenge: ChallengeId(challenge) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: &str = "certwright abc ";

    #[test]
    fn only_a_comment_of_this_installation_and_nothing_beside_it_makes_a_record_ours() {
        let id = uuid::Uuid::from_u128(7);
        for (comment, is_ours) in [
            (Some(format!("{MARK}{id}")), true),
            (Some(format!("{MARK}{id} by hand")), false),
            (Some(format!("certwright abcd {id}")), false),
            (Some(format!("certwright other {id}")), false),
            (Some(MARK.to_owned()), false),
            (Some(String::new()), false),
            (None, false),
        ] {
            let txt = serde_json::json!({
                "id": "1", "name": "_acme-challenge.example.com", "content": "\"v\"", "comment": comment,
            });
            let txt = Txt::read(txt.as_object().unwrap()).unwrap();
            let found = ours(txt, "z", MARK);
            assert_eq!(found.map(|ours| ours.challenge.0), is_ours.then_some(id), "{comment:?}");
        }
    }
}
