//! Certificate authorities over ACME (RFC 8555).
//!
//! The module makes single calls: it never waits for the CA's state to change, and it remembers nothing
//! that could not be asked again. Every answer, refusal and silence of a CA becomes a [`Failure`] with
//! its class (`classify`). Keys, identifiers and statuses are instant-acme's; requests are signed by
//! `crate::acme` and sent by `http`.
//!
//! The module knows nothing of the database: keys and URLs come in and go out as values, and the caller
//! stores them *before* the call that depends on them.

mod account;
mod account_change;
mod ask;
mod authorities;
mod authorization_cache;
mod call;
mod classify;
mod directory;
mod exchange;
#[cfg(feature = "failpoints")]
pub(crate) mod fuzzing;
mod http;
mod limiter;
mod meter;
mod new_order;
mod order;
mod origins;
mod registration;
mod renewal;
mod skew;
mod state;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use instant_acme::Key;
use moka::sync::Cache;
use time::OffsetDateTime;
use url::Url;
use zeroize::Zeroize as _;

pub use account::Account;
pub use authorities::Authorities;
pub use limiter::Limiter;
pub use meter::Meter;
pub use order::{Download, Order};
pub use state::{
    Authorization, AuthorizationStatus, ChallengeKind, ChallengeStatus, Offered, OrderState,
    OrderStatus,
};

pub use registration::{ExternalKey, Registration, mac_key};

use crate::acme::jose::{JoseError, Signer};
use crate::clock::Clock;
use crate::domain::failure::Failure;
use crate::domain::issuer::Acme;
use crate::domain::skew::Skew;
use crate::outbound::Guard;
use crate::secret::Secret;
use ask::signer;
use authorization_cache::AuthorizationCache;
use classify::unusable_key;
use directory::Endpoint;
use http::{CaClient, Sent};
use skew::Skews;

/// Differently reached CAs that are kept at hand.
const MOST_ENDPOINTS: u64 = 64;
/// Accounts that are kept at hand.
const MOST_ACCOUNTS: u64 = 1_024;

/// The way to every CA that issuers name.
pub struct Ca {
    clock: Arc<dyn Clock>,
    endpoints: Cache<EndpointKey, Arc<Endpoint>>,
    accounts: Cache<AccountKey, Arc<Account>>,
    authorizations: AuthorizationCache,
    sent: Arc<Sent>,
    skews: Arc<Skews>,
    timeout: Duration,
    guard: Option<Guard>,
}

/// Server, roots, whether they matter, and which hosts are the CA's beside its own.
type EndpointKey = (String, Option<String>, bool, Vec<String>);
/// Endpoint, account URL and the digest of its key.
type AccountKey = (EndpointKey, String, Vec<u8>);

/// Requests that went out since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Requests {
    pub all: u64,
    /// Those that asked for nothing but a nonce.
    pub for_nonces: u64,
}

impl Ca {
    /// Knows no CA yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            endpoints: Cache::new(MOST_ENDPOINTS),
            accounts: Cache::new(MOST_ACCOUNTS),
            authorizations: AuthorizationCache::new(),
            sent: Arc::default(),
            skews: Arc::default(),
            timeout: http::TOTAL_TIMEOUT,
            guard: None,
        }
    }

    /// Restricts CAs to addresses that the guard permits, since tenants name them.
    #[must_use]
    pub fn guarded(self, guard: Guard) -> Self {
        Self { guard: Some(guard), ..self }
    }

    /// Sets the timeout for a CA's answer; `finalize` may take three times as long.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// A new account key: ECDSA P-256, PKCS#8 in DER. To be stored before it is registered.
    pub fn generate_account_key() -> Result<Secret<Vec<u8>>, Failure> {
        let generated = Key::generate_pkcs8().map_err(|_| unusable_key(JoseError::Key));
        let (_, mut pkcs8) = generated?;
        let key = Secret::new(pkcs8.secret_pkcs8_der().to_vec());
        pkcs8.zeroize();
        Ok(key)
    }

    /// A registered account, ready for use. Asks the CA for its directory now and then.
    pub async fn account(
        &self,
        acme: &Acme,
        key: &Secret<Vec<u8>>,
        url: &str,
    ) -> Result<Arc<Account>, Failure> {
        let endpoint = self.endpoint(acme)?;
        let directory = endpoint.directory().await?;
        let digest = digest(&SHA256, key.expose()).as_ref().to_vec();
        let name = (endpoint_key(acme), url.to_owned(), digest);
        let known = self.accounts.get(&name);
        if let Some(account) = &known
            && Arc::ptr_eq(&account.directory, &directory)
        {
            return Ok(account.clone());
        }
        let seen = known.map_or_else(|| self.clock.now(), |account| account.seen);
        let signer = signer(key)?;
        if !matches!(signer, Signer::P256(_)) {
            return Err(unusable_key(JoseError::Key));
        }
        let account = Account {
            url: url.to_owned(),
            thumbprint: signer.thumbprint().map_err(unusable_key)?,
            signer: Arc::new(signer),
            endpoint,
            directory,
            clock: self.clock.clone(),
            seen,
            authorizations: self.authorizations.clone(),
        };
        let account = Arc::new(account);
        self.accounts.insert(name, account.clone());
        Ok(account)
    }

    /// The certificate profiles that the CA offers, with their descriptions.
    pub async fn profiles(&self, acme: &Acme) -> Result<BTreeMap<String, String>, Failure> {
        let directory = self.endpoint(acme)?.directory().await?;
        Ok(directory.profiles().clone())
    }

    /// The CA's names for itself in CAA records.
    pub async fn caa_identities(&self, acme: &Acme) -> Result<Vec<String>, Failure> {
        Ok(self.endpoint(acme)?.directory().await?.caa_identities().to_vec())
    }

    /// The same, if they are known without asking the CA.
    pub fn known_caa_identities(&self, acme: &Acme) -> Option<Vec<String>> {
        let directory = self.endpoint(acme).ok()?.known_directory()?;
        Some(directory.caa_identities().to_vec())
    }

    /// The number of requests to all CAs so far.
    pub fn requests(&self) -> Requests {
        Requests {
            all: self.sent.all.load(Relaxed),
            for_nonces: self.sent.for_nonces.load(Relaxed),
        }
    }

    /// How far our clock is ahead of that of the CA whose differs most, by its answers of late.
    pub fn skew(&self, now: OffsetDateTime) -> Option<Skew> {
        self.skews.largest(now)
    }

    /// The same for the CA at this directory.
    pub fn skew_with(&self, server: &str, now: OffsetDateTime) -> Option<Skew> {
        self.skews.with(Url::parse(server).ok()?.host_str()?, now)
    }

    fn endpoint(&self, acme: &Acme) -> Result<Arc<Endpoint>, Failure> {
        let made = self.endpoints.try_get_with(endpoint_key(acme), || {
            let seen = (self.sent.clone(), self.skews.clone());
            let guard = self.guard.as_ref();
            let client = CaClient::new(acme, guard, self.clock.clone(), seen, self.timeout)?;
            Ok(Arc::new(Endpoint::new(&acme.server, client, self.clock.clone())))
        });
        made.map_err(|failure: Arc<Failure>| Failure::clone(&failure))
    }
}

fn endpoint_key(acme: &Acme) -> EndpointKey {
    let Acme { server, ca_bundle, skip_tls_verify, allowed_origins, .. } = acme.clone();
    (server, ca_bundle, skip_tls_verify, allowed_origins)
}
