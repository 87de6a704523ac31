//! TXT records through Cloudflare's v4 API.
//!
//! One [`Cloudflare`] stands for one API token and is shared by everybody who uses it: the zones it
//! knows, its budget of calls, and the queues that gather what is written at the same time.

mod answer;
mod api;
mod budget;
mod changes;
mod clients;
mod error;
#[cfg(feature = "failpoints")]
pub(in crate::solver) mod fuzzing;
mod ours;
mod records;
mod zones;

use std::sync::Arc;

use async_trait::async_trait;

use self::answer::is_id;
use self::api::Api;
#[cfg(test)]
use self::api::http_client;
use self::budget::Budgets;
use self::changes::Changes;
pub(in crate::solver) use self::clients::Clients;
pub(super) use self::error::ApiError;
use self::error::Concerning;
use self::records::Txt;
use self::zones::{Found, Zones};
use super::gather::{NewRecord, Queues, Refusal as _};
use super::provider::{DnsProvider, Ours};
use crate::clock::Clock;
use crate::domain::challenge::Record;
use crate::domain::failure::{Failure, code};
use crate::domain::id::ChallengeId;
use crate::domain::name::comparable;
use crate::outbound::Client;
use crate::secret::Secret;
use crate::solver::Upcoming;

/// Where and as whom to call.
#[derive(Clone, Copy)]
struct Access<'a> {
    /// Base of the API; Cloudflare's own where absent.
    base_url: Option<&'a str>,
    token: &'a Secret<String>,
    /// The zone to write to; looked up by name where absent.
    zone_id: Option<&'a str>,
    upcoming: &'a Upcoming,
    budgets: &'a Budgets,
}

/// The DNS records that an API token can edit.
struct Cloudflare {
    api: Arc<Api>,
    zones: Zones,
    zone_id: Option<String>,
    queues: Queues<Changes>,
    /// How the comments of this installation's records begin.
    mark: String,
}

#[async_trait]
impl DnsProvider for Cloudflare {
    async fn create(
        &self,
        name: &str,
        value: &str,
        challenge: ChallengeId,
    ) -> Result<Record, Failure> {
        let name = comparable(name);
        let record = NewRecord { name: name.clone(), value: value.to_owned(), challenge };
        let mut found = self.zone_of(&name).await?;
        let mut created = self.queues.create(&found.id, record.clone()).await;
        if self.is_stale(&created) {
            self.zones.forget(&found).await;
            found = self.zone_of(&name).await?;
            created = self.queues.create(&found.id, record).await;
        }
        let zone = found.id;
        let id = match created {
            Ok(id) => id,
            Err(error) if error.says_record_exists() => self.adopt(&zone, &name, value).await?,
            Err(error) => return Err(error.into_failure(concerning(&zone, &name))),
        };
        Ok(Record { name, value: value.to_owned(), zone, id })
    }

    async fn delete(&self, record: &Record) -> Result<(), Failure> {
        self.delete_by_id(&record.zone, &record.name, &record.id).await
    }

    async fn delete_by_value(&self, name: &str, value: &str) -> Result<(), Failure> {
        let name = comparable(name);
        let mut place = self.zone_of(&name).await?;
        let mut found = self.find(&place.id, &name, value).await;
        if self.is_stale(&found) {
            self.zones.forget(&place).await;
            place = self.zone_of(&name).await?;
            found = self.find(&place.id, &name, value).await;
        }
        let zone = place.id;
        let found = found.map_err(|error| error.into_failure(concerning(&zone, &name)))?;
        let ours = found.into_iter().filter(|record| record.is_marked(&self.mark));
        for record in ours {
            self.delete_by_id(&zone, &name, &record.id).await?;
        }
        Ok(())
    }

    /// A token that sees more zones than can be listed is looked at only with a `zoneID`.
    async fn zones(&self) -> Result<Vec<String>, Failure> {
        match &self.zone_id {
            Some(id) => Ok(vec![id.clone()]),
            None => Ok(self.zones.all().await?.unwrap_or_default()),
        }
    }

    async fn ours(&self, zone: &str) -> Result<Vec<Ours>, Failure> {
        let found = ours::list(&self.api, zone, &self.mark).await;
        found.map_err(|error| error.into_failure(concerning(zone, "its records")))
    }
}

impl Cloudflare {
    /// A client for one token; `installation` marks the records as ours.
    fn new(
        http: Client,
        access: Access<'_>,
        clock: Arc<dyn Clock>,
        installation: &str,
    ) -> Result<Self, Failure> {
        let Access { base_url, token, budgets, .. } = access;
        let api = Arc::new(Api::new(http, base_url, token, Arc::clone(&clock), budgets)?);
        let mark = format!("certwright {installation} ");
        let changes = Changes { api: Arc::clone(&api), mark: mark.clone() };
        Ok(Self {
            zones: Zones::new(Arc::clone(&api), clock),
            api,
            zone_id: access.zone_id.map(valid_zone_id).transpose()?,
            queues: Queues::new(changes, access.upcoming.clone()),
            mark,
        })
    }

    async fn delete_by_id(&self, zone: &str, name: &str, id: &str) -> Result<(), Failure> {
        match self.queues.delete(zone, id).await {
            Err(error) if !error.says_record_is_gone() => {
                Err(error.into_failure(concerning(zone, name)))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    async fn adopt(&self, zone: &str, name: &str, value: &str) -> Result<String, Failure> {
        let found = self.find(zone, name, value).await;
        let found = found.map_err(|error| error.into_failure(concerning(zone, name)))?;
        found.into_iter().next().map(|record| record.id).ok_or_else(|| {
            Failure::of(
                code::CLOUDFLARE_RECORD_VANISHED,
                "Cloudflare refused it as a duplicate, but does not list it.",
            )
            .titled(format!("The TXT record of {name} was there and is not"))
        })
    }

    async fn find(&self, zone: &str, name: &str, value: &str) -> Result<Vec<Txt>, ApiError> {
        let mut found = records::list_at(&self.api, zone, name).await?;
        found.retain(|record| record.is(name, value));
        Ok(found)
    }

    /// The answer to an id that we remembered, but that means nothing any more.
    fn is_stale<T>(&self, answer: &Result<T, ApiError>) -> bool {
        self.zone_id.is_none() && answer.as_ref().is_err_and(ApiError::may_be_stale)
    }

    async fn zone_of(&self, name: &str) -> Result<Found, Failure> {
        match &self.zone_id {
            Some(id) => Ok(Found { id: id.clone(), listed: None }),
            None => self.zones.find(name).await,
        }
    }
}

/// Whether a failure means that Cloudflare gave no answer.
pub(in crate::solver) fn is_silent(failure: &Failure) -> bool {
    failure.is(code::CLOUDFLARE_UNAVAILABLE)
}

fn concerning<'a>(zone: &'a str, name: &'a str) -> Concerning<'a> {
    Concerning::Records { zone, name }
}

fn valid_zone_id(id: &str) -> Result<String, Failure> {
    if is_id(id) {
        return Ok(id.to_owned());
    }
    Err(Failure::of(
        code::CLOUDFLARE_ZONE_NOT_FOUND.with_advice(
            "It is the 32 characters on the zone's overview page, not the zone's name.",
        ),
        "",
    )
    .titled("`zoneID` is not the id of a Cloudflare zone"))
}
