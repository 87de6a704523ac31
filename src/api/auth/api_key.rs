//! API keys as credentials: `Authorization: Bearer cw_…`.

use std::sync::Arc;

use time::OffsetDateTime;

use super::{Grant, Principal, Source, Subject, refused};
use crate::api::AppState;
use crate::api::audit::Caller;
use crate::api::problem::ApiError;
use crate::domain::api_key::{self, ApiKey, Ended};
use crate::domain::id::ApiKeyId;
use crate::storage::StorageError;
use crate::storage::api_keys;

/// A key that was recognised.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(super) id: ApiKeyId,
    /// The hash of the value that was shown, by which the key is recognised again.
    pub(super) hash: Vec<u8>,
    pub(super) expires_at: Option<OffsetDateTime>,
}

/// The principal behind an API key.
pub(super) async fn authenticate(key: &str, app: &AppState) -> Result<Principal, ApiError> {
    api_key::check_form(key)
        .map_err(|problem| refused(&format!("What was sent is not an API key: {problem}.")))?;
    let pepper = api_key::hash_key(&format!("requests of {key}"));
    recognised(api_key::hash_key(key), pepper, app).await
}

/// The principal behind the API key whose value has this hash.
pub(super) async fn recognised(
    hash: Vec<u8>,
    pepper: Vec<u8>,
    app: &AppState,
) -> Result<Principal, ApiError> {
    let found = api_keys::recognise(&app.db, &hash).await?;
    let (known, value) = found.ok_or_else(|| refused(UNKNOWN))?;
    known.admits(value, app.now()).map_err(|ended| refused(in_words(ended)))?;
    app.last_uses.note(app, known.id);
    let Grant { permissions, scope } = grant(app, &known);
    Ok(Principal {
        subject: Subject::ApiKey(Known { id: known.id, hash, expires_at: known.expires_at }),
        name: known.name.clone(),
        permissions,
        scope,
        pepper,
        caller: Caller::default(),
    })
}

const UNKNOWN: &str = "The API key is not known (any more).";

fn in_words(ended: Ended) -> &'static str {
    match ended {
        Ended::Expired => "The API key has expired. Whoever runs the service makes another one.",
        Ended::Replaced => {
            "The API key was rotated, and the time in which its former value counts is over. Use the new value."
        }
    }
}

impl Known {
    pub(super) async fn grant(
        &self,
        app: &AppState,
        from: Source,
    ) -> Result<Option<Grant>, StorageError> {
        let found = match from {
            Source::Cache => api_keys::recognise(&app.db, &self.hash).await?,
            Source::Database => {
                let found = api_keys::find_by_hash(&mut app.db.read().await?, &self.hash).await?;
                found.map(|(key, value)| (Arc::new(key), value))
            }
        };
        let known = found.filter(|(key, value)| key.admits(*value, app.now()).is_ok());
        Ok(known.map(|(key, _)| grant(app, &key)))
    }
}

fn grant(app: &AppState, key: &ApiKey) -> Grant {
    Grant::new(app, key.role, &key.permissions, key.scope.clone())
}
