//! Who asks, and what they may do.
//!
//! Each handler names the permission that it needs in its signature: [`Authorized`]. A key that is
//! deleted is refused from the next request on; by other replicas as soon as they hear of it, and within a
//! second if they do not.

use std::marker::PhantomData;
use std::ops::Deref;

use axum::extract::FromRequestParts;
use axum::http::{header, request::Parts};

use super::AppState;
use super::problem::{ApiError, Code};
use crate::domain::api_key;
use crate::domain::id::ApiKeyId;
use crate::storage::{Scope, StorageError, api_keys};

/// The bearer of an API key.
#[derive(Debug, Clone)]
pub(crate) struct Principal {
    /// The key's row.
    pub(crate) key: ApiKeyId,
    /// The key's name.
    pub(crate) name: String,
    /// What it may do.
    pub(crate) permissions: Vec<String>,
    /// Where.
    pub(crate) scope: Scope,
    /// What the key is known by.
    hash: Vec<u8>,
    /// Known only while the key is at hand: makes fingerprints of its requests that nobody who
    /// reads the database can guess the contents from.
    pub(crate) pepper: Vec<u8>,
}

impl Principal {
    /// Whether it is bound to namespaces.
    pub(crate) fn is_bound(&self) -> bool {
        matches!(self.scope, Scope::Namespaces(_))
    }

    /// Whether it may do this.
    pub(crate) fn may(&self, permission: &str) -> bool {
        permits(&self.permissions, permission)
    }

    /// Where it may do `P` now, for an answer that goes on for long: nowhere any more, once the key
    /// is deleted. From memory, most of the time.
    pub(crate) async fn still<P: Permission>(
        &self,
        app: &AppState,
    ) -> Result<Option<Scope>, StorageError> {
        let known = api_keys::recognise(&app.db, &self.hash).await?;
        let known = known.filter(|key| permits(&key.permissions, P::NAME));
        Ok(known.map(|key| beyond(&app.cluster_namespace, key.scope)))
    }

    /// The same, looked up: for what nobody has told of.
    pub(crate) async fn look_up<P: Permission>(
        &self,
        app: &AppState,
    ) -> Result<Option<Scope>, StorageError> {
        let mut tx = app.db.read().await?;
        let known = api_keys::find(&mut tx, self.key).await?;
        let known = known.filter(|key| permits(&key.permissions, P::NAME));
        Ok(known.map(|key| beyond(&app.cluster_namespace, key.scope)))
    }

    /// Refuses the rest of a request that has taken long, if its key has been deleted meanwhile, or may do
    /// something else.
    pub(crate) async fn must_hold(&self, app: &AppState) -> Result<(), ApiError> {
        let known = api_keys::recognise(&app.db, &self.hash).await?;
        let known = known.ok_or_else(|| refused(UNKNOWN))?;
        if known.permissions == self.permissions
            && beyond(&app.cluster_namespace, known.scope) == self.scope
        {
            return Ok(());
        }
        let detail = "What the API key may do has changed meanwhile. Ask again.";
        Err(ApiError::Because(Code::PermissionDenied, detail.to_owned()))
    }

    /// Refuses whoever may not do this.
    pub(crate) fn must(&self, permission: &str) -> Result<(), ApiError> {
        if self.may(permission) {
            return Ok(());
        }
        let detail = format!("The API key `{}` lacks the permission `{permission}`.", self.name);
        Err(ApiError::Because(Code::PermissionDenied, detail))
    }

    /// Refuses what would be made or changed outside the key's namespaces. The empty namespace is
    /// that of a `ClusterIssuer`, which serves all: only a key of all namespaces may change it.
    pub(crate) fn must_own(&self, namespace: &str) -> Result<(), ApiError> {
        let owns = match &self.scope {
            Scope::Everything => true,
            Scope::Namespaces(names) => names.iter().any(|name| name == namespace),
        };
        if owns {
            return Ok(());
        }
        let detail = match namespace {
            "" => "The API key is bound to namespaces and may not change a ClusterIssuer.".into(),
            _ => format!("The API key may not act in the namespace `{namespace}`."),
        };
        Err(ApiError::Because(Code::PermissionDenied, detail))
    }
}

