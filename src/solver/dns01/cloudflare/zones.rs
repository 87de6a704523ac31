//! Which zone of the token a name is in.
//!
//! A delegated child zone may live in the same account as its parent, so the longest match wins
//! and asking for the registered domain alone is wrong. Asking for every suffix of every name
//! would cost calls by the number of hosts. Hence: all zones of the token are listed once, 50 a
//! page, and kept for a few minutes. Only for a token with more zones than [`MAX_PAGES`] hold are
//! names looked up suffix by suffix. One look-up serves everybody who waits for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use serde_json::{Map, Value};
use time::OffsetDateTime;

use super::answer::{Listed, id, text};
use super::api::Api;
use super::error::{ApiError, Concerning, no_zone_for};
use crate::clock::Clock;
use crate::domain::failure::{Failure, code};
use crate::domain::name::{comparable, public_suffix, with_u_labels};
use crate::solver::dns01::setback::Setback;

const FRESH_FOR: Duration = Duration::from_mins(5);

/// A name that no zone holds is worth another listing after this long: the zone may have been
/// added a moment ago, by the person who is waiting.
const DOUBTED_AFTER: time::Duration = time::Duration::seconds(30);

const PER_PAGE: usize = 50;
const MAX_PAGES: u64 = 10;
const MAX_REMEMBERED_NAMES: u64 = 10_000;

/// The zones that a token can see.
pub(super) struct Zones {
    api: Arc<Api>,
    clock: Arc<dyn Clock>,
    listing: Cache<(), Arc<Listing>>,
    by_name: Cache<String, Option<String>>,
    setback: Setback<ApiError>,
}

pub(super) struct Listing {
    made_at: OffsetDateTime,
    /// Ids by name; `None` where there are too many to list.
    ids: Option<HashMap<String, String>>,
    /// Whether there were zones that could not be read.
    is_partial: bool,
}

/// The zone of a name, and what it is known from.
pub(super) struct Found {
    pub(super) id: String,
    pub(super) listed: Option<Arc<Listing>>,
}

/// A zone's name, in the form in which names are compared, and id.
pub(super) fn named(zone: &Map<String, Value>) -> Option<(String, String)> {
    Some((comparable(text(zone, "name")?), id(zone)?))
}

impl Zones {
    pub(super) fn new(api: Arc<Api>, clock: Arc<dyn Clock>) -> Self {
        Self {
            api,
            clock,
            listing: Cache::builder().max_capacity(1).time_to_live(FRESH_FOR).build(),
            by_name: Cache::builder()
                .max_capacity(MAX_REMEMBERED_NAMES)
                .time_to_live(FRESH_FOR)
                .build(),
            setback: Setback::default(),
        }
    }

    /// The zone that holds `name`, which is in the form in which names are compared.
    pub(super) async fn find(&self, name: &str) -> Result<Found, Failure> {
        let listing = self.listing(name).await?;
        if let Some(id) = self.find_in(&listing, name).await? {
            return Ok(Found { id, listed: Some(listing) });
        }
        if self.clock.now() - listing.made_at < DOUBTED_AFTER {
            return Err(not_found(&listing, name));
        }
        self.forget_listing(&listing).await;
        let listing = self.listing(name).await?;
        match self.find_in(&listing, name).await? {
            Some(id) => Ok(Found { id, listed: Some(listing) }),
            None => Err(not_found(&listing, name)),
        }
    }

    /// The ids of all zones of the token; `None` where there are too many to list.
    pub(super) async fn all(&self) -> Result<Option<Vec<String>>, Failure> {
        let listing = self.listing("every zone").await?;
        Ok(listing.ids.as_ref().map(|ids| ids.values().cloned().collect()))
    }

    /// Drops what was remembered about zones: an id from there turned out to be wrong. Everybody who
    /// writes to the zone notices; only the first one drops what is still old.
    pub(super) async fn forget(&self, found: &Found) {
        if let Some(listing) = &found.listed {
            self.forget_listing(listing).await;
        }
    }

    async fn forget_listing(&self, seen: &Arc<Listing>) {
        // Somebody may have made a new one since; that is as fresh as can be.
        if self.listing.get(&()).await.is_some_and(|current| Arc::ptr_eq(&current, seen)) {
            self.listing.invalidate_all();
            self.by_name.invalidate_all();
        }
    }

