//! What a namespace may have: so many certificates, and so many of them under way at the wish of its clients.
//!
//! Renewals that come by themselves count, and are never refused.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use time::Duration;

use crate::api::AppState;
use crate::api::auth::NamespaceLimits;
use crate::api::problem::{ApiError, Code, RateLimit};
use crate::domain::certificate::Certificate;
use crate::storage::{Tx, namespaces};

/// An order takes some seconds, as a rule.
const ORDER_DONE_AFTER: Duration = Duration::seconds(30);

/// What a transaction adds to namespaces.
#[derive(Debug, Default)]
pub(crate) struct Growth(BTreeMap<String, Added>);

#[derive(Debug, Default)]
struct Added {
    certificate: bool,
    order: bool,
}

impl Growth {
    /// By this certificate alone.
    pub(crate) fn by(before: Option<&Certificate>, after: &Certificate) -> Self {
        let mut growth = Self::default();
        growth.add(before, after);
        growth
    }

    /// By this certificate, too.
    pub(crate) fn add(&mut self, before: Option<&Certificate>, after: &Certificate) {
        let added = self.0.entry(after.namespace.clone()).or_default();
        added.certificate |= before.is_none();
        added.order |= after.is_under_way() && !before.is_some_and(Certificate::is_under_way);
    }

    /// Refuses it where a namespace has more than it may have now. The last thing before the commit: what others add
    /// meanwhile is waited for.
    pub(crate) async fn must_fit(self, app: &AppState, tx: &mut Tx) -> Result<(), ApiError> {
        let NamespaceLimits { certificates, open_orders } = app.limits.namespaces;
        for (namespace, added) in self.0 {
            let certificates = certificates.filter(|_| added.certificate).map(NonZeroU32::get);
            let open_orders = open_orders.filter(|_| added.order).map(NonZeroU32::get);
            if certificates.is_none() && open_orders.is_none() {
                continue;
            }
            namespaces::take_turn(tx, &namespace).await?;
            if let Some(most) = certificates
                && namespaces::count_certificates(tx, &namespace, most.saturating_add(1)).await?
                    > most
            {
                return Err(too_many_certificates(&namespace, most));
            }
            if let Some(most) = open_orders
                && namespaces::count_under_way(tx, &namespace, most.saturating_add(1)).await? > most
            {
                return Err(too_many_orders(&namespace, most));
            }
        }
        Ok(())
    }
}

fn too_many_certificates(namespace: &str, most: u32) -> ApiError {
    let detail = format!(
        "The namespace `{namespace}` may have {most} certificates (`limits.certificates_per_namespace`). Delete those that are not needed any more, or have whoever runs the service raise the limit."
    );
    ApiError::Because(Code::QuotaExceeded, detail)
}

fn too_many_orders(namespace: &str, most: u32) -> ApiError {
    let exceeded = RateLimit::exceeded("open-orders", most, None, ORDER_DONE_AFTER);
    let detail = format!(
        "In the namespace `{namespace}` {most} certificates are being issued already, which is as many as may at once (`limits.open_orders_per_namespace`). Send this again when some of them are done; GET /certificates?phase=Issuing lists them."
    );
    ApiError::TooMany(exceeded, detail)
}
