//! The ways to CAs: one for issuers that only administrators write, a guarded one for all others.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;

use super::Ca;
use crate::clock::Clock;
use crate::domain::issuer::Kind;
use crate::domain::skew::Skew;
use crate::outbound::Guard;

/// Every CA that issuers name, reached as the kind of issuer may.
pub struct Authorities {
    open: Ca,
    guarded: Ca,
}

impl Authorities {
    /// Knows no CA yet; `guard` says where those of Issuers may be.
    pub fn new(clock: &Arc<dyn Clock>, guard: Guard) -> Self {
        Self { open: Ca::new(clock.clone()), guarded: Ca::new(clock.clone()).guarded(guard) }
    }

    /// Sets the timeout for a CA's answer; `finalize` may take three times as long.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        let Self { open, guarded } = self;
        Self { open: open.with_timeout(timeout), guarded: guarded.with_timeout(timeout) }
    }

    /// How far our clock is ahead of a CA's. Only CAs that administrators have named are believed.
    pub fn skew(&self, now: OffsetDateTime) -> Option<Skew> {
        self.open.skew(now)
    }

    /// The way for this kind of issuer.
    pub fn of(&self, kind: Kind) -> &Ca {
        match kind {
            Kind::ClusterIssuer => &self.open,
            Kind::Issuer => &self.guarded,
        }
    }
}
