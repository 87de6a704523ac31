//! How moments and documents stand in the database.

use serde::Serialize;
use serde::de::DeserializeOwned;
use time::OffsetDateTime;
use uuid::Uuid;

use super::StorageError;

/// A moment as the databases hold it: milliseconds since the epoch, rounded up. A row that is due is then due by
/// the exact moment too, which a document beside it may hold: rounded down, it would be taken up and put back until
/// that moment has come.
pub(in crate::storage) fn millis(at: OffsetDateTime) -> i64 {
    let rounded_up = (at.unix_timestamp_nanos() + 999_999).div_euclid(1_000_000);
    i64::try_from(rounded_up).unwrap_or(i64::MAX)
}

/// Reads what [`millis`] wrote.
pub(in crate::storage) fn moment(millis: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// A document as the databases hold it.
pub(in crate::storage) fn json<T: Serialize>(document: &T) -> String {
    // Our documents are plain structs with text keys: serializing them cannot fail.
    serde_json::to_string(document).unwrap_or_default()
}

/// The row that values come from, which an error names if they cannot be understood.
#[derive(Debug, Clone, Copy)]
pub(in crate::storage) struct Stored(
    pub(in crate::storage) &'static str,
    pub(in crate::storage) Uuid,
);

impl Stored {
    /// Reads what [`json`] wrote.
    pub(in crate::storage) fn document<T: DeserializeOwned>(
        self,
        text: &str,
    ) -> Result<T, StorageError> {
        serde_json::from_str(text).map_err(|error| self.corrupt(error.to_string()))
    }

    pub(in crate::storage) fn document_if<T: DeserializeOwned>(
        self,
        text: Option<String>,
    ) -> Result<Option<T>, StorageError> {
        text.map(|text| self.document(&text)).transpose()
    }

    /// What the word in a column stands for.
    pub(in crate::storage) fn known<T>(
        self,
        column: &str,
        word: Option<T>,
    ) -> Result<T, StorageError> {
        word.ok_or_else(|| self.corrupt(format!("{column} is not a known word")))
    }

    pub(in crate::storage) fn corrupt(self, problem: impl Into<String>) -> StorageError {
        let Self(table, id) = self;
        StorageError::Corrupt { table, id: id.to_string(), problem: problem.into() }
    }
}

pub(in crate::storage) fn count(number: i64) -> u32 {
    u32::try_from(number).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use time::Duration;

    use super::*;

    #[test]
    fn no_moment_is_held_as_an_earlier_one() {
        for (nanoseconds, held) in [(0, 0), (1, 1), (999_999, 1), (1_000_000, 1), (-1, 0)] {
            let at = OffsetDateTime::UNIX_EPOCH + Duration::nanoseconds(nanoseconds);
            assert_eq!(millis(at), held, "{nanoseconds}");
        }
    }
}
