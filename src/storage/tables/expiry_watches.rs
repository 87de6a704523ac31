//! Watches over what is served.

use uuid::Uuid;

use super::{events, log, outbox};
use crate::domain::certificate::Certificate;
use crate::domain::expiry::{Stage, Transition, Watch};
use crate::domain::id::CertificateId;
use crate::storage::engine::{
    Read, StorageError, Stored, Tx, execute, fetch, millis, moment, statements, table, write,
};
use crate::storage::queue::lease::{Lease, Machine, held};

table! {
    struct Row of expiry_watches {
        id: Uuid,
        revision: i64,
        not_before: i64,
        not_after: i64,
        told: Option<String>,
        next_action_at: Option<i64>,
    }
}

statements! {
    ARM writes(expiry_watches) = "INSERT INTO expiry_watches (id, revision, not_before, not_after, next_action_at)
        VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (id) DO UPDATE SET revision = excluded.revision, not_before = excluded.not_before,
        not_after = excluded.not_after, told = NULL, next_action_at = excluded.next_action_at,
        leased_by = NULL, lease_token = expiry_watches.lease_token + 1";
    FIND = Row::select("WHERE id = $1");
    SAVE writes(expiry_watches) = "UPDATE expiry_watches SET told = $3, next_action_at = $4, leased_by = NULL,
        lease_token = lease_token + 1 WHERE id = $1 AND lease_token = $2";
}

/// Watches over a revision from now on, instead of the one before.
pub async fn arm(tx: &mut Tx, watch: &Watch) -> Result<(), StorageError> {
    write!(
        tx,
        ARM,
        watch.certificate.0,
        watch.revision,
        millis(watch.not_before),
        millis(watch.not_after),
        watch.next_action_at.map(millis),
    );
    if let Some(at) = watch.next_action_at {
        tx.wake_workers_at(millis(at));
    }
    Ok(())
}

/// The watch over what a certificate serves.
pub async fn find(
    read: &mut Read,
    certificate: CertificateId,
) -> Result<Option<Watch>, StorageError> {
    let row: Option<Row> = fetch!(fetch_optional, read, FIND, certificate.0)?;
    row.map(Row::into_domain).transpose()
}

/// Saves what a look made of a certificate's watch, if nothing was issued meanwhile; with it what is
/// told, and the history of that.
pub async fn save(
    tx: &mut Tx,
    transition: &Transition,
    certificate: &Certificate,
    lease: &Lease,
) -> Result<(), StorageError> {
    let Transition { watch, events, event_types, at } = transition;
    debug_assert_eq!(lease.machine, Machine::Expiry);
    let changed = execute!(
        tx,
        SAVE,
        watch.certificate.0,
        lease.token,
        watch.told.map(Stage::as_str),
        watch.next_action_at.map(millis),
    )?;
    held(lease, changed)?;
    outbox::about_certificate(tx, certificate, event_types, *at);
    log::of_expiry(tx, transition, certificate);
    events::record(tx, &certificate.namespace, Some(certificate.id), events, *at);
    Ok(())
}

impl Row {
    fn into_domain(self) -> Result<Watch, StorageError> {
        let row = Stored("expiry_watches", self.id);
        let told = self.told.map(|word| row.known("told", Stage::parse(&word)));

        Ok(Watch {
            certificate: CertificateId(self.id),
            revision: self.revision,
            not_before: moment(self.not_before),
            not_after: moment(self.not_after),
            told: told.transpose()?,
            next_action_at: self.next_action_at.map(moment),
        })
    }
}
