//! API keys as credentials: `Authorization: Bearer cw_…`.

use axum::http::{HeaderValue, header, request::Parts};

use super::{Grant, Principal, Source, Subject, UNKNOWN, refused};
use crate::api::AppState;
use crate::api::problem::ApiError;
use crate::domain::api_key;
use crate::domain::id::ApiKeyId;
use crate::storage::StorageError;
use crate::storage::api_keys::{self, ApiKey};

/// A key that was recognised.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(super) id: ApiKeyId,
    /// The key's hash, by which it is recognised again.
    hash: Vec<u8>,
}

/// The principal behind the request's API key.
pub(super) async fn authenticate(parts: &Parts, app: &AppState) -> Result<Principal, ApiError> {
    let Some(given) = parts.headers.get(header::AUTHORIZATION) else {
        return Err(refused("Send an API key: `Authorization: Bearer cw_…`."));
    };
    let key = bearer(given)
        .filter(|key| api_key::is_well_formed(key))
        .ok_or_else(|| refused("What was sent is not an API key: `Bearer cw_…` is wanted."))?;
    let hash = api_key::hash_key(key);
    let known = api_keys::recognise(&app.db, &hash).await?.ok_or_else(|| refused(UNKNOWN))?;
    let Grant { permissions, scope } = grant(app, &known);
    Ok(Principal {
        subject: Subject::ApiKey(Known { id: known.id, hash }),
        name: known.name,
        permissions,
        scope,
        pepper: api_key::hash_key(&format!("requests of {key}")),
    })
}

fn bearer(given: &HeaderValue) -> Option<&str> {
    let (scheme, token) = given.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("Bearer").then(|| token.trim())
}

impl Known {
    pub(super) async fn grant(
        &self,
        app: &AppState,
        from: Source,
    ) -> Result<Option<Grant>, StorageError> {
        let known = match from {
            Source::Cache => api_keys::recognise(&app.db, &self.hash).await?,
            Source::Database => api_keys::find(&mut app.db.read().await?, self.id).await?,
        };
        Ok(known.map(|key| grant(app, &key)))
    }
}

fn grant(app: &AppState, key: &ApiKey) -> Grant {
    Grant::new(&app.cluster_namespace, key.permissions.clone(), key.scope.clone())
}
