//! Sealing every secret, and signing every grant, anew under the first master key, so that the others can be given up.
//!
//! Done in batches, beside a service that has both keys: each row is replaced only if it still is what
//! was read. Cut off anywhere, some rows are under one key and some under the other, both can be read,
//! and the next run goes on.

use thiserror::Error;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::bootstrap::{self, BootstrapError};
use crate::domain::audit::Entry;
use crate::domain::principal::PrincipalKind;
use crate::secret::{SealError, Sealer};
use crate::storage::{Db, StorageError, audit, grants, sealed_columns};

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
    /// API keys and policies that were signed anew.
    pub signed: u64,
    /// Those that the service did not write: they stay refused.
    pub refused: u64,
}

/// Seals and signs everything anew that is not under the first key; passes again until nothing is left, since
/// a service at work may copy an envelope that was just read.
pub async fn reseal(
    db: &Db,
    sealer: &Sealer,
    now: OffsetDateTime,
) -> Result<Resealed, ResealError> {
    let mut done = pass(db, sealer).await?;
    loop {
        let again = pass(db, sealer).await?;
        done = Resealed { changed: done.changed + again.changed, ..again };
        if again.changed == 0 {
            break;
        }
    }
    sign(db, sealer, &mut done).await?;
    let mut tx = db.begin();
    let is_another_key = bootstrap::reseal_settings(&mut tx, sealer).await?;
    if is_another_key || done.changed + done.signed > 0 {
        audit::insert(&mut tx, &entry(&done, now)).await?;
    }
    tx.commit().await?;
    Ok(done)
}

/// Signs what the service has written, and nothing else.
async fn sign(db: &Db, sealer: &Sealer, done: &mut Resealed) -> Result<(), StorageError> {
    for table in grants::TABLES {
        let mut after = Uuid::nil();
        loop {
            let found = grants::list(&mut db.read().await?, table, after, BATCH).await?;
            let Some(last) = found.last() else { break };
            after = last.id;
            let mut tx = db.begin();
            for grant in &found {
                match grant.mac.as_deref().filter(|mac| sealer.verifies(&grant.text, mac)) {
                    None => done.refused += 1,
                    Some(mac) if sealer.is_current_mac(mac) => {}
                    Some(_) => {
                        let mac = sealer.sign(&grant.text);
                        done.signed += u64::from(grants::sign(&mut tx, table, grant, &mac).await?);
                    }
                }
            }
            tx.commit().await?;
        }
    }
    Ok(())
}

/// What the audit log says of a run that has changed something.
fn entry(done: &Resealed, at: OffsetDateTime) -> Entry {
    let reason = format!("{} secrets sealed and {} grants signed anew", done.changed, done.signed);
    let (kind, name) = (PrincipalKind::Configuration, "certwright secrets rotate");
    Entry::without_request(kind, name, "masterKey.rotate", reason, at)
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
                let anew = anew.map_err(|source| ResealError::Secret {
                    place: known.place.to_string(),
                    source,
                })?;
                done.changed +=
                    u64::from(sealed_columns::replace(&mut tx, column, &known, &anew).await?);
            }
            tx.commit().await?;
            failpoint!("between_reseals");
        }
    }
    Ok(done)
}
