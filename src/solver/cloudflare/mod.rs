//! TXT records through Cloudflare's v4 API.
//!
//! One [`Cloudflare`] stands for one API token and is shared by everybody who uses it: the zones it
//! knows, its budget of calls, and the queues that gather what is written at the same time.

mod answer;
mod api;
mod batch;
mod budget;
mod error;
mod leftovers;
mod pace;
mod records;
mod setback;
mod zones;

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;

use self::answer::is_id;
use self::api::Api;
pub(super) use self::api::http_client;
use self::batch::{NewRecord, Writer};
pub(super) use self::budget::Budgets;
use self::error::{ApiError, Concerning};
pub use self::leftovers::Ours;
use self::records::Txt;
use self::zones::{Found, Zones};
use crate::clock::Clock;
use crate::domain::challenge::Record;
use crate::domain::failure::{Failure, code};
use crate::domain::id::ChallengeId;
use crate::domain::name::comparable;
use crate::outbound::Client;
use crate::secret::Secret;
use crate::solver::Upcoming;

/// Zones written to at the same time; one that is dropped early only loses the gathering.
const MAX_WRITERS: u64 = 1000;
const WRITER_IDLE: Duration = Duration::from_mins(10);

/// Where and as whom to call.
#[derive(Clone, Copy)]
pub struct Access<'a> {
    /// Base of the API; Cloudflare's own where absent.
    pub base_url: Option<&'a str>,
    /// The API token.
    pub token: &'a Secret<String>,
    /// The zone to write to; looked up by name where absent.
    pub zone_id: Option<&'a str>,
    /// What may have to be written within moments.
    pub upcoming: &'a Upcoming,
    /// What tokens may still spend.
    pub(in crate::solver) budgets: &'a Budgets,
}

/// The DNS records that an API token can edit.
pub struct Cloudflare {
    api: Arc<Api>,
    zones: Zones,
    zone_id: Option<String>,
    writers: Cache<String, Arc<Writer>>,
    installation: String,
    upcoming: Upcoming,
}

impl Cloudflare {
    /// A client for one token; `installation` marks the records as ours.
    pub(super) fn new(
        http: Client,
        access: Access<'_>,
        clock: Arc<dyn Clock>,
        installation: &str,
    ) -> Result<Self, Failure> {
        let api = Arc::new(Api::new(
            http,
            access.base_url,
            access.token,
            Arc::clone(&clock),
            access.budgets,
        )?);
        Ok(Self {
            zones: Zones::new(Arc::clone(&api), clock),
            api,
            zone_id: access.zone_id.map(valid_zone_id).transpose()?,
            writers: Cache::builder().max_capacity(MAX_WRITERS).time_to_idle(WRITER_IDLE).build(),
            installation: installation.to_owned(),
            upcoming: access.upcoming.clone(),
        })
    }

    /// Writes a TXT record, or finds it where it is written already.
    pub async fn create(
        &self,
        name: &str,
        value: &str,
        challenge: ChallengeId,
    ) -> Result<Record, Failure> {
        let name = comparable(name);
        let comment = format!("{}{challenge}", self.mark());
        let record = NewRecord::txt(&name, value, comment);
        let mut found = self.zone_of(&name).await?;
        let mut created = self.writer(&found.id).create(record.clone()).await;
        if self.is_stale(&created) {
            self.zones.forget(&found).await;
            found = self.zone_of(&name).await?;
            created = self.writer(&found.id).create(record).await;
        }
        let zone = found.id;
        let id = match created {
            Ok(id) => id,
            Err(error) if error.says_record_exists() => self.adopt(&zone, &name, value).await?,
            Err(error) => return Err(error.into_failure(concerning(&zone, &name))),
        };
        Ok(Record { name, value: value.to_owned(), zone, id })
    }

    /// Deletes a record that [`Self::create`] returned.
    pub async fn delete(&self, record: &Record) -> Result<(), Failure> {
        self.delete_by_id(&record.zone, &record.name, &record.id).await
    }

    /// Deletes what this installation wrote at `name` with this value; nothing else.
    pub async fn delete_by_value(&self, name: &str, value: &str) -> Result<(), Failure> {
        let name = comparable(name);
        let mark = self.mark();
        let mut place = self.zone_of(&name).await?;
        let mut found = self.find(&place.id, &name, value).await;
        if self.is_stale(&found) {
            self.zones.forget(&place).await;
            place = self.zone_of(&name).await?;
            found = self.find(&place.id, &name, value).await;
        }
        let zone = place.id;
        let found = found.map_err(|error| error.into_failure(concerning(&zone, &name)))?;
        let ours = found.into_iter().filter(|record| record.is_marked(&mark));
        for record in ours {
            self.delete_by_id(&zone, &name, &record.id).await?;
        }
        Ok(())
    }

    async fn delete_by_id(&self, zone: &str, name: &str, id: &str) -> Result<(), Failure> {
        match self.writer(zone).delete(id).await {
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

    fn writer(&self, zone: &str) -> Arc<Writer> {
        self.writers.get_with_by_ref(zone, || {
            let upcoming = self.upcoming.clone();
            Arc::new(Writer::new(Arc::clone(&self.api), zone.to_owned(), self.mark(), upcoming))
        })
    }

    /// How the comments of this installation's records begin.
    fn mark(&self) -> String {
        format!("certwright {} ", self.installation)
    }
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
