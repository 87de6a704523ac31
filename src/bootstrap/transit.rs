//! A master key that a transit engine of Vault or OpenBao wraps: the database holds it wrapped, and each start has it
//! unwrapped.

use super::{BootstrapError, check_master_key, local_key, protection, sealer, settled};
use crate::config::Config;
use crate::secret::{Sealer, Secret};
use crate::storage::{Db, settings};
use crate::transit::{PAUSES, Transit};

/// The master key as the engine has wrapped it.
const WRAPPED: &str = "wrapped_master_key";

/// The master key of this database, unwrapped. The first start wraps the one that was used so far, or a new one.
pub(super) async fn master_key(
    config: &Config,
    db: &Db,
    transit: &Transit,
) -> Result<Sealer, BootstrapError> {
    let known = settings::find(&mut db.read().await?, WRAPPED).await?;
    let text = match known {
        Some(wrapped) => unwrap(transit, &wrapped).await?,
        None => wrap(config, db, transit).await?,
    };
    check_master_key(db, sealer(&text, "what the transit engine has unwrapped")?).await
}

async fn wrap(
    config: &Config,
    db: &Db,
    transit: &Transit,
) -> Result<Secret<String>, BootstrapError> {
    let local = local_key(config)?;
    let had_local = local.is_some();
    let text = match local {
        Some(text) => {
            // A key that does not open what is there must not become the only one.
            check_master_key(db, sealer(&text, "the master key so far")?).await?;
            text
        }
        None if protection::is_known(db).await? => return Err(BootstrapError::NothingToWrap),
        None => Sealer::generate().map_err(BootstrapError::Random)?,
    };
    let wrapped = transit.wrap(&text).await?;
    // Of several replicas one is first; the others take its key.
    let wrapped = settled(db, WRAPPED, wrapped.into_bytes()).await?;
    if had_local {
        tracing::warn!(
            "the master key is wrapped by the transit engine from now on; remove the local one (`master_key`, \
             `master_key_file` or master.key in `data_dir`), but keep it with a backup of before"
        );
    }
    unwrap(transit, &wrapped).await
}

async fn unwrap(transit: &Transit, wrapped: &[u8]) -> Result<Secret<String>, BootstrapError> {
    Ok(transit.unwrap(&String::from_utf8_lossy(wrapped)).await?)
}

/// Has the master key wrapped anew under the latest version of the engine's key, where an engine wraps it.
pub async fn rewrap_master_key(config: &Config, db: &Db) -> Result<(), BootstrapError> {
    let Some(settings) = &config.transit else { return Ok(()) };
    let transit = Transit::new(settings.clone(), &PAUSES)?;
    let known = settings::find(&mut db.read().await?, WRAPPED).await?;
    let Some(known) = known else { return Ok(()) };
    let anew = transit.rewrap(&String::from_utf8_lossy(&known)).await?;
    let mut tx = db.begin();
    settings::replace(&mut tx, WRAPPED, &known, anew.as_bytes()).await?;
    Ok(tx.commit().await?)
}

/// Whether an engine has wrapped the master key of this database.
pub(super) async fn has_wrapped(db: &Db) -> Result<bool, BootstrapError> {
    Ok(settings::find(&mut db.read().await?, WRAPPED).await?.is_some())
}
