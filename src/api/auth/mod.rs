//! Authentication and authorization of requests.
//!
//! A [`Principal`] is the sender of a request; the submodules authenticate it, by an API key, a token of an OIDC
//! issuer or a client certificate. What stands in `Authorization` counts, also beside a certificate. Each handler names the permission that it needs in its signature: [`Authorized`]. A principal that is
//! revoked is refused from the next request on; by other replicas as soon as they hear of it, and within a second if
//! they do not.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use time::OffsetDateTime;

use super::AppState;
use super::audit::Caller;
use super::problem::{ApiError, Code};
use crate::domain::audit::Call;
use crate::domain::event_ticket::{Granted, Holder};
use crate::domain::id::PrincipalId;
use crate::domain::policy;
use crate::domain::principal::{PrincipalKind, PrincipalRef};
use crate::domain::role::Role;
use crate::server::PeerCertificate;
use crate::storage::{Scope, StorageError};

mod api_key;
mod client_certificate;
mod last_uses;
mod limits;
mod permission;
mod places;
pub(crate) mod ticket;
mod token;

pub use last_uses::LastUses;
pub(crate) use limits::network;
pub use limits::{CallerLimits, NamespaceLimits};
pub(crate) use places::Place;

pub(crate) use permission::{
    ApiKeysRead, ApiKeysWrite, AuditRead, CertificatesImport, CertificatesRead,
    CertificatesReadKey, CertificatesWrite, ChallengesRead, EventsRead, IssuersRead, IssuersWrite,
    KNOWN, MetricsRead, OrdersRead, Permission, Permissions, PoliciesRead, PoliciesWrite,
    RequestsApprove, RequestsRead, SecretsRead, SecretsWrite, ThrottlesRead, ThrottlesWrite,
    WebhooksRead, WebhooksWrite,
};

/// The sender of a request, and what it may do.
#[derive(Debug, Clone)]
pub(crate) struct Principal {
    pub(crate) subject: Subject,
    /// The subject's name for people.
    pub(crate) name: String,
    pub(crate) permissions: Permissions,
    pub(crate) scope: Scope,
    /// Derived from the credential, which is never stored: fingerprints of requests that are made with it tell a
    /// reader of the database nothing about their contents.
    pub(crate) pepper: Vec<u8>,
    /// The request, for the audit log.
    pub(crate) caller: Caller,
}

/// The identity that a request was authenticated as.
#[derive(Debug, Clone)]
pub(crate) enum Subject {
    ApiKey(api_key::Known),
    Token(token::Known),
    ClientCertificate(client_certificate::Known),
    /// Who used a ticket of a token or a client certificate.
    Ticket(ticket::Known),
}

/// The permissions of a subject, and where it has them.
#[derive(Debug)]
struct Grant {
    permissions: Permissions,
    scope: Scope,
}

impl Subject {
    pub(crate) fn id(&self) -> PrincipalId {
        match self {
            Self::ApiKey(key) => PrincipalId(key.id.0),
            Self::Token(token) => token.id,
            Self::ClientCertificate(certificate) => certificate.id,
            Self::Ticket(ticket) => ticket.id,
        }
    }

    fn noun(&self) -> &'static str {
        self.kind().noun()
    }

    pub(crate) fn kind(&self) -> PrincipalKind {
        match self {
            Self::ApiKey(_) => PrincipalKind::ApiKey,
            Self::Token(_) => PrincipalKind::Token,
            Self::ClientCertificate(_) => PrincipalKind::ClientCertificate,
            Self::Ticket(ticket) => ticket.kind,
        }
    }

    /// The OIDC issuer of a token.
    pub(crate) fn issuer(&self) -> Option<&str> {
        match self {
            Self::ApiKey(_) | Self::ClientCertificate(_) => None,
            Self::Token(token) => Some(&token.issuer),
            Self::Ticket(ticket) => ticket.issuer.as_deref(),
        }
    }

    /// The end that is known beforehand.
    pub(crate) fn expires_at(&self) -> Option<OffsetDateTime> {
        match self {
            Self::ApiKey(key) => key.expires_at,
            Self::Token(token) => Some(token.expires_at),
            Self::ClientCertificate(certificate) => Some(certificate.expires_at),
            Self::Ticket(ticket) => Some(ticket.expires_at),
        }
    }

    /// What it is granted now; `None` once it is revoked or has expired.
    async fn grant(&self, app: &AppState, from: Source) -> Result<Option<Grant>, StorageError> {
        match self {
            Self::ApiKey(key) => key.grant(app, from).await,
            Self::Token(token) => Ok(token.grant(app)),
            Self::ClientCertificate(certificate) => Ok(certificate.grant(app)),
            Self::Ticket(ticket) => Ok(ticket.grant(app)),
        }
    }
}

