//! Attempts: a key and a CSR each, stored before the CA hears of them.

use time::OffsetDateTime;
use uuid::Uuid;

use super::revisions::Revision;
use crate::domain::approval::Approval;
use crate::domain::id::{CertificateId, OrderId, RequestId};
use crate::domain::principal::PrincipalRef;
use crate::domain::scope::Scope;
use crate::domain::words::words;
use crate::secret::{Place, Sealed};
use crate::storage::engine::query::Filter;
use crate::storage::engine::{
    Page, Read, Rows, StorageError, Stored, Tx, fetch, json, millis, moment, statements, table,
    write,
};

table! {
    struct Row of requests {
        id: Uuid,
        name: String,
        certificate_id: Uuid,
        namespace: String,
        revision: i64,
        csr: Vec<u8>,
        state: String,
        message: String,
        order_id: Option<Uuid>,
        created_at: i64,
        finished_at: Option<i64>,
        requested_by: Option<String>,
        approval: Option<String>,
    }
}

statements! {
    INSERT adds(requests) = "INSERT INTO requests
        (id, certificate_id, namespace, revision, csr, private_key, state, message, order_id, created_at, name,
         requested_by, approval)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";
    FIND = Row::select("WHERE id = $1");
    PRIVATE_KEY = "SELECT private_key FROM requests WHERE id = $1";
    PRUNE writes(requests) reads(revisions) = "DELETE FROM requests WHERE certificate_id = $1 AND id <> $2
        AND id NOT IN (SELECT request_id FROM revisions WHERE certificate_id = $1 AND revision >= $3)";
    PROGRESS writes(requests) = "UPDATE requests SET state = $2, message = $3, order_id = $4, finished_at = $5 WHERE id = $1";
    DECIDE writes(requests) = "UPDATE requests SET approval = $2, state = $3, message = $4, finished_at = $5 WHERE id = $1";
}

/// One attempt at a certificate; cert-manager's `CertificateRequest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Our name for it.
    pub id: RequestId,
    /// The name that people type: the certificate's, and the revision.
    pub name: String,
    /// The certificate that it is for.
    pub certificate: CertificateId,
    /// The certificate's namespace.
    pub namespace: String,
    /// The revision that it makes, if it succeeds.
    pub revision: i64,
    /// What the CA is to sign, DER.
    pub csr: Vec<u8>,
    /// How far it is.
    pub state: RequestState,
    /// The same, in words.
    pub message: String,
    /// The present order; nil while there is none.
    pub order: OrderId,
    /// The principal whose change brought it; `None` if it was before that was kept.
    pub requested_by: Option<PrincipalRef>,
    /// Whether somebody has approved it; `None` where nobody had to.
    pub approval: Option<Approval>,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it ended.
    pub finished_at: Option<OffsetDateTime>,
}

words! {
    /// How far an attempt is.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum RequestState {
        /// An order is under way.
        Pending = "pending",
        /// There is a certificate.
        Issued = "issued",
        /// There is none, and this attempt will not bring one.
        Failed = "failed",
    }
}

impl Request {
    /// Whether no order was placed for it, and it is not over: it waits for approval, or for its turn.
    pub fn waits(&self) -> bool {
        self.state == RequestState::Pending && self.order.0.is_nil()
    }
}

/// Which attempts are wanted; everything that is given must hold.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Of this namespace.
    pub namespace: Option<String>,
    /// Of this name.
    pub name: Option<String>,
    /// For this certificate.
    pub certificate: Option<CertificateId>,
}

/// The place that a certificate's private key is sealed for, wherever it is kept.
pub fn private_key_place(namespace: &str, certificate: CertificateId, id: RequestId) -> Place {
    Place::new(format!("requests/private_key/{id}"), &format!("{certificate}/{namespace}"))
}

/// Adds an attempt with its sealed key; without one, the client holds it.
pub async fn insert<'a>(
    tx: &mut Tx,
    request: &Request,
    private_key: impl Into<Option<&'a Sealed>>,
) -> Result<(), StorageError> {
    let private_key: Option<&Sealed> = private_key.into();
    write!(
        tx,
        INSERT,
        request.id.0,
        request.certificate.0,
        request.namespace.as_str(),
        request.revision,
        request.csr.as_slice(),
        private_key.map_or(&[][..], |sealed| sealed.0.as_slice()),
        request.state.as_str(),
        request.message.as_str(),
        request.order.0,
        millis(request.created_at),
        request.name.as_str(),
        request.requested_by.as_ref().map(json),
        request.approval.as_ref().map(json),
    );
    Ok(())
}

