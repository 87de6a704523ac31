//! The clients of all tokens, with what they share.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use url::Url;

use super::api::http_client;
use super::{Access, Budgets, Cloudflare};
use crate::clock::Clock;
use crate::domain::failure::{Failure, code};
use crate::domain::issuer::{self, Kind};
use crate::outbound::{Client, Guard};
use crate::secret::Secret;
use crate::solver::Upcoming;
use crate::solver::dns01::provider::DnsProvider;

/// Clients that are kept: one per token, base URL and zone.
const MAX_CLIENTS: u64 = 1000;
const CLIENT_IDLE: Duration = Duration::from_hours(1);

/// Hands out clients, and keeps what they share: connections, zones, queues, budgets.
pub(in crate::solver) struct Clients {
    clock: Arc<dyn Clock>,
    installation: String,
    guard: Guard,
    http: Ways,
    known: Cache<ClientKey, Arc<Cloudflare>>,
    upcoming: Upcoming,
    budgets: Budgets,
}

/// The ways to the API.
struct Ways {
    /// For a `ClusterIssuer`, which only administrators write.
    open: Client,
    /// For an Issuer, to Cloudflare itself.
    guarded: Client,
    /// For an Issuer with a `baseURL`. A token goes there: only the operator's list says where.
    listed: Client,
}

/// The token only as its digest: keys of a map are easily logged.
#[derive(PartialEq, Eq, Hash)]
struct ClientKey {
    base_url: Option<String>,
    token_digest: Vec<u8>,
    zone_id: Option<String>,
    kind: Kind,
}

impl Clients {
    /// Records are marked as written by `installation`.
    pub(in crate::solver) fn new(
        clock: Arc<dyn Clock>,
        installation: String,
        guard: &Guard,
        upcoming: Upcoming,
    ) -> Result<Self, reqwest::Error> {
        Ok(Self {
            clock,
            installation,
            guard: guard.clone(),
            http: Ways {
                open: Client::open(http_client())?,
                guarded: Client::guarded(http_client(), guard.clone())?,
                listed: Client::guarded(http_client(), guard.listed_only())?,
            },
            known: Cache::builder().max_capacity(MAX_CLIENTS).time_to_idle(CLIENT_IDLE).build(),
            upcoming,
            budgets: Budgets::new(),
        })
    }

    /// The client for a token, as an issuer of this kind configures it.
    pub(in crate::solver) fn of(
        &self,
        kind: Kind,
        config: &issuer::Cloudflare,
        token: &Secret<String>,
    ) -> Result<Arc<dyn DnsProvider>, Failure> {
        let digest =
            aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.expose().as_bytes());
        let key = ClientKey {
            base_url: config.base_url.clone(),
            token_digest: digest.as_ref().to_vec(),
            zone_id: config.zone_id.clone(),
            kind,
        };
        let http = match (kind, &config.base_url) {
            (Kind::ClusterIssuer, _) => &self.http.open,
            (Kind::Issuer, None) => &self.http.guarded,
            (Kind::Issuer, Some(_)) => &self.http.listed,
        };
        if let Some(base) = &config.base_url {
            self.check_base(kind, base)?;
        }
        let access = Access {
            base_url: config.base_url.as_deref(),
            token,
            zone_id: config.zone_id.as_deref(),
            upcoming: &self.upcoming,
            budgets: &self.budgets,
        };
        let client = self.known.try_get_with(key, || {
            let clock = Arc::clone(&self.clock);
            Cloudflare::new(http.clone(), access, clock, &self.installation).map(Arc::new)
        });
        client.map(|client| client as Arc<dyn DnsProvider>).map_err(|failure| (*failure).clone())
    }

    /// Refuses a base URL by which a token would leave in clear, or go where it may not.
    fn check_base(&self, kind: Kind, base: &str) -> Result<(), Failure> {
        let refuse = |why: String| Err(Failure::of(code::CLOUDFLARE_INVALID_BASE_URL, why));
        let url = match Url::parse(base) {
            Ok(url) => url,
            Err(error) => return refuse(format!("It is no URL: {error}.")),
        };
        if !self.guard.keeps_secrets(&url) {
            return refuse("The token would be sent in clear: use https.".to_owned());
        }
        if kind == Kind::ClusterIssuer {
            return Ok(());
        }
        match self.guard.listed_only().check(&url) {
            Ok(()) => Ok(()),
            Err(_) => refuse(
                "An Issuer's token goes to no host but Cloudflare's and those that the setting \
                 `outbound.allow` lists."
                    .to_owned(),
            ),
        }
    }
}
