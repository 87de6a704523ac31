//! Sealing every secret anew under the first master key, so that the others can be given up.
//!
//! Done in batches, beside a service that has both keys: each row is replaced only if it still is what
//! was read. Cut off anywhere, some rows are under one key and some under the other, both can be read,
//! and the next run goes on.

use thiserror::Error;
use uuid::Uuid;

use crate::bootstrap::{self, BootstrapError};
use crate::secret::{SealError, Sealer};
use crate::storage::{Db, StorageError, sealed_columns};

/// Rows of one transaction.
const BATCH: u32 = 100;

/// Why not every secret could be sealed anew. What was done stays done.
#[derive(Debug, Error)]
pub enum ResealError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(
        "the secret {place} cannot be opened; nothing is lost, and the others are not affected"
    )]
    Secret {
        place: String,
        #[source]
        source: SealError,
    },
    #[error(transparent)]
    Check(#[from] BootstrapError),
}

/// The result of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resealed {
    pub changed: u64,
    pub all: u64,
}

/// Seals everything anew that is not under the first key; passes again until nothing is left, since
/// a service at work may copy an envelope that was just read.
pub async fn reseal(db: &Db, sealer: &Sealer) -> Result<Resealed, ResealError> {
    let mut done = pass(db, sealer).await?;
    loop {
        let again = pass(db, sealer).await?;
        done = Resealed { changed: done.changed + again.changed, all: again.all };
        if again.changed == 0 {
            break;
        }
    }
    bootstrap::reseal_settings(db, sealer).await?;
    Ok(done)
}

async fn pass(db: &Db, sealer: &Sealer) -> Result<Resealed, ResealError> {
    let mut done = Resealed::default();
    for column in sealed_columns::COLUMNS.iter() {
        let mut after = (Uuid::nil(), i64::MIN);
        loop {
            let mut tx = db.read().await?;
            let found = sealed_columns::list(&mut tx, column, after, BATCH).await?;
            drop(tx);
            let Some(last) = found.last() else { break };
            after = last.key;
            done.all += found.len() as u64;
            let old: Vec<_> =
                found.into_iter().filter(|known| !sealer.is_current(&known.sealed)).collect();
            if old.is_empty() {
                continue;
            }
            let mut tx = db.begin();
            for known in old {
                let anew = sealer.open(&known.place, &known.sealed);
                let anew = anew.and_then(|plain| sealer.seal(&known.place, plain.expose()));
                let anew = anew
                    .map_err(|source| ResealError::Secret { place: known.place.clone(), source })?;
                done.changed +=
                    u64::from(sealed_columns::replace(&mut tx, column, &known, &anew).await?);
            }
            tx.commit().await?;
            failpoint!("between_reseals");
        }
    }
    Ok(done)
}
