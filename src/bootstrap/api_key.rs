//! The API key to begin with: the one of `bootstrap.api_key`, or one that is made on the very first start.
//!
//! The configured key is a recovery key. It exists from the start on at which its value is new; another value ends
//! the former one. Once deleted it stays so, until its value is changed or `bootstrap.restore` asks for it.

use std::sync::Arc;

use crate::clock::Clock;
use crate::config::Config;
use crate::domain::api_key::{self, ApiKey, Value};
use crate::domain::audit::Call;
use crate::domain::principal::{PrincipalKind, PrincipalRef};
use crate::secret::Secret;
use crate::storage::api_keys::CONFIGURED;
use crate::storage::audit::{self, Author};
use crate::storage::{Db, Scope, Tx, api_keys, settings};

use super::BootstrapError;

const FIRST_KEY: &str = "first_api_key";

/// Makes sure that there is an API key: the configured one, or else, where there is none at all, a
/// new one, which is returned to be shown this once.
pub async fn first_api_key(
    db: &Db,
    config: &Config,
    clock: &dyn Clock,
) -> Result<Option<Secret<String>>, BootstrapError> {
    match &config.bootstrap_api_key {
        Some(key) => {
            configured_api_key(db, key, config.bootstrap_restore, clock).await.map(|()| None)
        }
        None => new_api_key(db, clock).await,
    }
}

/// What a start does about the configured key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    /// It is there already.
    Keep,
    Make,
    /// Somebody has deleted it.
    LeaveDeleted,
}

/// `is_new` says that the value is another one than at the last start.
fn decide(exists: bool, is_new: bool, restore: bool) -> Decision {
    match (exists, is_new || restore) {
        (true, _) => Decision::Keep,
        (false, true) => Decision::Make,
        (false, false) => Decision::LeaveDeleted,
    }
}

async fn configured_api_key(
    db: &Db,
    key: &Secret<String>,
    restore: bool,
    clock: &dyn Clock,
) -> Result<(), BootstrapError> {
    api_key::check_form(key.expose()).map_err(BootstrapError::MalformedKey)?;
    if api_key::is_weak(key.expose()) {
        return Err(BootstrapError::WeakKey);
    }
    let hash = api_key::hash_key(key.expose());
    let admin = admin_key("bootstrap", "bootstrap.api_key", clock);
    let mut tx = db.begin();
    audit::attribute(&mut tx, configuration("bootstrap.api_key", clock));
    let last = settings::find(&mut tx, CONFIGURED).await?;
    let found = api_keys::find_by_hash(&mut tx, &hash).await?;
    if let Some((known, value)) = &found
        && !is_equal(known, *value, &admin, clock)
    {
        return Err(BootstrapError::LesserKey);
    }
    let is_new = last.as_ref() != Some(&hash);
    match decide(found.is_some(), is_new, restore) {
        Decision::Keep => {}
        // A replica that was first has made the same one.
        Decision::Make => drop(api_keys::insert(&mut tx, &admin, &hash).await?),
        Decision::LeaveDeleted => {
            tracing::warn!(
                "the key of `bootstrap.api_key` was deleted, and stays so: change it, or set `bootstrap.restore`"
            );
        }
    }
    if is_new {
        let taken = match &last {
            None => settings::insert(&mut tx, CONFIGURED, &hash).await?,
            Some(last) => settings::replace(&mut tx, CONFIGURED, last, &hash).await?,
        };
        if let (true, Some(last)) = (taken, &last) {
            end_former(&mut tx, last).await?;
        }
    }
    Ok(tx.commit().await?)
}

/// Whether a key that is there already may do everything, now and from now on.
fn is_equal(known: &ApiKey, value: Value, admin: &ApiKey, clock: &dyn Clock) -> bool {
    let may_all = known.permissions == admin.permissions && known.scope == admin.scope;
    may_all && value == Value::Current && known.admits(value, clock.now()).is_ok()
}

async fn end_former(tx: &mut Tx, hash: &[u8]) -> Result<(), BootstrapError> {
    if let Some((former, Value::Current)) = api_keys::find_by_hash(tx, hash).await? {
        api_keys::delete(tx, former.id).await?;
        tracing::info!(deleted = %former.id, "`bootstrap.api_key` has changed: its former value has ended");
    }
    Ok(())
}

async fn new_api_key(db: &Db, clock: &dyn Clock) -> Result<Option<Secret<String>>, BootstrapError> {
    let mut tx = db.begin();
    audit::attribute(&mut tx, configuration("first start", clock));
    let last = settings::find(&mut tx, FIRST_KEY).await?;
    if api_keys::any(&mut tx).await? {
        return Ok(None);
    }
    let key = api_key::generate_key().map_err(BootstrapError::Random)?;
    let hash = api_key::hash_key(key.expose());
    // Several replicas may see no key; only the one whose note is stored first makes one.
    let first = match last {
        None => settings::insert(&mut tx, FIRST_KEY, &hash).await?,
        Some(last) => settings::replace(&mut tx, FIRST_KEY, &last, &hash).await?,
    };
    if !first {
        return Ok(None);
    }
    api_keys::insert(&mut tx, &admin_key("first", "first start", clock), &hash).await?;
    tx.commit().await?;
    Ok(Some(key))
}

/// The service's configuration, as the author of what it changes.
fn configuration(name: &str, clock: &dyn Clock) -> Author {
    let kind = PrincipalKind::Configuration;
    let principal = PrincipalRef { kind, id: None, name: name.to_owned() };
    let call =
        Call { collection: "apiKeys".to_owned(), verb: "configure".to_owned(), ..Call::default() };
    Author { principal, call: Arc::new(call), at: clock.now() }
}

fn admin_key(name: &str, made_by: &str, clock: &dyn Clock) -> ApiKey {
    let creator =
        PrincipalRef { kind: PrincipalKind::Configuration, id: None, name: made_by.to_owned() };
    let key = ApiKey::new(name, vec!["*".to_owned()], Scope::Everything, clock.now());
    ApiKey { created_by: Some(creator), ..key }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configured_key_is_made_when_it_is_new_or_asked_for() {
        for (exists, is_new, restore, expected) in [
            (false, true, false, Decision::Make),
            (false, false, true, Decision::Make),
            (false, false, false, Decision::LeaveDeleted),
            (true, false, false, Decision::Keep),
            (true, true, false, Decision::Keep),
            (true, false, true, Decision::Keep),
        ] {
            assert_eq!(decide(exists, is_new, restore), expected, "{exists} {is_new} {restore}");
        }
    }
}
