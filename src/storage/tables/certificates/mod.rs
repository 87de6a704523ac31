//! Certificates: what is wanted, what is served, and when it wants attention.

mod list;

pub use list::{Position, Sort, Wanted, list, list_by};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::fair::Claimed;
use super::{audit, events, log, outbox};
use crate::domain::certificate::{Certificate, Issued, State, Told, Transition, Trigger};
use crate::domain::failure::Failure;
use crate::domain::id::{CertificateId, OrderId, RequestId};
use crate::domain::issuer;
use crate::domain::policy::AdmittedBy;
use crate::domain::principal::{PrincipalKind, PrincipalRef};
use crate::domain::scope::Scope;
use crate::domain::trace::Trace;
use crate::storage::engine::{
    Read, StorageError, Stored, Tx, count as number, execute, fetch, json, millis, moment,
    statements, table, write,
};
use crate::storage::queue::handoff;
use crate::storage::queue::handoff::Reservation;
use crate::storage::queue::lease::{LEASE, Lease, Machine, lease_end};
use crate::telemetry::trace;

/// When what is served ends, in milliseconds: what the index `certificates_by_end` is on, word by word.
macro_rules! end {
    () => {
        "COALESCE(not_after, 9223372036854775807)"
    };
}
/// The end of what was never issued: after all others.
macro_rules! never {
    () => {
        "9223372036854775807"
    };
}
pub(super) use {end, never};

table! {
    pub(super) struct Row of certificates {
        insert {
            id: Uuid,
            namespace: String,
            name: String,
            issuer_kind: String,
            issuer_name: String,
            created_at: i64,
        }
        save {
            labels: String,
            spec: String,
            admitted_way: String,
            admitted_by: String,
            requested_by: Option<String>,
            generation: i64,
            state: String,
            wanted_because: String,
            state_since: i64,
            revision: i64,
            serial: Option<String>,
            not_before: Option<i64>,
            not_after: Option<i64>,
            renewal_time: Option<i64>,
            failed_attempts: i64,
            last_error: Option<String>,
            request_id: Option<Uuid>,
            awaits_approval: bool,
            approved_revision: Option<i64>,
            order_id: Option<Uuid>,
            trace: Option<String>,
            failure_told: bool,
            block_told: bool,
            ari: Option<String>,
            revocation: Option<String>,
            deleting_since: Option<i64>,
        }
        read { next_action_at: i64, lease_token: i64 }
    }
}

// With a holder, next_action_at is when its lease ends: by the database's clock where that is another.
fn insert_text(wake: &str) -> String {
    Row::insert(&[("next_action_at", wake), ("leased_by", "$2")])
}

statements! {
    INSERT adds(certificates) = insert_text("$1"),
        insert_text(&format!("CASE WHEN $2::text IS NULL THEN $1 ELSE {} END", lease_end("$1")));
    // A list travels as JSON: the two databases have no other form of it in common.
    INSERT_NAMES adds(certificate_names) = "INSERT INTO certificate_names (certificate_id, name) SELECT $1, value FROM json_each($2)",
        "INSERT INTO certificate_names (certificate_id, name) SELECT $1, json_array_elements_text($2::json)";
    INSERT_LABELS adds(certificate_labels) = "INSERT INTO certificate_labels (certificate_id, label) SELECT $1, value FROM json_each($2)",
        "INSERT INTO certificate_labels (certificate_id, label) SELECT $1, json_array_elements_text($2::json)";
    FIND = Row::select("WHERE id = $1");
    FIND_BY_NAME = Row::select("WHERE namespace = $1 AND name = $2");
    SAVE writes(certificates) = format!(
        "UPDATE certificates SET next_action_at = $3,
            leased_by = CASE WHEN $4 THEN leased_by ELSE NULL END, lease_token = lease_token + 1, {}
         WHERE id = $1 AND lease_token = $2",
        Row::SAVED.assignments_after(4)
    );
    SAVE_ISSUER writes(certificates) = "UPDATE certificates SET issuer_kind = $2, issuer_name = $3 WHERE id = $1";
    DELETE_NAMES writes(certificate_names) = "DELETE FROM certificate_names WHERE certificate_id = $1";
    DELETE_LABELS writes(certificate_labels) = "DELETE FROM certificate_labels WHERE certificate_id = $1";
    NOTE writes(certificates) = "UPDATE certificates SET last_error = $3 WHERE id = $1 AND order_id = $2";
    DELETE writes(certificates, certificate_names, certificate_labels, requests, revisions, expiry_watches) = "DELETE FROM certificates WHERE id = $1";
    WAKE_WAITING writes(certificates) = "UPDATE certificates SET next_action_at = $4, lease_token = lease_token + 1, leased_by = NULL
        WHERE issuer_kind = $1 AND issuer_name = $2 AND (namespace = $3 OR $3 = '')
          AND state IN ('triggered', 'awaiting_issuer', 'blocked')";
    WAKE_STILL_WAITING writes(certificates) = "UPDATE certificates SET next_action_at = $4, lease_token = lease_token + 1, leased_by = NULL
        WHERE issuer_kind = $1 AND issuer_name = $2 AND (namespace = $3 OR $3 = '')
          AND state = 'awaiting_issuer' AND next_action_at > $4 AND leased_by IS NULL";
    // Whoever is at one of them takes its step again, lest the approval is saved once more.
    DISAPPROVE writes(certificates) = "UPDATE certificates SET approved_revision = NULL, lease_token = lease_token + 1,
            next_action_at = CASE WHEN leased_by IS NULL THEN next_action_at ELSE $4 END, leased_by = NULL
        WHERE issuer_kind = $1 AND issuer_name = $2 AND (namespace = $3 OR $3 = '') AND approved_revision IS NOT NULL";
    USES_ISSUER = "SELECT id FROM certificates
        WHERE issuer_kind = $1 AND issuer_name = $2 AND (namespace = $3 OR $3 = '') LIMIT 1";
}

