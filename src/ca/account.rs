//! An account at a CA: what may ask for certificates.

use std::sync::Arc;

use serde_json::Value;
use time::{Duration, OffsetDateTime};

use super::ask::{ask, post};
use super::authorization_cache::AuthorizationCache;
use super::call::{Asked, Call, Request, Signed};
use super::directory::{Directory, Endpoint};
use super::exchange::Exchange;
use crate::acme::jose::Signer;
use crate::clock::Clock;
use crate::domain::failure::Failure;

/// An account with its key. It is immutable, and clones are cheap.
#[derive(Clone)]
pub struct Account {
    pub(super) url: String,
    pub(super) thumbprint: String,
    pub(super) signer: Arc<Signer>,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) directory: Arc<Directory>,
    pub(super) clock: Arc<dyn Clock>,
    /// When this process first heard of it. A CA that does not know it within the next minutes may
    /// be lagging behind: it may have been registered just before, perhaps by another replica.
    pub(super) seen: OffsetDateTime,
    pub(super) authorizations: AuthorizationCache,
}

impl Account {
    /// Its URL: its name towards the CA.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The CA's names for itself in CAA records, as its directory has them.
    pub fn caa_identities(&self) -> &[String] {
        self.directory.caa_identities()
    }

    /// The key authorization for a challenge with this token (RFC 8555, section 8.1).
    pub fn key_authorization(&self, token: &str) -> String {
        format!("{token}.{}", self.thumbprint)
    }

    pub(super) fn asked(&self, call: Call, age: Option<Duration>) -> Asked {
        Asked { call, age, account_age: Some(self.clock.now() - self.seen) }
    }

    /// Signs and sends `payload`.
    pub(super) async fn post(
        &self,
        asked: Asked,
        url: &str,
        payload: &Value,
    ) -> Result<Exchange, Failure> {
        post(self.endpoint.client(), asked, self.signed(url, Some(payload))).await
    }

    /// Reads what is at a URL (POST-as-GET), again where it cannot be read.
    pub(super) async fn fetch<T>(
        &self,
        asked: Asked,
        url: &str,
        read: impl Fn(Exchange) -> Result<T, Failure> + Send,
    ) -> Result<T, Failure> {
        let request = Request::Post(self.signed(url, None));
        ask(self.endpoint.client(), asked, request, read).await
    }

    fn signed<'a>(&'a self, url: &'a str, payload: Option<&'a Value>) -> Signed<'a> {
        let (signer, new_nonce) = (&*self.signer, &self.directory.new_nonce);
        Signed { signer, new_nonce, account: Some(&self.url), url, payload }
    }
}
