//! Limits for those who call: requests and failed authentications of each address; requests, streams and waits of each
//! principal; and what a namespace may have.
//!
//! A key that counts is let in, whatever has failed from its address: behind one proxy are many, and none of them can
//! lock the others out. Who guesses is answered 429, and learns nothing. A limit of the requests of an address holds for
//! everybody behind it, and is off unless it is set.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;

use axum::http::request::Parts;
use time::{Duration, OffsetDateTime};

use super::places::{Place, Places};
use crate::api::audit::call::address;
use crate::api::problem::{ApiError, RateLimit};
use crate::domain::id::PrincipalId;
use crate::outbound::{Rate, Rates};

/// Addresses and principals that are counted at the same time. While there are more, new ones have to wait.
const MOST: usize = 10_000;

/// What callers may do. A cheap handle.
#[derive(Clone, Default)]
pub struct CallerLimits {
    failures: Option<Arc<Counted<IpAddr>>>,
    from_address: Option<Arc<Counted<IpAddr>>>,
    requests: Option<Arc<Counted<PrincipalId>>>,
    streams: Option<Arc<Places>>,
    waits: Option<Arc<Places>>,
    pub(crate) namespaces: NamespaceLimits,
}

/// What each namespace may have. `None` is no limit.
#[derive(Debug, Clone, Copy, Default)]
pub struct NamespaceLimits {
    pub certificates: Option<NonZeroU32>,
    /// Certificates that are being issued, at the wish of a client.
    pub open_orders: Option<NonZeroU32>,
}

/// A client that gave up a place may have another one at once; this is when to look again.
const PLACE_AFTER: Duration = Duration::seconds(5);

struct Counted<K> {
    name: &'static str,
    quota: u32,
    window: Duration,
    rates: Rates<K>,
}

impl CallerLimits {
    /// `None` is no limit.
    pub fn new(
        failures_per_minute: Option<NonZeroU32>,
        requests_per_second: Option<(NonZeroU32, NonZeroU32)>,
    ) -> Self {
        let failures = failures_per_minute.map(|quota| {
            let rate = Rate { burst: quota.get(), interval: Duration::minutes(1) / quota.get() };
            Counted::new("failed-authentications", quota, Duration::minutes(1), rate)
        });
        let requests = requests_per_second.map(|rate| Counted::by_second("requests", rate));
        let (failures, requests) = (failures.map(Arc::new), requests.map(Arc::new));
        Self { failures, requests, ..Self::default() }
    }

    /// The same, with so many requests of each address in a second, and so many at once. `None` is no limit.
    #[must_use]
    pub fn from_address(self, rate: Option<(NonZeroU32, NonZeroU32)>) -> Self {
        let counted = rate.map(|rate| Arc::new(Counted::by_second("requests-of-address", rate)));
        Self { from_address: counted, ..self }
    }

    /// The same, with so many streams of events and waiting requests of each principal at once. `None` is no limit.
    #[must_use]
    pub fn holding(self, streams: Option<NonZeroU32>, waits: Option<NonZeroU32>) -> Self {
        let places = |most: NonZeroU32| Arc::new(Places::new(most.get()));
        Self { streams: streams.map(places), waits: waits.map(places), ..self }
    }

    /// The same, with limits for each namespace.
    #[must_use]
    pub fn within(self, namespaces: NamespaceLimits) -> Self {
        Self { namespaces, ..self }
    }

    /// A place for a stream of events, where they are limited.
    pub(crate) fn stream(&self, who: PrincipalId) -> Result<Option<Place>, ApiError> {
        let detail = "This API key or token follows as many streams of events as it may (`limits.event_streams`). End one of them, or follow several namespaces with one.";
        place(self.streams.as_ref(), "event-streams", who, detail)
    }

    /// A place for a request that waits, where they are limited.
    pub(crate) fn wait(&self, who: PrincipalId) -> Result<Option<Place>, ApiError> {
        let detail = "As many requests of this API key or token wait as may (`limits.waits`). Send this one again later, or without `Prefer: wait`.";
        place(self.waits.as_ref(), "waits", who, detail)
    }