/// Adds a certificate. One that is to be issued at once is handed over to this process's worker with the
/// commit, where that has a place for it ([`crate::storage::queue::handoff`]).
pub async fn insert(tx: &mut Tx, certificate: &Certificate) -> Result<(), StorageError> {
    let row = Row::from(certificate);
    let is_due = matches!(certificate.state, State::Triggered(_))
        && certificate.next_action_at <= certificate.created_at;
    let reservation = if is_due { handoff::reserve(tx, &certificate.namespace) } else { None };
    let owner = reservation.as_ref().map(Reservation::owner);
    audit::changes(tx, "certificates", row.id, &certificate.namespace);
    let wake = owner.map_or(row.next_action_at, |_| millis(certificate.created_at + LEASE));
    write!(tx, INSERT, wake, owner; row.bind_inserted);
    index(tx, certificate).await?;
    match reservation {
        Some(reservation) => {
            let certificate = Certificate { trace: trace_of(certificate), ..certificate.clone() };
            handoff::hand_off(tx, reservation, certificate);
        }
        None => tx.wake_workers(),
    }
    Ok(())
}

async fn index(tx: &mut Tx, certificate: &Certificate) -> Result<(), StorageError> {
    write!(tx, INSERT_NAMES, certificate.id.0, json(&certificate.spec.names()));
    if !certificate.labels.is_empty() {
        let labels = certificate.labels.iter().map(|(key, value)| format!("{key}={value}"));
        write!(tx, INSERT_LABELS, certificate.id.0, json(&labels.collect::<Vec<_>>()));
    }
    Ok(())
}

/// A certificate that the caller may see.
pub async fn find(
    read: &mut Read,
    id: CertificateId,
    scope: &Scope,
) -> Result<Option<(Certificate, Lease)>, StorageError> {
    let row: Option<Row> = fetch!(fetch_optional, read, FIND, id.0)?;
    row.filter(|row| scope.covers(&row.namespace)).map(Row::into_domain).transpose()
}

/// Like [`find`], by the client's name for it.
pub async fn find_by_name(
    read: &mut Read,
    namespace: &str,
    name: &str,
) -> Result<Option<(Certificate, Lease)>, StorageError> {
    let row: Option<Row> = fetch!(fetch_optional, read, FIND_BY_NAME, namespace, name)?;
    row.map(Row::into_domain).transpose()
}

/// Saves what may change in a certificate's life, if nobody else did since it was read; with it the
/// history of what happened, and what is told of it.
///
/// With `hold` the worker goes on with it; the returned lease is the one that counts from now on. That the
/// lease was lost may be told only with the next question, or the commit.
pub async fn save(
    tx: &mut Tx,
    transition: &Transition,
    lease: &Lease,
    hold: Option<OffsetDateTime>,
) -> Result<Lease, StorageError> {
    let Transition { certificate, events, at, .. } = transition;
    let row = Row::from(certificate);
    let wake = hold.map_or(row.next_action_at, |now| millis(now + LEASE));
    write!(tx, lease => SAVE, row.id, lease.token, wake, hold.is_some(); row.bind_saved);
    audit::changes(tx, "certificates", row.id, &certificate.namespace);
    outbox::of_certificate(tx, transition);
    log::of_certificate(tx, transition);
    audit::of_certificate(tx, transition);
    events::record(tx, &certificate.namespace, Some(certificate.id), events, *at);
    if certificate.is_settled() {
        tx.has_settled(row.id);
    }
    if hold.is_none() {
        tx.wake_workers_at(wake);
    }
    Ok(Lease { token: lease.token + 1, ..*lease })
}

