//! What was issued: chains with their sealed keys.

use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{expiry_watches, requests};
use crate::domain::expiry::Watch;
use crate::domain::id::{CertificateId, OrderId, RequestId};
use crate::domain::scope::Scope;
use crate::secret::Sealed;
use crate::storage::engine::query::{Filter, Value};
use crate::storage::engine::{
    Page, Read, Rows, StorageError, Tx, execute, fetch, millis, moment, statements, table, write,
};

table! {
    struct Row of revisions {
        certificate_id: Uuid,
        revision: i64,
        request_id: Uuid,
        order_id: Uuid,
        chain: String,
        serial: String,
        fingerprint: String,
        not_before: i64,
        not_after: i64,
        issued_at: i64,
        revoked_at: Option<i64>,
    }
}

statements! {
    INSERT adds(revisions) reads(requests) = "INSERT INTO revisions
        (certificate_id, revision, request_id, order_id, chain, private_key, serial, fingerprint,
         not_before, not_after, issued_at)
        SELECT $1, $2, id, $4, $5, private_key, $6, $7, $8, $9, $10 FROM requests WHERE id = $3";
    FIND = Row::select("WHERE certificate_id = $1 AND revision = $2");
    SHOW = format!(
        "SELECT (SELECT namespace FROM certificates WHERE id = $1) AS namespace, {} FROM revisions
         WHERE certificate_id = $1
           AND revision = coalesce($2, (SELECT revision FROM certificates WHERE id = $1))",
        Row::COLUMNS.names()
    );
    PRIVATE_KEY = "SELECT private_key, request_id FROM revisions
        WHERE certificate_id = $1 AND revision = $2";
    REVOKED writes(revisions) = "UPDATE revisions SET revoked_at = $3 WHERE certificate_id = $1 AND revision = $2";
    PRUNE writes(revisions) = "DELETE FROM revisions WHERE certificate_id = $1 AND revision < $2";
}

/// One issued certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// What it was issued for.
    pub certificate: CertificateId,
    /// Counts from 1.
    pub revision: i64,
    /// The attempt that brought it.
    pub request: RequestId,
    /// The order that brought it.
    pub order: OrderId,
    /// PEM, leaf first.
    pub chain: String,
    /// Hexadecimal.
    pub serial: String,
    /// SHA-256 of the leaf's DER, hexadecimal.
    pub fingerprint: String,
    /// Start of its validity.
    pub not_before: OffsetDateTime,
    /// End of its validity.
    pub not_after: OffsetDateTime,
    /// When we fetched it.
    pub issued_at: OffsetDateTime,
    /// When the CA took it back.
    pub revoked_at: Option<OffsetDateTime>,
}

/// Adds a revision, which ends its request (`message` says so), and watches over its end from now on. Its key is
/// that of its request, as it is sealed there.
///
/// Of the certificate's revisions the newest stay, `kept` of them; what older ones and their requests held is
/// forgotten, keys first of all.
pub async fn insert(
    tx: &mut Tx,
    revision: &Revision,
    kept: i64,
    message: &str,
) -> Result<(), StorageError> {
    let oldest = revision.revision - kept + 1;
    // It reads the request's key, which may be forgotten by what follows.
    write!(
        tx,
        INSERT,
        revision.certificate.0,
        revision.revision,
        revision.request.0,
        revision.order.0,
        revision.chain.as_str(),
        revision.serial.as_str(),
        revision.fingerprint.as_str(),
        millis(revision.not_before),
        millis(revision.not_after),
        millis(revision.issued_at),
    );
    requests::issued(tx, revision, oldest, message).await?;
    if oldest > 1 {
        write!(tx, PRUNE, revision.certificate.0, oldest);
    }
    let Revision { certificate, revision, not_before, not_after, .. } = *revision;
    expiry_watches::arm(tx, &Watch::over(certificate, revision, not_before, not_after)).await
}

/// One revision of a certificate.
pub async fn find(
    read: &mut Read,
    certificate: CertificateId,
    revision: i64,
) -> Result<Option<Revision>, StorageError> {
    let row: Option<Row> = fetch!(fetch_optional, read, FIND, certificate.0, revision)?;
    Ok(row.map(Row::into_revision))
}

/// One revision that the caller may see, or the present one, without the certificate.
pub async fn show(
    read: &mut Read,
    certificate: CertificateId,
    revision: Option<i64>,
    scope: &Scope,
) -> Result<Option<Revision>, StorageError> {
    let row: Option<Shown> = fetch!(fetch_optional, read, SHOW, certificate.0, revision)?;
    let seen = row.filter(|row| scope.covers(&row.namespace));
    Ok(seen.map(|shown| shown.row.into_revision()))
}

/// The CA has taken a revision back.
pub async fn revoked(
    tx: &mut Tx,
    certificate: CertificateId,
    revision: i64,
    at: OffsetDateTime,
) -> Result<(), StorageError> {
    execute!(tx, REVOKED, certificate.0, revision, millis(at))?;
    Ok(())
}

/// The sealed key of a revision, with the request that it was sealed for. The envelope is `None`
/// where the client holds the key.
pub async fn private_key(
    read: &mut Read,
    certificate: CertificateId,
    revision: i64,
) -> Result<Option<(Option<Sealed>, RequestId)>, StorageError> {
    let row: Option<(Vec<u8>, Uuid)> =
        fetch!(fetch_optional, read, PRIVATE_KEY, certificate.0, revision)?;
    Ok(row.map(|(key, request)| (requests::envelope(key), RequestId(request))))
}

/// A certificate's revisions, newest first.
pub async fn list(
    read: &mut Read,
    certificate: CertificateId,
    before: Option<i64>,
    page: Page,
) -> Result<Rows<Revision>, StorageError> {
    let mut filter = Filter::default();
    filter.and("certificate_id = ?", Value::Id(certificate.0));
    let select = Row::select("");
    let count = filter.counted(read, &select, page).await?;
    filter.and_if("revision < ?", before);
    let rows: Vec<Row> = filter.rows(read, &select, "revision DESC", page.limit + 1).await?;
    Ok(Rows { rows: rows.into_iter().map(Row::into_revision).collect(), count })
}

#[derive(FromRow)]
struct Shown {
    #[sqlx(flatten)]
    row: Row,
    namespace: String,
}

impl Row {
    fn into_revision(self) -> Revision {
        Revision {
            certificate: CertificateId(self.certificate_id),
            revision: self.revision,
            request: RequestId(self.request_id),
            order: OrderId(self.order_id),
            chain: self.chain,
            serial: self.serial,
            fingerprint: self.fingerprint,
            not_before: moment(self.not_before),
            not_after: moment(self.not_after),
            issued_at: moment(self.issued_at),
            revoked_at: self.revoked_at.map(moment),
        }
    }
}