    /// Counts a failed authentication; the answer to it, if there were too many from its address.
    pub(super) fn failed(&self, parts: &Parts, now: OffsetDateTime) -> Option<ApiError> {
        let (counted, address) = (self.failures.as_ref()?, address(parts)?);
        let until = counted.rates.spend(&network(address), now).err()?;
        let detail = "Too many API keys, tokens and client certificates from this address were wrong. Check what is sent, and wait before the next try.";
        Some(counted.exceeded(until - now, detail))
    }

    /// Counts a request of an address, whoever sent it.
    pub(super) fn request_from(&self, parts: &Parts, now: OffsetDateTime) -> Result<(), ApiError> {
        let Some((counted, address)) = self.from_address.as_ref().zip(address(parts)) else {
            return Ok(());
        };
        counted.rates.spend(&network(address), now).map_err(|until| {
            let detail = "There are more requests from this address than it may send (`limits.requests_per_second_of_address`). Send this one again later. Where a proxy stands in front, `http.trusted_proxies` tells its clients apart.";
            counted.exceeded(until - now, detail)
        })
    }

    /// Counts a request of a principal; what it has left, where there is a limit.
    pub(super) fn request(
        &self,
        who: PrincipalId,
        now: OffsetDateTime,
    ) -> Result<Option<RateLimit>, ApiError> {
        let Some(counted) = &self.requests else { return Ok(None) };
        counted.rates.spend(&who, now).map_err(|until| {
            let detail = "There are more requests of this API key, token or client certificate than it may send (`limits.requests_per_second`). Send this one again later.";
            counted.exceeded(until - now, detail)
        })?;
        Ok(Some(counted.left(&who, now)))
    }
}

fn place(
    places: Option<&Arc<Places>>,
    name: &'static str,
    who: PrincipalId,
    detail: &str,
) -> Result<Option<Place>, ApiError> {
    let Some(places) = places else { return Ok(None) };
    let full = || {
        let exceeded = RateLimit::exceeded(name, places.most, None, PLACE_AFTER);
        ApiError::TooMany(exceeded, detail.to_owned())
    };
    places.take(who).map(Some).ok_or_else(full)
}

impl<K: Eq + std::hash::Hash + Clone> Counted<K> {
    fn new(name: &'static str, quota: NonZeroU32, window: Duration, rate: Rate) -> Self {
        Self { name, quota: quota.get(), window, rates: Rates::new(rate, MOST) }
    }

    fn by_second(name: &'static str, (quota, burst): (NonZeroU32, NonZeroU32)) -> Self {
        let rate = Rate { burst: burst.get(), interval: Duration::seconds(1) / quota.get() };
        Self::new(name, quota, Duration::seconds(1), rate)
    }

    fn left(&self, who: &K, now: OffsetDateTime) -> RateLimit {
        let (remaining, reset) = self.rates.left(who, now);
        let Self { name, quota, window, .. } = *self;
        RateLimit { name, quota, window: Some(window), remaining, reset }
    }

    fn exceeded(&self, retry_after: Duration, detail: &str) -> ApiError {
        let Self { name, quota, window, .. } = *self;
        let exceeded = RateLimit::exceeded(name, quota, Some(window), retry_after);
        ApiError::TooMany(exceeded, detail.to_owned())
    }
}

/// What one subscriber has: of IPv6 a /64.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let subscriber = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(subscriber))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscriber_of_ipv6_is_one_address() {
        for (one, other, same) in [
            ("2001:db8::1", "2001:db8::ffff:1", true),
            ("2001:db8:0:1::1", "2001:db8:0:2::1", false),
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
        ] {
            let [one, other] = [one, other].map(|text| network(text.parse().unwrap()));
            assert_eq!(one == other, same, "{one} {other}");
        }
    }
}
