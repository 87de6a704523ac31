//! What the service grants by rows of its database, as it is signed: API keys and policies.
//!
//! Their own files make the MACs and refuse rows without the right one. Here all are gone through, to be verified, or
//! signed anew under another master key.

use uuid::Uuid;

use super::{api_keys, policies};
use crate::storage::engine::{Read, StorageError, Tx};

/// A table of grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    ApiKeys,
    Policies,
}

/// Every table of grants.
pub const TABLES: [Table; 2] = [Table::ApiKeys, Table::Policies];

/// A row that grants something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub id: Uuid,
    pub name: String,
    /// All that it says.
    pub text: String,
    /// `None` for a row of before, or one that the service did not write.
    pub mac: Option<Vec<u8>>,
}

impl Table {
    /// What a row of it is.
    pub fn noun(self) -> &'static str {
        match self {
            Self::ApiKeys => "API key",
            Self::Policies => "policy",
        }
    }
}

/// The grants that come after a row, by identifier, at most `limit`.
pub async fn list(
    read: &mut Read,
    table: Table,
    after: Uuid,
    limit: u32,
) -> Result<Vec<Grant>, StorageError> {
    match table {
        Table::ApiKeys => api_keys::grants(read, after, limit).await,
        Table::Policies => policies::grants(read, after, limit).await,
    }
}

/// Gives a grant this MAC in place of the one that was read; says whether that was still there.
pub async fn sign(
    tx: &mut Tx,
    table: Table,
    grant: &Grant,
    mac: &[u8],
) -> Result<bool, StorageError> {
    match table {
        Table::ApiKeys => api_keys::sign(tx, grant, mac).await,
        Table::Policies => policies::sign(tx, grant, mac).await,
    }
}
