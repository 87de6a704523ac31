//! MACs of rows that grant something. Only who has the master key can make one: a row that somebody has edited in the
//! database, or added there, is not authentic, and grants nothing.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use uuid::Uuid;

use super::{StorageError, Stored};
use crate::secret::Sealer;
use crate::telemetry::metrics::database as metrics;

/// Rows that the log tells of, at most: there may be any number of them.
const MOST_TOLD: usize = 100;

/// Makes the MACs of rows, and verifies them.
#[derive(Default)]
pub(in crate::storage) struct RowMacs {
    sealer: OnceLock<Arc<Sealer>>,
    /// Rows that the log has told of, each once.
    told: Mutex<HashSet<Uuid>>,
}

impl RowMacs {
    /// Makes and verifies MACs by this sealer; the first one stays.
    pub(super) fn set(&self, sealer: Arc<Sealer>) {
        self.sealer.set(sealer).ok();
    }

    fn sealer(&self) -> Result<&Sealer, StorageError> {
        self.sealer.get().map(AsRef::as_ref).ok_or(StorageError::NoMacKey)
    }

    /// The MAC of all that a row says.
    pub(super) fn sign(&self, text: &str) -> Result<Vec<u8>, StorageError> {
        Ok(self.sealer()?.sign(text))
    }

    /// Whether the service has written the row, that is whether this is its MAC. One that is not raises the alarm.
    pub(super) fn is_authentic(
        &self,
        row: Stored,
        text: &str,
        mac: Option<&[u8]>,
    ) -> Result<bool, StorageError> {
        let sealer = self.sealer()?;
        let is_authentic = mac.is_some_and(|mac| sealer.verifies(text, mac));
        if !is_authentic {
            self.alarm(row);
        }
        Ok(is_authentic)
    }

    fn alarm(&self, Stored(table, id): Stored) {
        metrics::row_refused(table);
        let mut told = self.told.lock();
        if told.len() < MOST_TOLD && told.insert(id) {
            tracing::error!(
                table,
                %id,
                "this row was not written by the service, or changed since, and grants nothing; find out who writes the \
                 database, then delete it by the API and create it again (`certwright secrets verify` lists all)"
            );
        }
    }
}
