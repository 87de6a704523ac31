//! Tokens of OIDC issuers: JWTs (RFC 7519) whose signatures are verified with the keys that the issuer publishes
//! (OpenID Connect Discovery 1.0).
//!
//! Whom to trust stands in the configuration, so the issuers are asked without the guard for hosts that tenants name.
//! A token that cannot be verified is refused: also while the issuer is away and its keys are not cached.

use std::sync::Arc;

use thiserror::Error;
use time::OffsetDateTime;

use crate::domain::access_rule::grant;
use crate::domain::role::Role;
use crate::domain::scope::Scope;
use crate::domain::token_issuer::TokenIssuer;

mod discovery;
#[cfg(feature = "failpoints")]
pub(crate) mod fuzzing;
mod key_cache;
mod key_set;
mod token;

use discovery::Discovery;
use key_cache::{KeyCache, KeyError};
use token::{Unverified, check_claims, quoted};

/// The issuers whose tokens are taken. A cheap handle.
#[derive(Clone, Default)]
pub struct Issuers(Arc<[Issuer]>);

struct Issuer {
    settings: TokenIssuer,
    keys: KeyCache,
}

/// What a token says, once it is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    pub issuer: String,
    pub subject: String,
    /// The leeway for clocks that differ included.
    pub expires_at: OffsetDateTime,
    pub role: Role,
    pub scope: Scope,
}

/// Why a token lets nobody in.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TokenError {
    #[error("The token is refused: {0}.")]
    Refused(String),
    #[error(
        "The token of `{subject}` is valid, but no rule for its issuer `{issuer}` matches its claims (the setting `oidc.issuers`)."
    )]
    NoRule { issuer: String, subject: String },
    #[error(
        "The keys of the OIDC issuer `{issuer}` cannot be fetched at the moment, so that its tokens cannot be verified. Send the request again in a minute, or use an API key; the log of the service has the cause."
    )]
    Unavailable { issuer: String },
}

impl TokenError {
    fn unknown_issuer(issuer: &str) -> Self {
        Self::Refused(format!("its issuer `{}` is not configured here", quoted(issuer)))
    }
}

impl Issuers {
    /// Asks nobody yet: an issuer that is away at the start is asked again with the first token.
    pub fn new(settings: Vec<TokenIssuer>) -> Result<Self, reqwest::Error> {
        let issuer = |settings: TokenIssuer| {
            let keys = KeyCache::new(Discovery::new(&settings)?);
            Ok(Issuer { settings, keys })
        };
        settings.into_iter().map(issuer).collect::<Result<_, _>>().map(Self)
    }

    /// The issuers, as they are configured.
    pub fn settings(&self) -> impl Iterator<Item = &TokenIssuer> {
        self.0.iter().map(|issuer| &issuer.settings)
    }

    /// Verifies a token, and looks up what its bearer is granted.
    pub async fn verify(&self, token: &str, now: OffsetDateTime) -> Result<Verified, TokenError> {
        let unverified = Unverified::read(token)?;
        let Issuer { settings, keys } = self
            .0
            .iter()
            .find(|known| known.settings.issuer == unverified.issuer)
            .ok_or_else(|| TokenError::unknown_issuer(&unverified.issuer))?;
        let issuer = settings.issuer.clone();
        let key = match keys.key(&unverified, now).await {
            Ok(key) => key,
            Err(KeyError::Unknown) => {
                let detail = "its issuer publishes no key that it could be signed with (new keys are looked for once a minute)";
                return Err(TokenError::Refused(detail.to_owned()));
            }
            Err(KeyError::Unavailable) => return Err(TokenError::Unavailable { issuer }),
        };
        let claims = unverified.verify(&key)?;
        let (subject, expires_at) = check_claims(&claims, settings, now)?;
        match grant(&settings.rules, &claims) {
            Some((role, scope)) => Ok(Verified { issuer, subject, expires_at, role, scope }),
            None => Err(TokenError::NoRule { issuer, subject }),
        }
    }
}
