//! Asks an issuer for its keys: by its discovery document, which names where they are.

use std::time::Duration;

use reqwest::{Method, redirect};
use serde::Deserialize;
use thiserror::Error;
use url::Url;

use super::key_set::KeySet;
use crate::domain::token_issuer::TokenIssuer;
use crate::outbound::Client;

const TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of an answer: the largest sets of keys have some ten thousand.
const MOST_BYTES: usize = 256 * 1024;

/// Where an issuer's keys are looked for.
#[derive(Clone)]
pub(super) struct Discovery {
    issuer: String,
    http: Client,
}

#[derive(Deserialize)]
struct Document {
    issuer: String,
    jwks_uri: String,
}

/// Why there are no keys. For the log only.
#[derive(Debug, Error)]
pub(super) enum DiscoveryError {
    #[error("{0} cannot be asked")]
    Unreachable(String, #[source] reqwest::Error),
    #[error("{url} answered with status {status}")]
    Status { url: String, status: u16 },
    #[error("the answer of {0} is larger than {MOST_BYTES} bytes")]
    TooLarge(String),
    #[error("{0} cannot be read")]
    Unreadable(String, #[source] serde_json::Error),
    #[error("{url} is about another issuer, `{found}`")]
    OtherIssuer { url: String, found: String },
    #[error("{0} is no URL that may be asked: `jwks_uri` has to begin with `https://`")]
    Insecure(String),
}

impl Discovery {
    pub(super) fn new(settings: &TokenIssuer) -> Result<Self, reqwest::Error> {
        let agent = concat!("certwright/", env!("CARGO_PKG_VERSION"));
        let mut builder = reqwest::Client::builder()
            .user_agent(agent)
            .timeout(TIMEOUT)
            .redirect(redirect::Policy::none());
        if let Some(pem) = &settings.ca_bundle {
            builder = builder.tls_certs_merge(reqwest::Certificate::from_pem_bundle(pem)?);
        }
        Ok(Self { issuer: settings.issuer.clone(), http: Client::open(builder)? })
    }

    pub(super) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The keys that the issuer publishes now.
    pub(super) async fn keys(&self) -> Result<KeySet, DiscoveryError> {
        let place =
            format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/'));
        let url = Url::parse(&place).map_err(|_| DiscoveryError::Insecure(place))?;
        let unreadable = |url: &Url| {
            let url = url.to_string();
            move |error| DiscoveryError::Unreadable(url, error)
        };
        let document: Document =
            serde_json::from_slice(&self.get(&url).await?).map_err(unreadable(&url))?;
        if document.issuer != self.issuer {
            let found = document.issuer.chars().take(200).collect();
            return Err(DiscoveryError::OtherIssuer { url: url.into(), found });
        }
        let keys = Url::parse(&document.jwks_uri)
            .map_err(|_| DiscoveryError::Insecure(document.jwks_uri))?;
        // Plain HTTP is for an issuer that itself is on this machine, which the configuration has checked.
        if keys.scheme() != "https" && (keys.scheme(), keys.host()) != (url.scheme(), url.host()) {
            return Err(DiscoveryError::Insecure(keys.into()));
        }
        KeySet::parse(&self.get(&keys).await?).map_err(unreadable(&keys))
    }

    async fn get(&self, url: &Url) -> Result<Vec<u8>, DiscoveryError> {
        let unreachable = |error: reqwest::Error| {
            DiscoveryError::Unreachable(url.to_string(), error.without_url())
        };
        let request = self.http.request(Method::GET, url);
        let request = request.map_err(|_| DiscoveryError::Insecure(url.to_string()))?;
        let mut response =
            request.header("accept", "application/json").send().await.map_err(unreachable)?;
        if !response.status().is_success() {
            let status = response.status().as_u16();
            return Err(DiscoveryError::Status { url: url.to_string(), status });
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            body.extend_from_slice(&chunk);
            if body.len() > MOST_BYTES {
                return Err(DiscoveryError::TooLarge(url.to_string()));
            }
        }
        Ok(body)
    }
}
