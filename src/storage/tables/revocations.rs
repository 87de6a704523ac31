//! Revocations: what the CA has to be told, with all that it takes.

use uuid::Uuid;

use super::requests::envelope;
use crate::domain::id::{CertificateId, IssuerId, RequestId, RevocationId};
use crate::domain::revocation::{Reason, Revocation, State};
use crate::secret::Sealed;
use crate::storage::engine::{
    Read, StorageError, Stored, Tx, count, execute, fetch, json, millis, moment, statements, table,
};
use crate::storage::queue::lease::{Lease, held};

table! {
    struct Row of revocations {
        id: Uuid,
        certificate_id: Uuid,
        namespace: String,
        issuer_id: Uuid,
        revision: i64,
        reason: String,
        leaf: Vec<u8>,
        request_id: Uuid,
        private_key: Option<Vec<u8>>,
        state: String,
        tries: i64,
        last_error: Option<String>,
        created_at: i64,
        next_action_at: Option<i64>,
        deadline: i64,
    }
}

statements! {
    INSERT adds(revocations) reads(revisions) = "INSERT INTO revocations
        (id, certificate_id, namespace, issuer_id, revision, reason, leaf, request_id, private_key,
         state, tries, last_error, created_at, next_action_at, deadline)
        SELECT $1, certificate_id, $3, $4, revision, $6, $7, request_id, private_key,
               $8, $9, $10, $11, $12, $13
        FROM revisions WHERE certificate_id = $2 AND revision = $5";
    FIND = Row::select("WHERE id = $1");
    SAVE writes(revocations) = "UPDATE revocations SET
        state = $3, tries = $4, last_error = $5, next_action_at = $6,
        private_key = CASE WHEN $3 = 'pending' THEN private_key ELSE NULL END,
        leased_by = NULL, lease_token = lease_token + 1
        WHERE id = $1 AND lease_token = $2";
    OPEN_OF_REVISION = "SELECT id FROM revocations
        WHERE certificate_id = $1 AND revision = $2 AND state = 'pending' LIMIT 1";
    OPEN_OF_CERTIFICATE = "SELECT id FROM revocations
        WHERE certificate_id = $1 AND state = 'pending' LIMIT 1";
    OPEN_OF_ISSUER = "SELECT id FROM revocations
        WHERE issuer_id = $1 AND next_action_at IS NOT NULL LIMIT 1";
}

/// What it takes to revoke, beside the account.
#[derive(Debug)]
pub struct Evidence {
    /// The certificate, DER.
    pub leaf: Vec<u8>,
    /// The request that the key is sealed for.
    pub request: RequestId,
    /// The certificate's sealed key; `None` where the client holds it.
    pub private_key: Option<Sealed>,
}

/// Adds a revocation, due at once. The revision's key is kept for it, should the revision go.
pub async fn insert(tx: &mut Tx, revocation: &Revocation, leaf: &[u8]) -> Result<(), StorageError> {
    execute!(
        tx,
        INSERT,
        revocation.id.0,
        revocation.certificate.0,
        revocation.namespace.as_str(),
        revocation.issuer.0,
        revocation.revision,
        revocation.reason.as_str(),
        leaf,
        revocation.state.as_str(),
        i64::from(revocation.tries),
        revocation.last_error.as_ref().map(json),
        millis(revocation.created_at),
        revocation.next_action_at.map(millis),
        millis(revocation.deadline),
    )?;
    tx.wake_workers();
    Ok(())
}

/// A revocation, with what it takes.
pub async fn find(
    read: &mut Read,
    id: RevocationId,
) -> Result<Option<(Revocation, Evidence)>, StorageError> {
    let row: Option<Row> = fetch!(fetch_optional, read, FIND, id.0)?;
    row.map(Row::into_domain).transpose()
}

/// Saves what came of a try, if the lease is still held. Once it is over, the key is forgotten.
pub async fn save(tx: &mut Tx, revocation: &Revocation, lease: &Lease) -> Result<(), StorageError> {
    let changed = execute!(
        tx,
        SAVE,
        revocation.id.0,
        lease.token,
        revocation.state.as_str(),
        i64::from(revocation.tries),
        revocation.last_error.as_ref().map(json),
        revocation.next_action_at.map(millis),
    )?;
    held(lease, changed)?;
    tx.wake_workers();
    Ok(())
}

/// Whether a revision is being revoked.
pub async fn is_pending(
    read: &mut Read,
    certificate: CertificateId,
    revision: i64,
) -> Result<bool, StorageError> {
    let row: Option<(Uuid,)> =
        fetch!(fetch_optional, read, OPEN_OF_REVISION, certificate.0, revision)?;
    Ok(row.is_some())
}

/// Whether any revision of a certificate is being revoked.
pub async fn any_pending(
    read: &mut Read,
    certificate: CertificateId,
) -> Result<bool, StorageError> {
    let row: Option<(Uuid,)> = fetch!(fetch_optional, read, OPEN_OF_CERTIFICATE, certificate.0)?;
    Ok(row.is_some())
}

/// A revocation that still needs this issuer's account.
pub async fn any_of_issuer(
    read: &mut Read,
    issuer: IssuerId,
) -> Result<Option<RevocationId>, StorageError> {
    let row: Option<(Uuid,)> = fetch!(fetch_optional, read, OPEN_OF_ISSUER, issuer.0)?;
    Ok(row.map(|(id,)| RevocationId(id)))
}

impl Row {
    fn into_domain(self) -> Result<(Revocation, Evidence), StorageError> {
        let row = Stored("revocations", self.id);
        let revocation = Revocation {
            id: RevocationId(self.id),
            certificate: CertificateId(self.certificate_id),
            namespace: self.namespace,
            issuer: IssuerId(self.issuer_id),
            revision: self.revision,
            reason: row.known("reason", Reason::parse(&self.reason))?,
            state: row.known("state", State::parse(&self.state))?,
            tries: count(self.tries),
            last_error: row.document_if(self.last_error)?,
            created_at: moment(self.created_at),
            next_action_at: self.next_action_at.map(moment),
            deadline: moment(self.deadline),
        };
        let evidence = Evidence {
            leaf: self.leaf,
            request: RequestId(self.request_id),
            private_key: self.private_key.and_then(envelope),
        };
        Ok((revocation, evidence))
    }
}