    async fn find_in(&self, listing: &Listing, name: &str) -> Result<Option<String>, Failure> {
        if let Some(ids) = &listing.ids {
            return Ok(suffixes(name).find_map(|suffix| ids.get(suffix)).cloned());
        }
        for suffix in candidates(name) {
            let found = self
                .by_name
                .try_get_with(suffix.to_owned(), self.patiently(self.ask_for(suffix)))
                .await
                .map_err(|error| (*error).clone().into_failure(Concerning::ZonesFor(name)))?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// By its name, and by how that is shown: which of them the filter knows is not documented.
    async fn ask_for(&self, suffix: &str) -> Result<Option<String>, ApiError> {
        for name in [Some(suffix.to_owned()), with_u_labels(suffix)].into_iter().flatten() {
            let query = [("name", name.as_str()), ("status", "active"), ("per_page", "5")];
            let answer = self.api.get(&["zones"], &query).await?;
            let zones = Listed::read(&answer.result, named).ok_or_else(ApiError::garbled)?;
            if let Some((_, id)) = zones.read.into_iter().find(|(name, _)| name == suffix) {
                return Ok(Some(id));
            }
            if zones.count > 0 {
                // It was found, but cannot be read: that is not "there is none".
                return Err(ApiError::garbled());
            }
        }
        Ok(None)
    }

    async fn listing(&self, name: &str) -> Result<Arc<Listing>, Failure> {
        self.listing
            .try_get_with((), async { self.patiently(self.list()).await.map(Arc::new) })
            .await
            .map_err(|error| (*error).clone().into_failure(Concerning::ZonesFor(name)))
    }

    /// A look-up that was refused is not repeated for each of those who wait for it.
    async fn patiently<T>(
        &self,
        asking: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, ApiError> {
        if let Some(held) = self.setback.holds(self.clock.now()) {
            return Err(held);
        }
        match asking.await {
            Ok(answer) => {
                self.setback.over();
                Ok(answer)
            }
            Err(refused @ ApiError::Refused { .. }) => {
                Err(self.setback.again(refused, self.clock.now()))
            }
            // Who wants to be asked later says so by itself, and who is silent may not be any more.
            Err(other) => Err(other),
        }
    }

    async fn list(&self) -> Result<Listing, ApiError> {
        let made_at = self.clock.now();
        let (mut ids, mut is_partial) = (HashMap::new(), false);
        for page in 1..=MAX_PAGES {
            let (page_text, per_page) = (page.to_string(), PER_PAGE.to_string());
            let query = [("status", "active"), ("per_page", &per_page), ("page", &page_text)];
            let answer = self.api.get(&["zones"], &query).await?;
            let zones = Listed::read(&answer.result, named).ok_or_else(ApiError::garbled)?;
            let last = match answer.total_pages {
                Some(total) if total > MAX_PAGES => break,
                Some(total) => page >= total,
                None => zones.count < PER_PAGE,
            };
            is_partial |= zones.is_partial();
            ids.extend(zones.read);
            if last {
                return Ok(Listing { made_at, ids: Some(ids), is_partial });
            }
        }
        Ok(Listing { made_at, ids: None, is_partial: false })
    }
}

/// That a zone is not there is known only where all could be read.
fn not_found(listing: &Listing, name: &str) -> Failure {
    if !listing.is_partial {
        return no_zone_for(name);
    }
    Failure::of(code::CLOUDFLARE_UNREADABLE, "Among the zones that Cloudflare lists are some that cannot be read, and none of the others holds this name.").titled(format!("It is not known which Cloudflare zone {name} is in"))
}

/// The name and everything above it, the longest first.
fn suffixes(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name), |name| name.split_once('.').map(|(_, parent)| parent))
}

/// The suffixes that are worth a call each: no zone is called `_acme-challenge`-something in
/// practice (`zoneID` is for those that are), and nobody's zone is what a registry hands out names under.
fn candidates(name: &str) -> impl Iterator<Item = &str> {
    let registry = public_suffix(name).map_or(0, str::len);
    suffixes(name).filter(move |suffix| {
        !suffix.starts_with('_') && suffix.contains('.') && suffix.len() > registry
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::outbound::Client;
    use crate::secret::Secret;
    use crate::solver::dns01::cloudflare::{Budgets, http_client};

    #[tokio::test]
    async fn a_latecomer_with_the_old_id_does_not_drop_the_new_listing() {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let (http, token) = (Client::open(http_client()).unwrap(), Secret::new("token".to_owned()));
        let api = Api::new(http, None, &token, Arc::clone(&clock), &Budgets::new()).unwrap();
        let zones = Zones::new(Arc::new(api), Arc::clone(&clock));
        let listing = |id: &str| {
            let ids = HashMap::from([("example.org".to_owned(), id.to_owned())]);
            Arc::new(Listing { made_at: clock.now(), ids: Some(ids), is_partial: false })
        };
        zones.listing.insert((), listing("old")).await;
        let old = zones.find("a.example.org").await.unwrap();
        zones.listing.insert((), listing("new")).await;

        zones.forget(&old).await;
        let new = zones.find("a.example.org").await.unwrap();
        assert_eq!((old.id.as_str(), new.id.as_str()), ("old", "new"));

        zones.forget(&new).await;
        assert!(zones.listing.get(&()).await.is_none());
    }

    #[test]
    fn candidates_go_from_the_parent_to_the_registered_domain() {
        let of = |name| candidates(name).collect::<Vec<_>>();

        assert_eq!(
            of("_acme-challenge.a.b.example.co.uk"),
            ["a.b.example.co.uk", "b.example.co.uk", "example.co.uk"]
        );
        assert_eq!(
            of("x.acme.example.net"),
            ["x.acme.example.net", "acme.example.net", "example.net"]
        );
        assert_eq!(of("com"), Vec::<&str>::new());
    }
}