/// Like [`save`], for a certificate whose issuer, names or labels may have changed too.
pub async fn respecify(
    tx: &mut Tx,
    transition: &Transition,
    lease: &Lease,
) -> Result<Lease, StorageError> {
    let next = save(tx, transition, lease, None).await?;
    let certificate = &transition.certificate;
    let issuer = &certificate.spec.issuer_ref;
    execute!(tx, SAVE_ISSUER, certificate.id.0, issuer.kind.as_str(), issuer.name.as_str())?;
    execute!(tx, DELETE_NAMES, certificate.id.0)?;
    execute!(tx, DELETE_LABELS, certificate.id.0)?;
    index(tx, certificate).await?;
    Ok(next)
}

/// Shows with a certificate what its order is struggling with just now, or that it is not any more.
///
/// Changes nothing that anybody decides by, and so takes no lease away.
pub async fn note(
    tx: &mut Tx,
    id: CertificateId,
    order: OrderId,
    trouble: Option<&Failure>,
) -> Result<(), StorageError> {
    write!(tx, NOTE, id.0, order.0, trouble.map(json));
    Ok(())
}

/// Forgets a certificate with its requests and revisions.
pub async fn delete(tx: &mut Tx, id: CertificateId) -> Result<(), StorageError> {
    execute!(tx, DELETE, id.0)?;
    tx.has_settled(id.0);
    Ok(())
}

/// Has every certificate look again that waits for this issuer, or is blocked under it.
///
/// Those that are just being worked on lose their lease, so that none saves that it has to wait.
pub async fn wake_waiting(
    tx: &mut Tx,
    kind: issuer::Kind,
    namespace: &str,
    name: &str,
    now: OffsetDateTime,
) -> Result<u64, StorageError> {
    let woken = execute!(tx, WAKE_WAITING, kind.as_str(), name, namespace, millis(now))?;
    tx.wake_workers();
    Ok(woken)
}

/// Has every certificate look again that waits for this issuer although [`wake_waiting`] has woken those that
/// waited then. Those that are being worked on have begun since.
pub async fn wake_still_waiting(
    tx: &mut Tx,
    kind: issuer::Kind,
    namespace: &str,
    name: &str,
    now: OffsetDateTime,
) -> Result<u64, StorageError> {
    let woken = execute!(tx, WAKE_STILL_WAITING, kind.as_str(), name, namespace, millis(now))?;
    tx.wake_workers();
    Ok(woken)
}

/// Forgets which revisions were approved of the certificates that refer to this issuer.
pub async fn disapprove(
    tx: &mut Tx,
    kind: issuer::Kind,
    namespace: &str,
    name: &str,
    now: OffsetDateTime,
) -> Result<(), StorageError> {
    execute!(tx, DISAPPROVE, kind.as_str(), name, namespace, millis(now))?;
    Ok(())
}

/// A certificate that refers to this issuer, if there is one.
pub async fn any_of_issuer(
    read: &mut Read,
    kind: issuer::Kind,
    namespace: &str,
    name: &str,
) -> Result<Option<CertificateId>, StorageError> {
    let row: Option<(Uuid,)> =
        fetch!(fetch_optional, read, USES_ISSUER, kind.as_str(), name, namespace)?;
    Ok(row.map(|(id,)| CertificateId(id)))
}

/// An issuance that begins belongs to what the caller is doing, unless it has a trace already.
fn trace_of(certificate: &Certificate) -> Option<Trace> {
    certificate.trace.or_else(|| certificate.is_under_way().then(trace::current).flatten())
}

impl From<&Certificate> for Row {
    fn from(certificate: &Certificate) -> Self {
        let current = certificate.current.as_ref();
        let (admitted_way, admitted_by) = certificate.admitted_by.parts();
        let state = match certificate.state {
            State::Triggered(_) => "triggered",
            State::AwaitingIssuer(_) => "awaiting_issuer",
            State::Ordering(_) => "ordering",
            State::Idle => "idle",
            State::Backoff => "backoff",
            State::Blocked | State::AwaitingApproval(_) => "blocked",
        };
        Self {
            id: certificate.id.0,
            namespace: certificate.namespace.clone(),
            name: certificate.name.clone(),
            issuer_kind: certificate.spec.issuer_ref.kind.as_str().to_owned(),
            issuer_name: certificate.spec.issuer_ref.name.clone(),
            labels: json(&certificate.labels),
            spec: json(&certificate.spec),
            admitted_way: admitted_way.to_owned(),
            admitted_by: admitted_by.to_owned(),
            requested_by: Askers::of(certificate).as_ref().map(json),
            generation: certificate.generation,
            state: state.to_owned(),
            wanted_because: certificate.wanted_because().as_str().to_owned(),
            state_since: millis(certificate.state_since),
            revision: current.map_or(0, |issued| issued.revision),
            serial: current.map(|issued| issued.serial.clone()),
            not_before: current.map(|issued| millis(issued.not_before)),
            not_after: current.map(|issued| millis(issued.not_after)),
            renewal_time: current.map(|issued| millis(issued.renewal_time)),
            failed_attempts: certificate.failed_attempts.into(),
            last_error: certificate.last_error.as_ref().map(json),
            request_id: certificate.request.map(|request| request.0),
            awaits_approval: matches!(certificate.state, State::AwaitingApproval(_)),
            approved_revision: certificate.approved,
            order_id: certificate.order.map(|order| order.0),
            trace: trace_of(certificate).as_ref().map(Trace::to_string),
            created_at: millis(certificate.created_at),
            next_action_at: millis(certificate.next_action_at),
            failure_told: certificate.told.failed,
            block_told: certificate.told.blocked,
            ari: certificate.ari.as_ref().map(json),
            revocation: certificate.revocation.as_ref().map(json),
            deleting_since: certificate.deleting_since.map(millis),
            lease_token: 0,
        }
    }
}

