//! The calls that change the records of a zone.

use std::sync::Arc;

use async_trait::async_trait;
use serde::Serialize;
use time::OffsetDateTime;

use super::answer::{id, written};
use super::api::Api;
use super::error::ApiError;
use super::records;
use crate::domain::challenge::Record;
use crate::solver::dns01::gather::{NewRecord, Records, Refusal};

/// The records of the zones that a token can edit.
pub(super) struct Changes {
    pub(super) api: Arc<Api>,
    /// How the comments of this installation's records begin.
    pub(super) mark: String,
}

#[derive(Serialize)]
struct Batch<'a> {
    deletes: Vec<Id<'a>>,
    posts: Vec<Post<'a>>,
}

#[derive(Serialize)]
struct Id<'a> {
    id: &'a str,
}

#[derive(Serialize)]
struct Post<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    name: &'a str,
    /// Quoted, because Cloudflare stores it so.
    content: String,
    ttl: u32,
    comment: String,
}

impl Changes {
    fn post<'a>(&self, record: &'a NewRecord) -> Post<'a> {
        let NewRecord { name, value, challenge } = record;
        let (content, comment) = (format!("\"{value}\""), format!("{}{challenge}", self.mark));
        Post { kind: "TXT", name, content, ttl: 60, comment }
    }
}

#[async_trait]
impl Records for Changes {
    type Error = ApiError;

    /// The limit of Cloudflare's free plan.
    const TOGETHER: usize = 200;

    fn now(&self) -> OffsetDateTime {
        self.api.now()
    }

    fn is_short_of_calls(&self) -> bool {
        self.api.is_short_of_calls()
    }

    async fn change(
        &self,
        zone: &str,
        creates: &[&NewRecord],
        deletes: &[&str],
    ) -> Result<Vec<Option<String>>, ApiError> {
        let batch = Batch {
            deletes: deletes.iter().map(|id| Id { id }).collect(),
            posts: creates.iter().map(|record| self.post(record)).collect(),
        };
        let answer = self.api.post(&["zones", zone, "dns_records", "batch"], &batch).await?;
        // Answers come in the order of the requests.
        Ok(written(&answer))
    }

    async fn create(&self, zone: &str, record: &NewRecord) -> Result<String, ApiError> {
        let created = self.api.post(&["zones", zone, "dns_records"], &self.post(record)).await?;
        let no_id = || ApiError::unanswered("the answer lacks the id of the record".to_owned());
        created.as_object().and_then(id).ok_or_else(no_id)
    }

    async fn delete(&self, zone: &str, id: &str) -> Result<(), ApiError> {
        self.api.delete(&["zones", zone, "dns_records", id]).await
    }

    async fn written(&self, zone: &str) -> Result<Vec<Record>, ApiError> {
        let ours = records::list(&self.api, zone, ("comment.startswith", &self.mark)).await?;
        Ok(ours.into_iter().map(|txt| txt.into_record(zone)).collect())
    }
}