/// Where a grant is read from.
pub(crate) enum Source {
    /// Follows notifications, which may get lost.
    Cache,
    Database,
}

/// `API key` and its name.
impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reference().fmt(f)
    }
}

impl Grant {
    /// The Secrets of `ClusterIssuer`s are out of reach for a bound subject, even for one that was bound to their
    /// namespace before it became theirs.
    fn new(app: &AppState, role: Option<Role>, single: &[String], mut scope: Scope) -> Self {
        if let Scope::Namespaces(names) = &mut scope {
            names.retain(|name| *name != *app.cluster_namespace);
        }
        Self { permissions: Permissions::new(role, single), scope }
    }
}

impl Principal {
    /// True if it is bound to namespaces.
    pub(crate) fn is_bound(&self) -> bool {
        matches!(self.scope, Scope::Namespaces(_))
    }

    /// Itself, as it is remembered beside what it did.
    pub(crate) fn reference(&self) -> PrincipalRef {
        let id = Some(self.subject.id().0);
        PrincipalRef { kind: self.subject.kind(), id, name: self.name.clone() }
    }

    /// Itself and its request, as entries of the audit log have them.
    pub(crate) fn author(&self) -> (PrincipalRef, Arc<Call>) {
        (self.reference(), self.caller.call())
    }

    /// As the one that policies judge a certificate for.
    pub(crate) fn as_judged(&self) -> policy::Principal<'_> {
        if self.is_bound() {
            policy::Principal::Bound
        } else {
            policy::Principal::Unbound(&self.name)
        }
    }

    /// Refuses a principal that is bound to namespaces: policies say what those may have.
    pub(crate) fn must_be_unbound(&self) -> Result<(), ApiError> {
        if !self.is_bound() {
            return Ok(());
        }
        let noun = self.subject.noun();
        let detail = format!(
            "The {noun} is bound to namespaces, and policies say what those may have. Use one that is bound to none; POST /policies/evaluate says what is allowed."
        );
        Err(ApiError::Because(Code::PermissionDenied, detail))
    }

    /// Itself, as a ticket is made for it.
    pub(crate) fn holder(&self) -> Holder {
        let (role, scope, expires_at) = match &self.subject {
            Subject::ApiKey(key) => return Holder::ApiKey { hash: key.hash.clone() },
            Subject::Token(token) => (token.role, &token.scope, token.expires_at),
            Subject::ClientCertificate(one) => (one.role, &one.scope, one.expires_at),
            Subject::Ticket(ticket) => (ticket.role, &ticket.scope, ticket.expires_at),
        };
        Holder::Granted(Granted {
            kind: self.subject.kind(),
            id: self.subject.id().0,
            name: self.name.clone(),
            issuer: self.subject.issuer().map(str::to_owned),
            role,
            namespaces: scope.namespaces().map(<[String]>::to_vec),
            expires_at,
        })
    }

    /// True if it has this permission.
    pub(crate) fn may(&self, permission: &str) -> bool {
        self.permissions.allow(permission)
    }

    /// Where it may do `P` now, for an answer that takes long; `None` once it is revoked.
    pub(crate) async fn still<P: Permission>(
        &self,
        app: &AppState,
        from: Source,
    ) -> Result<Option<Scope>, StorageError> {
        let grant = self.subject.grant(app, from).await?;
        let grant = grant.filter(|grant| grant.permissions.allow(P::NAME));
        Ok(grant.map(|grant| grant.scope))
    }

    /// Refuses the rest of a long request if its principal was revoked, or changed, meanwhile.
    pub(crate) async fn must_hold(&self, app: &AppState) -> Result<(), ApiError> {
        let grant = self.subject.grant(app, Source::Cache).await?;
        let noun = self.subject.noun();
        let ended = || {
            refused(&format!(
                "The {noun} has ended meanwhile: it expired, or was deleted or replaced."
            ))
        };
        let grant = grant.ok_or_else(ended)?;
        if grant.permissions == self.permissions && grant.scope == self.scope {
            return Ok(());
        }
        let detail = format!("What the {noun} may do has changed meanwhile. Ask again.");
        Err(ApiError::Because(Code::PermissionDenied, detail))
    }

    /// Recognises the sender of a request without counting the request, or that it was refused.
    pub(crate) async fn uncounted(parts: &Parts, app: &AppState) -> Result<Self, ApiError> {
        match (parts.headers.get(header::AUTHORIZATION), parts.extensions.get()) {
            (Some(given), _) => authenticate(given, app).await,
            (None, Some(certificate)) => client_certificate::authenticate(certificate, parts, app),
            (None, None) => Err(refused(NOTHING_SENT)),
        }
    }

    /// Refuses a principal without this permission.
    pub(crate) fn must(&self, permission: &str) -> Result<(), ApiError> {
        if self.may(permission) {
            return Ok(());
        }
        let detail = format!("The {self} lacks the permission `{permission}`.");
        Err(ApiError::Because(Code::PermissionDenied, detail))
    }

    /// Refuses a change outside the principal's namespaces. The empty namespace is that of a `ClusterIssuer`, which
    /// serves all namespaces: only an unbound principal may change it.
    pub(crate) fn must_own(&self, namespace: &str) -> Result<(), ApiError> {
        self.caller.asks_in(namespace);
        let owns = match &self.scope {
            Scope::Everything => true,
            Scope::Namespaces(names) => names.iter().any(|name| name == namespace),
        };
        if owns {
            return Ok(());
        }
        let noun = self.subject.noun();
        let detail = match namespace {
            "" => format!("The {noun} is bound to namespaces and may not change a ClusterIssuer."),
            _ => format!("The {noun} may not act in the namespace `{namespace}`."),
        };
        Err(ApiError::Because(Code::PermissionDenied, detail))
    }
}