/// The column `requested_by`: a principal, and whoever has had the same issued anew. Its fields are written out, as
/// flattened ones are read in a detour.
#[derive(Serialize, Deserialize)]
struct Askers {
    kind: PrincipalKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Uuid>,
    name: String,
    #[serde(default, rename = "triggeredBy", skip_serializing_if = "Option::is_none")]
    triggered_by: Option<PrincipalRef>,
}

impl Askers {
    fn of(certificate: &Certificate) -> Option<Self> {
        let PrincipalRef { kind, id, name } = certificate.requested_by.clone()?;
        Some(Self { kind, id, name, triggered_by: certificate.triggered_by.clone() })
    }

    fn parts(self) -> (PrincipalRef, Option<PrincipalRef>) {
        let Self { kind, id, name, triggered_by } = self;
        (PrincipalRef { kind, id, name }, triggered_by)
    }
}

impl Row {
    /// What a claim has found. Whoever takes the step of a row that cannot be read says so.
    pub(super) fn into_claimed(self) -> Claimed {
        let lease = Lease { machine: Machine::Certificate, id: self.id, token: self.lease_token };
        let certificate = self.into_domain().ok().map(|(certificate, _)| Box::new(certificate));
        Claimed { lease, certificate }
    }

    fn into_domain(self) -> Result<(Certificate, Lease), StorageError> {
        let row = Stored("certificates", self.id);
        let trigger = row.known("wanted_because", Trigger::parse(&self.wanted_because))?;
        let state = match self.state.as_str() {
            "triggered" => State::Triggered(trigger),
            "awaiting_issuer" => State::AwaitingIssuer(trigger),
            "ordering" => State::Ordering(trigger),
            "idle" => State::Idle,
            "backoff" => State::Backoff,
            "blocked" if self.awaits_approval => State::AwaitingApproval(trigger),
            "blocked" => State::Blocked,
            _ => return row.known("state", None),
        };
        let right = AdmittedBy::of_parts(&self.admitted_way, self.admitted_by);
        let admitted_by = row.known("admitted_way", right)?;
        let current = match (self.serial, self.not_before, self.not_after, self.renewal_time) {
            (Some(serial), Some(not_before), Some(not_after), Some(renewal_time)) => Some(Issued {
                revision: self.revision,
                serial,
                not_before: moment(not_before),
                not_after: moment(not_after),
                renewal_time: moment(renewal_time),
            }),
            _ => None,
        };
        let last_error = row.document_if(self.last_error)?;
        let askers: Option<Askers> = row.document_if(self.requested_by)?;
        let (requested_by, triggered_by) = askers.map(Askers::parts).unzip();
        let triggered_by = triggered_by.flatten();
        let ari = row.document_if(self.ari)?;
        let revocation = row.document_if(self.revocation)?;
        let certificate = Certificate {
            id: CertificateId(self.id),
            namespace: self.namespace,
            name: self.name,
            labels: row.document(&self.labels)?,
            spec: row.document(&self.spec)?,
            admitted_by,
            requested_by,
            triggered_by,
            generation: self.generation,
            state,
            state_since: moment(self.state_since),
            current,
            ari,
            revocation,
            deleting_since: self.deleting_since.map(moment),
            failed_attempts: number(self.failed_attempts),
            told: Told { failed: self.failure_told, blocked: self.block_told },
            last_error,
            request: self.request_id.map(RequestId),
            approved: self.approved_revision,
            order: self.order_id.map(OrderId),
            trace: self.trace.and_then(|text| text.parse().ok()),
            created_at: moment(self.created_at),
            next_action_at: moment(self.next_action_at),
        };
        let lease = Lease { machine: Machine::Certificate, id: self.id, token: self.lease_token };
        Ok((certificate, lease))
    }
}
