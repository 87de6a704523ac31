//! A gather queue for each zone: the changes that come at the same time go out in one call.
//!
//! Changes go into a queue. One task per zone takes everything from it, makes one call, and hands each
//! caller its own answer. It lives only while there is something to do. No lock is held during a call,
//! and a caller that goes away takes only its own answer with it.
//!
//! Every provider shares this: it says by [`Records`] how changes are made, and by [`Refusal`] what a
//! refusal means for the other changes of a call.

#[cfg(test)]
mod tests;
mod zone;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use moka::sync::Cache;
use time::OffsetDateTime;

use self::zone::Zone;
use crate::domain::challenge::Record;
use crate::domain::id::ChallengeId;
use crate::solver::Upcoming;

/// Zones written to at the same time. A queue that is evicted early only loses the gathering.
const MAX_ZONES: u64 = 1000;
const ZONE_IDLE: Duration = Duration::from_mins(10);

/// How a provider changes the TXT records of its zones.
#[async_trait]
pub(super) trait Records: Send + Sync + 'static {
    type Error: Refusal;

    /// Changes that one call takes.
    const TOGETHER: usize;

    fn now(&self) -> OffsetDateTime;

    /// Whether calls are to be saved.
    fn is_short_of_calls(&self) -> bool;

    /// Makes all changes in one call, or none. Returns the ids of what was created, in order.
    async fn change(
        &self,
        zone: &str,
        creates: &[&NewRecord],
        deletes: &[&str],
    ) -> Result<Vec<Option<String>>, Self::Error>;

    /// Creates one record and returns its id.
    async fn create(&self, zone: &str, record: &NewRecord) -> Result<String, Self::Error>;

    async fn delete(&self, zone: &str, id: &str) -> Result<(), Self::Error>;

    /// Lists the records of this installation in a zone.
    async fn written(&self, zone: &str) -> Result<Vec<Record>, Self::Error>;
}

/// The meaning of a provider's refusal for the changes of a call.
pub(super) trait Refusal: Clone + Send + Sync + 'static {
    /// The record that was to be created is there already.
    fn says_record_exists(&self) -> bool;

    /// The record that was to be deleted is gone.
    fn says_one_record_is_gone(&self) -> bool;

    /// The zone has no room for another record. That passes: proofs are taken away all the time.
    fn says_zone_is_full(&self) -> bool;

    /// A batch was refused for something that may be wrong with one of its changes only.
    fn may_concern_one_record(&self) -> bool;

    /// The same, for callers that do not ask again before `until`.
    fn held_until(self, until: OffsetDateTime) -> Self;

    /// Not before `retry_at`, for a reason of ours.
    fn later(retry_at: OffsetDateTime, reason: String) -> Self;

    /// No usable answer.
    fn unanswered(reason: String) -> Self;
}

/// A TXT record to create.
#[derive(Debug, Clone)]
pub(super) struct NewRecord {
    /// In the form in which names are compared.
    pub(super) name: String,
    /// Without quotes.
    pub(super) value: String,
    pub(super) challenge: ChallengeId,
}

/// The queues of one credential, one for each zone.
pub(super) struct Queues<R: Records> {
    records: Arc<R>,
    upcoming: Upcoming,
    zones: Cache<String, Arc<Zone<R>>>,
}

impl<R: Records> Queues<R> {
    pub(super) fn new(records: R, upcoming: Upcoming) -> Self {
        let zones = Cache::builder().max_capacity(MAX_ZONES).time_to_idle(ZONE_IDLE).build();
        Self { records: Arc::new(records), upcoming, zones }
    }

    /// Creates a record and returns its id.
    pub(super) async fn create(&self, zone: &str, record: NewRecord) -> Result<String, R::Error> {
        self.of(zone).create(record).await
    }

    pub(super) async fn delete(&self, zone: &str, id: &str) -> Result<(), R::Error> {
        self.of(zone).delete(id).await
    }

    fn of(&self, zone: &str) -> Arc<Zone<R>> {
        self.zones.get_with_by_ref(zone, || {
            let records = Arc::clone(&self.records);
            Arc::new(Zone::new(records, zone.to_owned(), self.upcoming.clone()))
        })
    }
}