const NOTHING_SENT: &str = "Send an API key, or a token of a configured OIDC issuer: `Authorization: Bearer …`. Where the listener takes client certificates, connecting with one is enough.";

fn has_credential(parts: &Parts) -> bool {
    parts.headers.contains_key(header::AUTHORIZATION)
        || parts.extensions.get::<PeerCertificate>().is_some()
}

fn refused(detail: &str) -> ApiError {
    ApiError::Because(Code::Unauthenticated, detail.to_owned())
}

impl FromRequestParts<AppState> for Principal {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, ApiError> {
        app.limits.request_from(parts, app.now())?;
        let ticket = ticket::of(parts);
        if ticket.is_none() && !has_credential(parts) {
            return Err(refused(NOTHING_SENT));
        }
        let found = match ticket {
            Some(ticket) => Box::pin(ticket::authenticate(&ticket, app)).await,
            None => Self::uncounted(parts, app).await,
        };
        match found {
            Ok(principal) => {
                let principal = Self { caller: Caller::is(parts, &principal), ..principal };
                if let Some(left) = app.limits.request(principal.subject.id(), app.now())? {
                    principal.caller.has_left(left);
                }
                Ok(principal)
            }
            // Whom no rule knows has failed, too: its token or certificate was as good as a guess.
            Err(error) if error.is_about_the_caller() => {
                Err(app.limits.failed(parts, app.now()).unwrap_or(error))
            }
            Err(error) => Err(error),
        }
    }
}

async fn authenticate(given: &HeaderValue, app: &AppState) -> Result<Principal, ApiError> {
    let bearer = given.to_str().ok().and_then(|given| given.split_once(' '));
    let bearer = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("Bearer"));
    match bearer.map(|(_, text)| text.trim()) {
        Some(token) if token::is_one(token) => token::authenticate(token, app).await,
        Some(key) => api_key::authenticate(key, app).await,
        None => Err(refused(NOTHING_SENT)),
    }
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

/// A principal that may write a resource which manifests describe; which one it needs depends on the manifests.
pub(crate) struct AnyWriter(pub(crate) Principal);

impl FromRequestParts<AppState> for AnyWriter {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, ApiError> {
        let principal = Principal::from_request_parts(parts, app).await?;
        let others = [SecretsWrite::NAME, IssuersWrite::NAME, PoliciesWrite::NAME];
        if others.into_iter().any(|permission| principal.may(permission)) {
            return Ok(Self(principal));
        }
        principal.must(CertificatesWrite::NAME).map(|()| Self(principal))
    }
}
