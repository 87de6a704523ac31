//! The records of this installation, by the mark in their comments: so that what a crash, a restored
//! backup or a lost database left behind can be taken away.

use super::api::Api;
use super::error::ApiError;
use super::records::{self, Txt};
use crate::domain::id::ChallengeId;
use crate::solver::Ours;

/// The records of this installation in a zone; not asked for while calls are scarce, as certificates need
/// them. A record without a comment, or with another one, is not ours.
pub(super) async fn list(api: &Api, zone: &str, mark: &str) -> Result<Vec<Ours>, ApiError> {
    api.spare_calls()?;
    let found = records::list(api, zone, ("comment.startswith", mark)).await?;
    Ok(found.into_iter().filter_map(|txt| ours(txt, zone, mark)).collect())
}

/// The comment is read here again: a filter that an API does not know it may pass over.
pub(super) fn ours(txt: Txt, zone: &str, mark: &str) -> Option<Ours> {
    let challenge = txt.comment.as_deref()?.strip_prefix(mark)?.parse().ok()?;
    Some(Ours { record: txt.into_record(zone), challenge: ChallengeId(challenge) })
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
