//! The usage of a CA's limits.

use time::OffsetDateTime;

use crate::domain::issuer::Issuer;
use crate::domain::limits::{Limit, LimitsSpec};
use crate::domain::throttle::{Asker, Scope};
use crate::storage::{Read, StorageError, rate_limits};
use crate::view::issuer::LimitsView;

/// The usage by this issuer's account and at its CA; `None` where nothing is limited.
pub(super) async fn used(
    tx: &mut Read,
    issuer: &Issuer,
    now: OffsetDateTime,
) -> Result<Option<LimitsView>, StorageError> {
    Ok(LimitsView::of(&spent(tx, issuer, now).await?, now))
}

/// A limit by its name, and the time at which all of it is available again.
pub(in crate::api) type Spent = (&'static str, Limit, OffsetDateTime);

/// Each limit that holds for an issuer; of several per domain, set or name, the fullest.
pub(in crate::api) async fn spent(
    tx: &mut Read,
    issuer: &Issuer,
    now: OffsetDateTime,
) -> Result<Vec<Spent>, StorageError> {
    let acme = &issuer.acme;
    let account = issuer.account.as_ref().map_or("", |account| &account.url);
    let asker = Asker { server: &acme.server, account, names: &[] };
    let mut spent = Vec::new();
    for (name, limit) in LimitsSpec::of(acme.limits.as_ref(), &acme.server).each() {
        let counted = match name {
            "newOrders" => Scope::Account,
            "certificatesPerDomain" => Scope::RegisteredDomain(String::new()),
            "certificatesPerExactSet" => Scope::ExactSet,
            _ => Scope::Name(String::new()),
        };
        let until = rate_limits::fullest(tx, &asker.pool(&counted)).await?.unwrap_or(now);
        spent.push((name, limit.clone(), until));
    }
    Ok(spent)
}
