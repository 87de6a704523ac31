//! The solvers that issuers ask for, with everything shared that can be.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::net::NetError;
use moka::sync::Cache;
use url::Url;

use super::cloudflare::{Access, Budgets, Cloudflare, http_client};
use super::dns::Dns;
use super::dns01::Dns01;
use super::http01::Http01;
use super::{Solver, Upcoming};
use crate::clock::Clock;
use crate::domain::failure::{Failure, code};
use crate::domain::issuer::{self, Kind};
use crate::outbound::{Client, Guard};
use crate::secret::Secret;

/// Cloudflare clients that are kept: one per token, base URL and zone.
const MAX_CLIENTS: u64 = 1000;
const CLIENT_IDLE: Duration = Duration::from_hours(1);

/// Lists of resolvers that issuers gave, and that are kept.
const MAX_RESOLVERS: u64 = 100;

/// So that with its prefix and the challenge's id a comment stays below Cloudflare's 100.
const MAX_INSTALLATION: usize = 48;

/// What the solvers share.
pub struct SolverSettings {
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
    /// Marks records as written by this installation; letters, digits, `-`, `_` and `.`.
    pub installation: String,
    /// Resolvers; the system's where empty.
    pub nameservers: Vec<SocketAddr>,
    /// Where authoritative servers listen: 53 but in tests.
    pub authority_port: u16,
    /// Where HTTP-01 is looked at: 80 but in tests.
    pub self_check_port: u16,
    /// Says where may be connected to on behalf of clients.
    pub guard: Guard,
}

