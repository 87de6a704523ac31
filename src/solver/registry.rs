//! The solvers that issuers ask for, with everything shared that can be.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hickory_resolver::net::NetError;
use moka::sync::Cache;

use super::caa::{Age, CaaRecords};
use super::dns01::propagation::Dns;
use super::dns01::{Dns01, DnsProvider, cloudflare};
use super::http01::Http01;
use super::{Solver, Upcoming};
use crate::clock::Clock;
use crate::domain::caa::{RelevantSet, Unknown};
use crate::domain::failure::{Failure, code};
use crate::domain::issuer::{self, Kind};
use crate::outbound::Guard;
use crate::secret::Secret;

/// Lists of resolvers that issuers gave, and that are kept.
const MAX_RESOLVERS: u64 = 100;

/// So that with its prefix and the challenge's id a comment stays below Cloudflare's 100.
const MAX_INSTALLATION: usize = 48;

/// Settings of the solvers.
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

/// Hands out solvers, and keeps what they share.
pub struct Solvers {
    authority_port: u16,
    guard: Guard,
    dns: Arc<Dns>,
    http01: Arc<Http01>,
    resolvers: Cache<(Vec<SocketAddr>, Kind), Arc<Dns>>,
    caa: CaaRecords,
    upcoming: Upcoming,
    cloudflare: cloudflare::Clients,
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
        let upcoming = Upcoming::default();
        let (clock, installation) = (settings.clock, settings.installation);
        let cloudflare = cloudflare::Clients::new(clock, installation, &guard, upcoming.clone())
            .map_err(SolverSetupError::Http)?;
        Ok(Self {
            authority_port: settings.authority_port,
            guard,
            dns: Arc::new(dns),
            http01: Arc::new(http01),
            resolvers: Cache::new(MAX_RESOLVERS),
            caa: CaaRecords::default(),
            upcoming,
            cloudflare,
        })
    }

    /// The counter of proofs that will be shown within moments.
    pub fn upcoming(&self) -> &Upcoming {
        &self.upcoming
    }

    /// The solver of an issuer of this kind; `secret` is what its provider's reference names.
    pub fn solver(
        &self,
        kind: Kind,
        config: &issuer::Solver,
        secret: Option<&Secret<String>>,
    ) -> Result<Arc<dyn Solver>, Failure> {
        match (&config.http01, &config.dns01) {
            (Some(_), None) => Ok(Arc::clone(&self.http01) as Arc<dyn Solver>),
            (None, Some(dns01)) => Ok(Arc::new(self.dns01(kind, dns01, secret)?)),
            (None, None) | (Some(_), Some(_)) => {
                Err(unusable("a solver needs one of `http01` and `dns01`"))
            }
        }
    }

    /// The CAA records that count for a name, as the resolvers of the name's solver find them; or why they are not
    /// known.
    pub async fn caa(
        &self,
        kind: Kind,
        solver: Option<&issuer::Solver>,
        name: &str,
        age: Age,
    ) -> Result<Option<RelevantSet>, Unknown> {
        let dns01 = solver.and_then(|solver| solver.dns01.as_ref());
        let nameservers = dns01.map_or(&[][..], |dns01| &dns01.nameservers);
        let dns = self.dns(kind, nameservers);
        let dns = dns.map_err(|failure| Unknown::Silent(failure.to_string()))?;
        self.caa.relevant(&dns, name, age).await
    }

    fn dns01(
        &self,
        kind: Kind,
        config: &issuer::Dns01,
        secret: Option<&Secret<String>>,
    ) -> Result<Dns01, Failure> {
        let provider = config.provider().ok_or_else(|| unusable("`dns01` needs a provider"))?;
        let secret = secret.ok_or_else(|| provider_without_secret(provider))?;
        Ok(Dns01 {
            provider: self.dns_provider(kind, provider, secret)?,
            dns: self.dns(kind, &config.nameservers)?,
            kind,
            config: config.clone(),
        })
    }

    /// The records that a provider's credential can edit.
    pub fn dns_provider(
        &self,
        kind: Kind,
        provider: issuer::DnsProvider<'_>,
        secret: &Secret<String>,
    ) -> Result<Arc<dyn DnsProvider>, Failure> {
        match provider {
            issuer::DnsProvider::Cloudflare(config) => self.cloudflare.of(kind, config, secret),
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

fn provider_without_secret(provider: issuer::DnsProvider<'_>) -> Failure {
    match provider {
        issuer::DnsProvider::Cloudflare(cloudflare) => Failure::of(
            code::CLOUDFLARE_TOKEN_MISSING,
            format!("The Secret {} does not hold it.", cloudflare.api_token_secret_ref.name),
        ),
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
