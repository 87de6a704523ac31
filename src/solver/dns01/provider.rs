//! The interface of a DNS provider.

use async_trait::async_trait;

use crate::domain::challenge::Record;
use crate::domain::failure::Failure;
use crate::domain::id::ChallengeId;

/// A TXT record that bears the mark of this installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ours {
    pub record: Record,
    /// The challenge that it was written for.
    pub challenge: ChallengeId,
}

/// The TXT records that one credential can edit.
///
/// An implementation stands for a credential and is shared by everybody who uses it. It marks what it
/// writes, and deletes nothing else. Every call may be repeated after a crash.
#[async_trait]
pub trait DnsProvider: Send + Sync {
    /// Writes a TXT record, or finds it where it is written already.
    async fn create(
        &self,
        name: &str,
        value: &str,
        challenge: ChallengeId,
    ) -> Result<Record, Failure>;

    /// Deletes a record that [`Self::create`] returned; that it is gone already is success.
    async fn delete(&self, record: &Record) -> Result<(), Failure>;

    /// Deletes the records of this installation at `name` with this value, and nothing else.
    async fn delete_by_value(&self, name: &str, value: &str) -> Result<(), Failure>;

    /// Lists the zones that this credential may have written to.
    async fn zones(&self) -> Result<Vec<String>, Failure>;

    /// Lists the records of this installation in a zone.
    async fn ours(&self, zone: &str) -> Result<Vec<Ours>, Failure>;
}