/// Why there can be no solvers.
#[derive(Debug, thiserror::Error)]
pub enum SolverSetupError {
    /// The installation's name does not fit into a comment.
    #[error("the installation's name must be 1 to {MAX_INSTALLATION} letters, digits, - _ or .")]
    Installation,
    /// There is no usable resolver.
    #[error("no resolver can be set up")]
    Resolver(#[source] NetError),
    /// There is no usable HTTP client.
    #[error("no HTTP client can be set up")]
    Http(#[source] reqwest::Error),
}

/// Hands out solvers, and keeps what they share: connections, zones, queues, budgets.
pub struct Solvers {
    clock: Arc<dyn Clock>,
    installation: String,
    authority_port: u16,
    guard: Guard,
    http: Ways,
    dns: Arc<Dns>,
    http01: Arc<Http01>,
    clients: Cache<ClientKey, Arc<Cloudflare>>,
    resolvers: Cache<(Vec<SocketAddr>, Kind), Arc<Dns>>,
    upcoming: Upcoming,
    budgets: Budgets,
}

/// The ways to a provider's API.
struct Ways {
    /// For a `ClusterIssuer`, which only administrators write.
    open: Client,
    /// For an Issuer, to the provider itself.
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

impl Solvers {
    /// Sets up what the solvers share.
    pub fn new(settings: SolverSettings) -> Result<Self, SolverSetupError> {
        if !fits_a_comment(&settings.installation) {
            return Err(SolverSetupError::Installation);
        }
        let guard = settings.guard;
        let dns = Dns::new(&settings.nameservers, settings.authority_port, guard.clone())
            .map_err(SolverSetupError::Resolver)?;
        let http01 =
            Http01::new(&guard, settings.self_check_port).map_err(SolverSetupError::Http)?;
        let http = Ways {
            open: Client::open(http_client()).map_err(SolverSetupError::Http)?,
            guarded: Client::guarded(http_client(), guard.clone())
                .map_err(SolverSetupError::Http)?,
            listed: Client::guarded(http_client(), guard.listed_only())
                .map_err(SolverSetupError::Http)?,
        };
        Ok(Self {
            clock: settings.clock,
            installation: settings.installation,
            authority_port: settings.authority_port,
            guard,
            http,
            dns: Arc::new(dns),
            http01: Arc::new(http01),
            clients: Cache::builder().max_capacity(MAX_CLIENTS).time_to_idle(CLIENT_IDLE).build(),
            resolvers: Cache::new(MAX_RESOLVERS),
            upcoming: Upcoming::default(),
            budgets: Budgets::new(),
        })
    }

    /// Where whoever will want a proof shown within moments says so.
    pub fn upcoming(&self) -> &Upcoming {
        &self.upcoming
    }

    /// The solver of an issuer of this kind; `token` is what its provider's secret reference names.
    pub fn solver(
        &self,
        kind: Kind,
        config: &issuer::Solver,
        token: Option<&Secret<String>>,
    ) -> Result<Arc<dyn Solver>, Failure> {
        match (&config.http01, &config.dns01) {
            (Some(_), None) => Ok(Arc::clone(&self.http01) as Arc<dyn Solver>),
            (None, Some(dns01)) => Ok(Arc::new(self.dns01(kind, dns01, token)?)),
            (None, None) | (Some(_), Some(_)) => {
                Err(unusable("a solver needs one of `http01` and `dns01`"))
            }
        }
    }

    fn dns01(
        &self,
        kind: Kind,
        config: &issuer::Dns01,
        token: Option<&Secret<String>>,
    ) -> Result<Dns01, Failure> {
        let cloudflare =
            config.cloudflare.as_ref().ok_or_else(|| unusable("`dns01` needs a provider"))?;
        let token = token.ok_or_else(|| {
            Failure::of(
                code::CLOUDFLARE_TOKEN_MISSING,
                format!("The Secret {} does not hold it.", cloudflare.api_token_secret_ref.name),
            )
        })?;
        Ok(Dns01 {
            provider: self.cloudflare(kind, cloudflare, token)?,
            dns: self.dns(kind, &config.nameservers)?,
            strategy: config.cname_strategy,
            propagation: config.propagation.mode,
        })
    }

    /// The records that a token can edit.
    pub fn cloudflare(
        &self,
        kind: Kind,
        config: &issuer::Cloudflare,
        token: &Secret<String>,
    ) -> Result<Arc<Cloudflare>, Failure> {
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
        self.clients
            .try_get_with(key, || {
                let clock = Arc::clone(&self.clock);
                Cloudflare::new(http.clone(), access, clock, &self.installation).map(Arc::new)
            })
            .map_err(|failure: Arc<Failure>| (*failure).clone())
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

    fn dns(&self, kind: Kind, nameservers: &[String]) -> Result<Arc<Dns>, Failure> {
        if nameservers.is_empty() {
            return Ok(Arc::clone(&self.dns));
        }
        let nameservers: Vec<SocketAddr> =
            nameservers.iter().map(|text| nameserver(text)).collect::<Result<_, _>>()?;
        if kind == Kind::Issuer {
            for server in &nameservers {
                let host = server.ip().to_string();
                let checked = self.guard.check_address(&host, server.ip());
                checked.map_err(|refused| {
                    Failure::of(code::DNS_ADDRESS_FORBIDDEN, refused.to_string())
                })?;
            }
        }
        let key = (nameservers, kind);
        self.resolvers
            .try_get_with_by_ref(&key, || {
                Dns::new(&key.0, self.authority_port, self.guard.clone()).map(Arc::new)
            })
            .map_err(|error: Arc<NetError>| {
                // It is not known that a person has to do with it.
                Failure::of(code::RESOLVER_UNAVAILABLE, error.to_string())
            })
    }
}

fn fits_a_comment(installation: &str) -> bool {
    (1..=MAX_INSTALLATION).contains(&installation.len())
        && installation.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c))
}

fn nameserver(text: &str) -> Result<SocketAddr, Failure> {
    let with_port = text.parse::<SocketAddr>();
    with_port
        .or_else(|_| text.parse::<IpAddr>().map(|address| SocketAddr::new(address, 53)))
        .map_err(|_| {
            unusable(&format!("`{text}` is not the address of a resolver, such as 9.9.9.9:53"))
        })
}

fn unusable(detail: &str) -> Failure {
    Failure::of(code::SOLVER_INVALID, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_addresses_with_or_without_a_port() {
        assert_eq!(nameserver("9.9.9.9").unwrap().to_string(), "9.9.9.9:53");
        assert_eq!(nameserver("[2620:fe::fe]:5353").unwrap().port(), 5353);
        assert!(nameserver("https://dns.example/").is_err());
    }

    #[test]
    fn an_installation_fits_into_a_comment_with_a_challenge() {
        let longest = "i".repeat(MAX_INSTALLATION);

        assert!(fits_a_comment(&longest));
        assert!(format!("certwright {longest} {}", uuid::Uuid::nil()).len() < 100);
        assert!(!fits_a_comment(""));
        assert!(!fits_a_comment("two words"));
    }
}
