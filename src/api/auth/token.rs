//! Tokens of OIDC issuers as credentials: `Authorization: Bearer eyJ…`.

use time::OffsetDateTime;

use super::{Grant, Principal, Subject, refused};
use crate::api::AppState;
use crate::api::audit::Caller;
use crate::api::problem::{ApiError, Code};
use crate::domain::id::PrincipalId;
use crate::domain::role::Role;
use crate::oidc::{TokenError, Verified};
use crate::storage::Scope;

/// A token that was verified. What it grants stands in it, and holds until it expires.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(super) id: PrincipalId,
    pub(super) issuer: String,
    pub(super) expires_at: OffsetDateTime,
    pub(super) role: Role,
    pub(super) scope: Scope,
}

/// Whether a credential is a JWT by its look (RFC 7519): three parts. No API key has a dot.
pub(super) fn is_one(credential: &str) -> bool {
    credential.split('.').count() == 3
}

/// The principal behind a token.
pub(super) async fn authenticate(token: &str, app: &AppState) -> Result<Principal, ApiError> {
    let verified = app.tokens.verify(token, app.now()).await?;
    let Verified { issuer, subject, expires_at, role, scope } = verified;
    let id = PrincipalId::of_token(&issuer, &subject);
    let known = Known { id, issuer, expires_at, role, scope };
    let Grant { permissions, scope } = known.granted(app);
    // Of the principal, not of the token: the next token of the same subject may repeat a request.
    let pepper = app.sealer.mac(&format!("requests of {id}"));
    Ok(Principal {
        subject: Subject::Token(known),
        name: subject,
        permissions,
        scope,
        pepper,
        caller: Caller::default(),
    })
}

impl Known {
    pub(super) fn grant(&self, app: &AppState) -> Option<Grant> {
        (app.now() < self.expires_at).then(|| self.granted(app))
    }

    fn granted(&self, app: &AppState) -> Grant {
        Grant::new(app, Some(self.role), &[], self.scope.clone())
    }
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> Self {
        let detail = error.to_string();
        match error {
            TokenError::Refused(_) => refused(&detail),
            TokenError::NoRule { .. } => Self::Because(Code::PermissionDenied, detail),
            TokenError::Unavailable { .. } => Self::Because(Code::IssuerUnavailable, detail),
        }
    }
}
