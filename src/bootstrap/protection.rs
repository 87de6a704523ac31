//! How what is at rest is protected: by which master key, and by what besides.
//!
//! A sealed word in the settings says both. It is sealed so that nobody who only writes the database can set it back to
//! a word of before, after which rows without a MAC would be taken for old ones and signed.

use std::sync::Arc;

use time::OffsetDateTime;
use uuid::Uuid;

use super::{AUDIT_KEY, AUDIT_KEY_PLACE, BootstrapError, OWN_KEY, given_key, settled};
use crate::config::Config;
use crate::domain::audit::Call;
use crate::domain::principal::{PrincipalKind, PrincipalRef};
use crate::secret::{Place, Sealed, Sealer};
use crate::storage::audit::{self, Author};
use crate::storage::{Db, Read, StorageError, Tx, grants, settings};

const CHECK: &str = "master_key_check";
const CHECK_PLACE: &str = "settings/value/master_key_check";

/// The word of before there were MACs.
const SEALED_ONLY: &[u8] = b"certwright";

/// API keys and policies have MACs; a row without one was not written by the service.
const SIGNED: &[u8] = b"certwright, grants signed";

/// Besides, every secret is sealed for its namespace; one that is not was put back by somebody. So it is in a new
/// database, and after a rotation.
const OWNED: &[u8] = b"certwright, grants signed, owners authenticated";

/// Rows that are read at once.
const PAGE: u32 = 100;

/// Compares the master key with the one that this database's secrets were sealed under. The first
/// key to come here is that one. Returns the sealer as the database needs it: where secrets of before may be left that
/// do not say whose they are, it opens them.
pub async fn check_master_key(db: &Db, sealer: Sealer) -> Result<Sealer, BootstrapError> {
    let known = settings::find(&mut db.read().await?, CHECK).await?;
    let known = if let Some(known) = known {
        known
    } else {
        let ours = sealer.seal(&check(), OWNED).map_err(BootstrapError::Random)?;
        settled(db, CHECK, ours.0).await?
    };
    match sealer.open(&check(), &Sealed(known)) {
        Ok(word) if word.expose() == OWNED => Ok(sealer),
        Ok(_) => Ok(sealer.opening_former()),
        Err(_) => Err(BootstrapError::WrongKey),
    }
}

/// Whether what is sealed in this database was sealed under this master key, or nothing is yet. Changes nothing.
pub async fn fits_master_key(db: &Db, sealer: &Sealer) -> Result<bool, StorageError> {
    let known = settings::find(&mut db.read().await?, CHECK).await?;
    Ok(known.is_none_or(|known| sealer.open(&check(), &Sealed(known)).is_ok()))
}

/// Makes sure that the given master key opens secrets that are brought along, by what [`master_key_check`] read
/// where they come from. A key that a transit engine has wrapped is brought along itself: the next start has it unwrapped.
pub fn opens(config: &Config, brought: Vec<u8>) -> Result<(), BootstrapError> {
    if config.transit.is_some() {
        return Ok(());
    }
    let own = config.data_dir.join(OWN_KEY);
    let sealer = given_key(config, &own)?.ok_or(BootstrapError::KeyLost(own))?;
    let opened = sealer.open(&check(), &Sealed(brought));
    opened.map(drop).map_err(|_| BootstrapError::WrongKey)
}

/// What was sealed under the master key of the database's secrets, so that the key can be told from others.
pub async fn master_key_check(read: &mut Read) -> Result<Option<Vec<u8>>, StorageError> {
    settings::find(read, CHECK).await
}

fn check() -> Place {
    Place::of_service(CHECK_PLACE)
}

/// Whether anything may have been sealed in this database.
pub(super) async fn is_known(db: &Db) -> Result<bool, BootstrapError> {
    Ok(settings::find(&mut db.read().await?, CHECK).await?.is_some())
}

/// Has rows that grant something signed from now on, and refused without the right MAC. Rows of before there were MACs
/// are signed, once.
pub async fn authenticate_grants(
    db: &Db,
    sealer: &Arc<Sealer>,
    now: OffsetDateTime,
) -> Result<(), BootstrapError> {
    db.authenticate_rows(Arc::clone(sealer));
    let mut tx = db.begin();
    let Some(known) = settings::find(&mut tx, CHECK).await?.map(Sealed) else { return Ok(()) };
    let word = sealer.open(&check(), &known).map_err(|_| BootstrapError::WrongKey)?;
    if word.expose() != SEALED_ONLY {
        return Ok(());
    }
    let signed = sealer.seal(&check(), SIGNED).map_err(BootstrapError::Random)?;
    // Of several replicas one signs, and the others wait for it here.
    if !settings::replace(&mut tx, CHECK, &known.0, &signed.0).await? {
        return Ok(());
    }
    audit::attribute(&mut tx, upgrade(now));
    let rows = sign_all(&mut tx, sealer).await?;
    tx.commit().await?;
    tracing::warn!(
        rows,
        "the API keys and policies of before were signed, as they are; this happens once, at the first start of this \
         version: look through them if it comes again"
    );
    Ok(())
}

async fn sign_all(tx: &mut Tx, sealer: &Sealer) -> Result<u64, BootstrapError> {
    let mut rows = 0;
    for table in grants::TABLES {
        let mut after = Uuid::nil();
        loop {
            let found = grants::list(tx, table, after, PAGE).await?;
            let Some(last) = found.last() else { break };
            after = last.id;
            for grant in &found {
                rows += u64::from(grants::sign(tx, table, grant, &sealer.sign(&grant.text)).await?);
            }
        }
    }
    Ok(rows)
}

/// The first start of a version that signs, as the author of what it changes.
fn upgrade(at: OffsetDateTime) -> Author {
    let kind = PrincipalKind::Configuration;
    let principal = PrincipalRef { kind, id: None, name: "upgrade".to_owned() };
    let call = Call { collection: "grants".to_owned(), verb: "sign".to_owned(), ..Call::default() };
    Author { principal, call: Arc::new(call), at }
}

/// Seals anew under the first master key what stands in the settings: what [`check_master_key`] goes by, and the
/// key of the audit log; says whether anything was. All else was sealed for its owner and signed before.
pub async fn reseal_settings(tx: &mut Tx, sealer: &Sealer) -> Result<bool, BootstrapError> {
    let mut has_changed = false;
    for (name, place) in [(CHECK, CHECK_PLACE), (AUDIT_KEY, AUDIT_KEY_PLACE)] {
        let Some(known) = settings::find(tx, name).await?.map(Sealed) else { continue };
        let place = Place::of_service(place);
        let plain = sealer.open(&place, &known).map_err(|_| BootstrapError::WrongKey)?;
        let next = if plain.expose() == SIGNED { OWNED } else { plain.expose() };
        if sealer.is_current(&known) && next == plain.expose() {
            continue;
        }
        let anew = sealer.seal(&place, next).map_err(BootstrapError::Random)?;
        has_changed |= settings::replace(tx, name, &known.0, &anew.0).await?;
    }
    Ok(has_changed)
}
