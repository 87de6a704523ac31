//! The HTTP API.
//!
//! A handler authorises, validates, opens one transaction and answers; what takes time is the
//! workers' business, whom a committed row wakes. This is the only module that knows axum, and it
//! never asks the outside world, but for the keys of OIDC issuers, which `oidc` caches, and for the warnings of applied
//! manifests, by a function that it is given. Everything that can be known to fail is refused at once, with
//! nothing stored.

#![expect(unused_qualifications, reason = "utoipa's macros write the types of queries out in full")]

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::domain::access_rule::Rule;
use crate::domain::forwarded::TrustedProxies;
use crate::domain::issuer::Issuer;
use crate::health::Health;
use crate::heavy::{Pool, Undone};
use crate::oidc::Issuers;
use crate::outbound::Sender;
use crate::secret::{Sealer, Secret};
use crate::storage::audit::Author;
use crate::storage::{Db, Tx};

mod accept;
mod api_keys;
pub(crate) mod audit;
mod auth;
mod by_name;
mod caching;
mod certificates;
mod challenges;
mod compression;
mod cors;
mod declared;
mod description;
mod dry_run;
mod events;
mod extract;
mod field;
mod fields;
mod head;
mod headers;
mod health;
mod idempotency;
mod issuers;
mod layers;
mod limits;
pub(crate) mod manifests;
mod merge_patch;
mod metrics;
mod oidc_issuers;
mod openapi;
mod orders;
mod page;
mod patch_schema;
mod policies;
mod precondition;
mod present;
mod problem;
mod problem_pages;
mod rate_limit;
mod requests;
mod responder;
mod responses;
mod rotation;
mod secrets;
mod throttles;
mod traced;
mod version;
mod wait;
mod webhooks;
mod whoami;

pub use audit::{Refusals, refuse_certificate};
pub use auth::{CallerLimits, LastUses, NamespaceLimits};
pub use metrics::{Metrics, MetricsSettings, metrics_alone};
pub use openapi::document;
pub use responder::responder;

use auth::Principal;
use problem::{ApiError, Code};

/// Why an account key could not be made.
pub type AccountKeyError = Box<dyn std::error::Error + Send + Sync>;

/// Makes the key of an ACME account: ECDSA on P-256, PKCS #8.
pub type MakeAccountKey = Arc<dyn Fn() -> Result<Secret<Vec<u8>>, AccountKeyError> + Send + Sync>;

/// A certificate that is wanted, for a look into the DNS of its names.
pub struct PreflightSubject {
    pub issuer: Issuer,
    pub namespace: String,
    pub labels: BTreeMap<String, String>,
    pub names: Vec<String>,
}

/// Warns of what in the DNS would have the CA refuse a certificate; how that is found out is none of this module's
/// business.
pub type Preflight = Arc<dyn Fn(PreflightSubject) -> BoxFuture<'static, Vec<String>> + Send + Sync>;

/// The state as handlers have it. Layers and extractors clone it several times for each request.
#[derive(Clone)]
pub struct AppState(Arc<App>);

impl From<App> for AppState {
    fn from(app: App) -> Self {
        Self(Arc::new(app))
    }
}

impl Deref for AppState {
    type Target = App;

    fn deref(&self) -> &App {
        &self.0
    }
}

/// The state that handlers share.
pub struct App {
    /// Everything that is remembered.
    pub db: Db,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Seals what must not be read in the database.
    pub sealer: Arc<Sealer>,
    /// Says where webhooks may lead.
    pub outbound: Sender,
    /// The namespace of the secrets that `ClusterIssuer`s refer to.
    pub cluster_namespace: Arc<str>,
    /// Verifies tokens of OIDC issuers.
    pub tokens: Issuers,
    /// What the names in client certificates are worth.
    pub client_rules: Arc<[Rule]>,
    /// How much callers may do, and how often fail.
    pub limits: CallerLimits,
    /// Whose word for a client's address counts.
    pub trusted_proxies: TrustedProxies,
    /// Origins whose web pages may ask.
    pub cors_origins: Arc<[String]>,
    /// What was refused of late, for the audit log.
    pub refusals: Refusals,
    /// The API keys whose use today is written down.
    pub last_uses: LastUses,
    /// Does what would keep the threads that answer busy.
    pub heavy: Pool,
    /// Makes account keys; which library does is none of this module's business.
    pub account_key: MakeAccountKey,
    /// Looks into the DNS for the warnings of applied manifests.
    pub preflight: Preflight,
    pub metrics: Metrics,
    /// Says whether this instance can work.
    pub health: Health,
    /// Cancelled when the service stops: readiness ends, and waiting requests are answered.
    pub shutdown: CancellationToken,
}

impl App {
    /// The time, as exactly as the database keeps it: what is answered now is what is read later.
    fn now(&self) -> OffsetDateTime {
        let now = self.clock.now();
        now.replace_millisecond(now.millisecond()).unwrap_or(now)
    }

    /// Begins a transaction of a request: whatever it writes leaves an entry in the audit log, in the same
    /// transaction.
    fn begin(&self, who: &Principal) -> Tx {
        let (principal, call) = who.author();
        let mut tx = self.db.begin();
        let at = self.now();
        crate::storage::audit::attribute(&mut tx, Author { principal, call, at });
        tx
    }

    /// Does what keeps a core busy, on one of those that are for it.
    async fn heavily<T: Send + 'static>(
        &self,
        who: &Principal,
        work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        self.heavy.run_for(who.subject.id().0, work).await.unwrap_or_else(|undone| {
            Err(match undone {
                Undone::Busy => {
                    let detail = "The service has more heavy work to do than it can. Send the request again in a moment.";
                    ApiError::Because(Code::Unavailable, detail.to_owned())
                }
                Undone::Died(error) => ApiError::Inside(Box::new(error)),
            })
        })
    }
}

/// The API with all its layers.
pub fn router(state: AppState) -> axum::Router {
    let (routes, undeclared) = openapi::routes();
    let routes = layers::around(routes.with_state(state.clone()), state.clone(), undeclared);
    let origins = Arc::clone(&state.cors_origins);
    let api = by_name::resolving(routes, state);
    // Without any, OPTIONS is a method like others.
    if origins.is_empty() { api } else { api.layer(cors::for_origins(&origins)) }
}

/// Repeats an attempt that lost a race: each attempt reads anew, so that it sees what the other transaction wrote.
async fn retrying<T, F>(attempt: impl Fn() -> F) -> Result<T, ApiError>
where
    F: Future<Output = Result<T, ApiError>>,
{
    const TIMES: usize = 5;
    for _ in 1..TIMES {
        match attempt().await {
            Err(error) if error.is_lost_race() => {}
            done => return done,
        }
    }
    attempt().await
}
