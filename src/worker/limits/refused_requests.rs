//! A limiter for the requests of each account that its CA refuses, as this process counts them.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use time::OffsetDateTime;

use crate::ca::Limiter;
use crate::domain::issuer::Issuer;
use crate::domain::limits::LimitsSpec;
use crate::domain::order::Order;
use crate::domain::throttle::Scope;

/// Bounds the memory. An account that is evicted begins anew, with an eighth of its tokens.
const MOST_ACCOUNTS: u64 = 1_000;
const IDLE: Duration = Duration::from_mins(10);

/// A limiter for each account.
pub(super) struct Limiters(Cache<String, Arc<Limiter>>);

impl Limiters {
    pub(super) fn new() -> Self {
        Self(Cache::builder().max_capacity(MOST_ACCOUNTS).time_to_idle(IDLE).build())
    }

    /// The limiter of the account that the order is under.
    pub(super) fn of(&self, issuer: &Issuer, order: &Order, now: OffsetDateTime) -> Arc<Limiter> {
        let limits = LimitsSpec::of(issuer.acme.limits.as_ref(), &issuer.acme.server);
        let account = order.asker(issuer).key(&Scope::Account);
        let limiter =
            self.0.get_with_by_ref(&account, || Arc::new(Limiter::new(limits.refusals(), now)));
        limiter.set(limits.refusals());
        limiter
    }
}
