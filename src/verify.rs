//! Verifying what is at rest: every sealed secret opens in its place, and every grant has the MAC of what it says.
//!
//! Only reads, page by page, beside a service at work.

use uuid::Uuid;

use crate::secret::Sealer;
use crate::storage::{Db, StorageError, grants, sealed_columns};

/// Rows that are read at once.
const PAGE: u32 = 200;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// So many rows were looked at so far.
    Looked(u64),
    /// A row that is not what the service has written.
    Broken(Broken),
}

/// A row that is not what the service has written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Such as `API key`.
    pub kind: &'static str,
    pub name: String,
    pub id: Uuid,
    pub problem: String,
}

/// The result of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verified {
    pub secrets: u64,
    pub grants: u64,
    pub broken: u64,
}

/// Looks at every row; tells each that is broken, and after each page how far it is.
pub async fn verify(
    db: &Db,
    sealer: &Sealer,
    mut tell: impl FnMut(Finding),
) -> Result<Verified, StorageError> {
    let mut done = Verified::default();
    for column in sealed_columns::COLUMNS.iter() {
        let mut after = (Uuid::nil(), i64::MIN);
        loop {
            let found = sealed_columns::list(&mut db.read().await?, column, after, PAGE).await?;
            let Some(last) = found.last() else { break };
            after = last.key;
            done.secrets += found.len() as u64;
            for envelope in found {
                if let Err(error) = sealer.open(&envelope.place, &envelope.sealed) {
                    done.broken += 1;
                    let (name, id) = (envelope.name, envelope.key.0);
                    let problem = error.to_string();
                    tell(Finding::Broken(Broken { kind: column.noun, name, id, problem }));
                }
            }
            tell(Finding::Looked(done.secrets));
        }
    }
    verify_grants(db, sealer, &mut done, &mut tell).await?;
    Ok(done)
}

/// The same for API keys and policies alone, which are few; they are added to what was `done`.
pub async fn verify_grants(
    db: &Db,
    sealer: &Sealer,
    done: &mut Verified,
    tell: &mut impl FnMut(Finding),
) -> Result<(), StorageError> {
    for table in grants::TABLES {
        let mut after = Uuid::nil();
        loop {
            let found = grants::list(&mut db.read().await?, table, after, PAGE).await?;
            let Some(last) = found.last() else { break };
            after = last.id;
            done.grants += found.len() as u64;
            for grant in found {
                if let Some(problem) = objection(sealer, &grant) {
                    done.broken += 1;
                    let problem = problem.to_owned();
                    let (kind, name, id) = (table.noun(), grant.name, grant.id);
                    tell(Finding::Broken(Broken { kind, name, id, problem }));
                }
            }
            tell(Finding::Looked(done.secrets + done.grants));
        }
    }
    Ok(())
}

fn objection(sealer: &Sealer, grant: &grants::Grant) -> Option<&'static str> {
    match grant.mac.as_deref() {
        None => Some("it was not written by the service: it has no MAC"),
        Some(mac) if !sealer.verifies(&grant.text, mac) => {
            Some("it was changed since the service wrote it, or signed under another master key")
        }
        Some(_) => None,
    }
}