const UNKNOWN: &str = "The API key is not known (any more).";

/// Where a key may be: what `ClusterIssuer`s refer to is out of reach for keys that are bound, also
/// for one that was bound to that namespace before it became theirs.
fn beyond(cluster_namespace: &str, scope: Scope) -> Scope {
    match scope {
        Scope::Everything => Scope::Everything,
        Scope::Namespaces(mut names) => {
            names.retain(|name| name != cluster_namespace);
            Scope::Namespaces(names)
        }
    }
}

fn permits(permissions: &[String], permission: &str) -> bool {
    permissions.iter().any(|known| known == "*" || known == permission)
}

impl FromRequestParts<AppState> for Principal {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, ApiError> {
        let Some(given) = parts.headers.get(header::AUTHORIZATION) else {
            return Err(refused("Send an API key: `Authorization: Bearer cw_…`."));
        };
        let key = given
            .to_str()
            .ok()
            .and_then(|text| text.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("Bearer"))
            .map(|(_, key)| key.trim())
            .filter(|key| api_key::is_well_formed(key))
            .ok_or_else(|| refused("What was sent is not an API key: `Bearer cw_…` is wanted."))?;
        let hash = api_key::hash_key(key);
        let known = api_keys::recognise(&app.db, &hash).await?;
        let known = known.ok_or_else(|| refused(UNKNOWN))?;
        Ok(Self {
            key: known.id,
            name: known.name,
            permissions: known.permissions,
            scope: beyond(&app.cluster_namespace, known.scope),
            hash,
            pepper: api_key::hash_key(&format!("requests of {key}")),
        })
    }
}

/// A principal that may write some of what manifests are about; which of it, the manifests say.
pub(crate) struct AnyWriter(pub(crate) Principal);

impl FromRequestParts<AppState> for AnyWriter {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, ApiError> {
        let principal = Principal::from_request_parts(parts, app).await?;
        if principal.may(SecretsWrite::NAME) || principal.may(IssuersWrite::NAME) {
            return Ok(Self(principal));
        }
        principal.must(CertificatesWrite::NAME).map(|()| Self(principal))
    }
}

fn refused(detail: &str) -> ApiError {
    ApiError::Because(Code::Unauthenticated, detail.to_owned())
}

/// Something that an API key may be allowed to do.
pub(crate) trait Permission {
    /// The word for it in an API key's permissions.
    const NAME: &'static str;
}

macro_rules! permissions {
    ($($name:ident = $word:literal;)*) => {$(
        #[doc = concat!("`", $word, "`")]
        pub(crate) struct $name;
        impl Permission for $name {
            const NAME: &'static str = $word;
        }
        )*
        /// Every permission that there is.
        pub(crate) const KNOWN: &[&str] = &[$($word),*];
    };
}

permissions! {
    CertificatesRead = "certificates:read";
    CertificatesWrite = "certificates:write";
    CertificatesReadKey = "certificates:readKey";
    CertificatesImport = "certificates:import";
    RequestsRead = "requests:read";
    OrdersRead = "orders:read";
    ChallengesRead = "challenges:read";
    IssuersRead = "issuers:read";
    IssuersWrite = "issuers:write";
    SecretsRead = "secrets:read";
    SecretsWrite = "secrets:write";
    EventsRead = "events:read";
    ApiKeysRead = "apiKeys:read";
    ApiKeysWrite = "apiKeys:write";
    WebhooksRead = "webhooks:read";
    WebhooksWrite = "webhooks:write";
}

/// A principal that has the permission `P`.
pub(crate) struct Authorized<P>(Principal, PhantomData<P>);

impl<P> Deref for Authorized<P> {
    type Target = Principal;

    fn deref(&self) -> &Principal {
        &self.0
    }
}

impl<P: Permission + Send> FromRequestParts<AppState> for Authorized<P> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, ApiError> {
        let principal = Principal::from_request_parts(parts, app).await?;
        principal.must(P::NAME)?;
        Ok(Self(principal, PhantomData))
    }
}
