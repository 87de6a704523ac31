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
use serde::Deserialize;
use time::OffsetDateTime;

use super::api::Api;
use super::error::{ApiError, Concerning, no_zone_for};
use crate::clock::Clock;
use crate::domain::failure::Failure;

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
}

struct Listing {
    made_at: OffsetDateTime,
    /// Ids by name; `None` where there are too many to list.
    ids: Option<HashMap<String, String>>,
}

#[derive(Deserialize)]
struct ZoneView {
    id: String,
    name: String,
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
        }
    }

    /// The id of the zone that holds `name`.
    pub(super) async fn find(&self, name: &str) -> Result<String, Failure> {
        let listing = self.listing(name).await?;
        if let Some(id) = self.find_in(&listing, name).await? {
            return Ok(id);
        }
        if self.clock.now() - listing.made_at < DOUBTED_AFTER {
            return Err(no_zone_for(name));
        }
        self.forget_listing(&listing).await;
        let listing = self.listing(name).await?;
        self.find_in(&listing, name).await?.ok_or_else(|| no_zone_for(name))
    }

    /// The ids of all zones of the token; `None` where there are too many to list.
    pub(super) async fn all(&self) -> Result<Option<Vec<String>>, Failure> {
        let listing = self.listing("every zone").await?;
        Ok(listing.ids.as_ref().map(|ids| ids.values().cloned().collect()))
    }

    /// Drops what was remembered about zones: this id turned out to be wrong.
    pub(super) async fn forget(&self, id: &str) {
        // Everybody who writes to the zone notices; only the first one drops what is still old.
        let is_old = self.listing.get(&()).await.is_some_and(|listing| match &listing.ids {
            Some(ids) => ids.values().any(|known| known == id),
            None => true,
        });
        if is_old {
            self.listing.invalidate_all();
            self.by_name.invalidate_all();
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
                .try_get_with(suffix.to_owned(), self.ask_for(suffix))
                .await
                .map_err(|error| (*error).clone().into_failure(Concerning::ZonesFor(name)))?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    async fn ask_for(&self, suffix: &str) -> Result<Option<String>, ApiError> {
        let query = [("name", suffix), ("status", "active"), ("per_page", "5")];
        let answer = self.api.get::<Vec<ZoneView>>(&["zones"], &query).await?;
        let zone = answer.result.into_iter().find(|zone| zone.name.eq_ignore_ascii_case(suffix));
        Ok(zone.map(|zone| zone.id))
    }

    async fn listing(&self, name: &str) -> Result<Arc<Listing>, Failure> {
        self.listing
            .try_get_with((), async { self.list().await.map(Arc::new) })
            .await
            .map_err(|error| (*error).clone().into_failure(Concerning::ZonesFor(name)))
    }

    async fn list(&self) -> Result<Listing, ApiError> {
        let made_at = self.clock.now();
        let mut ids = HashMap::new();
        for page in 1..=MAX_PAGES {
            let (page_text, per_page) = (page.to_string(), PER_PAGE.to_string());
            let query = [("status", "active"), ("per_page", &per_page), ("page", &page_text)];
            let answer = self.api.get::<Vec<ZoneView>>(&["zones"], &query).await?;
            let last = match answer.total_pages {
                Some(total) if total > MAX_PAGES => break,
                Some(total) => page >= total,
                None => answer.result.len() < PER_PAGE,
            };
            let named = answer.result.into_iter().map(|zone| (zone.name.to_lowercase(), zone.id));
            ids.extend(named);
            if last {
                return Ok(Listing { made_at, ids: Some(ids) });
            }
        }
        Ok(Listing { made_at, ids: None })
    }
}

/// The name and everything above it, the longest first.
fn suffixes(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name), |name| name.split_once('.').map(|(_, parent)| parent))
}

/// The suffixes that are worth a call each: no zone is called `_acme-challenge`-something in
/// practice (`zoneID` is for those that are), and nobody's zone is a public suffix.
fn candidates(name: &str) -> impl Iterator<Item = &str> {
    let registered = psl::domain_str(name).map_or(0, str::len);
    suffixes(name).filter(move |suffix| {
        !suffix.starts_with('_') && suffix.contains('.') && suffix.len() >= registered
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::outbound::Client;
    use crate::secret::Secret;
    use crate::solver::cloudflare::http_client;

    #[tokio::test]
    async fn a_latecomer_with_the_old_id_does_not_drop_the_new_listing() {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let token = Secret::new("token".to_owned());
        let api = Api::new(Client::open(http_client()).unwrap(), None, &token, Arc::clone(&clock))
            .unwrap();
        let zones = Zones::new(Arc::new(api), Arc::clone(&clock));
        let ids = HashMap::from([("example.org".to_owned(), "new".to_owned())]);
        let listing = Listing { made_at: clock.now(), ids: Some(ids) };
        zones.listing.insert((), Arc::new(listing)).await;

        zones.forget("old").await;
        assert_eq!(zones.find("a.example.org").await.unwrap(), "new");

        zones.forget("new").await;
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