/// An attempt that the caller may see.
pub async fn find(
    read: &mut Read,
    id: RequestId,
    scope: &Scope,
) -> Result<Option<Request>, StorageError> {
    let row: Option<Row> = fetch!(fetch_optional, read, FIND, id.0)?;
    row.filter(|row| scope.covers(&row.namespace)).map(Row::into_request).transpose()
}

/// The column of a key that a client holds is empty: no envelope is.
pub(in crate::storage) fn envelope(column: Vec<u8>) -> Option<Sealed> {
    (!column.is_empty()).then_some(Sealed(column))
}

/// The sealed key of an attempt; `None` where there is no such attempt, or the client holds the key.
pub async fn private_key(read: &mut Read, id: RequestId) -> Result<Option<Sealed>, StorageError> {
    let row: Option<(Vec<u8>,)> = fetch!(fetch_optional, read, PRIVATE_KEY, id.0)?;
    Ok(row.and_then(|(key,)| envelope(key)))
}

/// Saves how far an attempt is, and the order that now serves it.
pub async fn progress(
    tx: &mut Tx,
    id: RequestId,
    state: RequestState,
    message: &str,
    order: OrderId,
    now: OffsetDateTime,
) -> Result<(), StorageError> {
    let finished = (state != RequestState::Pending).then(|| millis(now));
    write!(tx, PROGRESS, id.0, state.as_str(), message, order.0, finished);
    Ok(())
}

/// Saves what was decided about an attempt that waits for approval. One that was denied is over.
pub async fn decide(
    tx: &mut Tx,
    id: RequestId,
    approval: &Approval,
    now: OffsetDateTime,
) -> Result<(), StorageError> {
    let (state, message, finished) = if approval.is_denied() {
        let message = "The CertificateRequest was denied by an approval controller";
        (RequestState::Failed, message, Some(millis(now)))
    } else {
        (RequestState::Pending, "The CertificateRequest waits for an order", None)
    };
    write!(tx, DECIDE, id.0, json(approval), state.as_str(), message, finished);
    Ok(())
}

/// An attempt has brought a revision: it is over, and the certificate's others are forgotten with their keys, but
/// for those that a revision from `oldest` on came from.
pub(in crate::storage) async fn issued(
    tx: &mut Tx,
    revision: &Revision,
    oldest: i64,
    message: &str,
) -> Result<(), StorageError> {
    let (request, state) = (revision.request.0, RequestState::Issued.as_str());
    let finished = millis(revision.issued_at);
    write!(tx, PROGRESS, request, state, message, revision.order.0, finished);
    write!(tx, PRUNE, revision.certificate.0, request, oldest);
    Ok(())
}

/// A page of attempts, by identifier.
pub async fn list(
    read: &mut Read,
    scope: &Scope,
    wanted: &Wanted,
    page: Page,
) -> Result<Rows<Request>, StorageError> {
    let mut filter = Filter::within("namespace", scope.namespaces());
    filter.and_if("namespace = ?", wanted.namespace.as_ref());
    filter.and_if("name = ?", wanted.name.as_ref());
    filter.and_if("certificate_id = ?", wanted.certificate.map(|it| it.0));
    let rows: Rows<Row> = filter.page(read, &Row::select(""), "id", page).await?;
    rows.map(Row::into_request)
}

impl Row {
    fn into_request(self) -> Result<Request, StorageError> {
        let row = Stored("requests", self.id);
        let requested_by = row.document_if(self.requested_by)?;
        let approval = row.document_if(self.approval)?;
        Ok(Request {
            id: RequestId(self.id),
            name: self.name,
            certificate: CertificateId(self.certificate_id),
            namespace: self.namespace,
            revision: self.revision,
            csr: self.csr,
            state: row.known("state", RequestState::parse(&self.state))?,
            message: self.message,
            order: OrderId(self.order_id.ok_or_else(|| row.corrupt("there is no order"))?),
            requested_by,
            approval,
            created_at: moment(self.created_at),
            finished_at: self.finished_at.map(moment),
        })
    }
}
