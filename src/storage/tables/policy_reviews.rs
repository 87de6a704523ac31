//! Reviews: namespaces whose certificates are judged anew because a policy or an issuer has changed. A row is gone through page by
//! page, under a lease, and is deleted at the end.

use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::id::{CertificateId, PolicyReviewId};
use crate::domain::issuer;
use crate::domain::policy::EVERY;
use crate::storage::engine::{Read, StorageError, Tx, execute, fetch, millis, statements, write};
use crate::storage::queue::lease::{Lease, held};

statements! {
    // A review that is under way begins anew: what it has judged so far was by other policies.
    BEGIN writes(policy_reviews) = "INSERT INTO policy_reviews (id, namespace, next_action_at) VALUES ($1, $2, $3)
        ON CONFLICT (namespace) DO UPDATE SET reviewed_to = NULL, next_action_at = excluded.next_action_at,
            leased_by = NULL, lease_token = policy_reviews.lease_token + 1";
    FIND = "SELECT namespace, reviewed_to FROM policy_reviews WHERE id = $1";
    ADVANCE writes(policy_reviews) = "UPDATE policy_reviews SET reviewed_to = $3, next_action_at = $4, leased_by = NULL,
            lease_token = lease_token + 1
        WHERE id = $1 AND lease_token = $2";
    END writes(policy_reviews) = "DELETE FROM policy_reviews WHERE id = $1 AND lease_token = $2";
}

/// How far a review is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Review {
    /// `*` is every namespace.
    pub namespace: String,
    /// The last certificate that was judged.
    pub reviewed_to: Option<CertificateId>,
}

/// Begins reviews of these namespaces, or begins them anew.
pub(in crate::storage) async fn begin(
    tx: &mut Tx,
    namespaces: &[String],
    now: OffsetDateTime,
) -> Result<(), StorageError> {
    // In one order, so that two changes do not wait for each other.
    let mut namespaces: Vec<&str> = namespaces.iter().map(String::as_str).collect();
    namespaces.sort_unstable();
    namespaces.dedup();
    for namespace in namespaces {
        write!(tx, BEGIN, PolicyReviewId::generate(now).0, namespace, millis(now));
    }
    tx.wake_workers();
    Ok(())
}

/// Begins the review of whatever may refer to an issuer of this kind in this namespace, or begins it anew.
pub async fn begin_for_issuer(
    tx: &mut Tx,
    kind: issuer::Kind,
    namespace: &str,
    now: OffsetDateTime,
) -> Result<(), StorageError> {
    let namespace = match kind {
        issuer::Kind::Issuer => namespace,
        issuer::Kind::ClusterIssuer => EVERY,
    };
    begin(tx, &[namespace.to_owned()], now).await
}

/// The review of this row, if it is not over.
pub async fn find(read: &mut Read, id: PolicyReviewId) -> Result<Option<Review>, StorageError> {
    let row: Option<(String, Option<Uuid>)> = fetch!(fetch_optional, read, FIND, id.0)?;
    Ok(row.map(|(namespace, reviewed_to)| Review {
        namespace,
        reviewed_to: reviewed_to.map(CertificateId),
    }))
}

/// Saves how far a review is; it goes on at once. With `None` it is over.
pub async fn settle(
    tx: &mut Tx,
    lease: &Lease,
    reviewed_to: Option<CertificateId>,
    now: OffsetDateTime,
) -> Result<(), StorageError> {
    let changed = match reviewed_to {
        Some(last) => execute!(tx, ADVANCE, lease.id, lease.token, last.0, millis(now))?,
        None => execute!(tx, END, lease.id, lease.token)?,
    };
    held(lease, changed)?;
    tx.wake_workers();
    Ok(())
}
