//! Steps that fail inside: by a bug, a row that cannot be read, a value that cannot be stored.
//!
//! Trying again in silence would hide them for ever. They become failures on their row like what fails
//! outside, with the pauses of those; the cause is for the log. Where not even that can be saved, the
//! row is put off, ever longer, and the log says so each time.

use std::any::Any;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Mutex, PoisonError};

use futures_util::FutureExt as _;
use time::Duration;
use uuid::Uuid;

use crate::domain::event::{Event, Resource};
use crate::domain::failure::{Failure, code};
use crate::domain::id::{CertificateId, IssuerId, OrderId, RevocationId, WebhookId};
use crate::storage::lease;
use crate::storage::lease::{Lease, Machine};
use crate::storage::{
    Scope, StorageError, Tx, certificates, events, issuers, orders, revocations, webhooks,
};
use crate::worker::{Worker, WorkerError};

/// The pause after a row was put off for the first time; it doubles.
const FIRST_PAUSE: Duration = Duration::minutes(2);
const LONGEST_PAUSE: Duration = Duration::hours(6);
/// More rows than this are not remembered: their pauses begin anew.
const MOST_REMEMBERED: usize = 10_000;

/// How often each row was put off in a row.
#[derive(Default)]
pub(in crate::worker) struct Stumbles(Mutex<HashMap<Uuid, u32>>);

impl Stumbles {
    /// How long to wait this time.
    fn pause(&self, id: Uuid) -> Duration {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_REMEMBERED {
            known.clear();
        }
        let times = known.entry(id).or_default();
        let pause = FIRST_PAUSE * 2_i32.saturating_pow((*times).min(20));
        *times += 1;
        pause.min(LONGEST_PAUSE)
    }

    fn forget(&self, id: Uuid) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}

/// What a failure inside has become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// It stands on the row, which is tried again in its time.
    OnTheRow,
    /// The row has no place for it, or waits for nothing: it is put off.
    Elsewhere,
    /// Somebody else has the row.
    NotOurs,
}

impl Worker {
    /// Takes a step, and has its row say what became of it, whatever that is.
    pub(in crate::worker) async fn see_through(
        &self,
        lease: &Lease,
        step: impl Future<Output = Result<(), WorkerError>>,
    ) {
        let result = unpanicked(step).await;
        self.ended(lease, result).await;
    }

    /// What becomes of a row whose step came to nothing.
    async fn ended(&self, lease: &Lease, result: Result<(), WorkerError>) {
        match result {
            Ok(()) => self.local.stumbles.forget(lease.id),
            Err(WorkerError::Storage(StorageError::LeaseLost(id))) => {
                tracing::info!(
                    %id,
                    machine = ?lease.machine,
                    "the lease was lost: somebody else changed or took it, and this step's result is void"
                );
            }
            Err(WorkerError::Storage(error @ StorageError::Unavailable(_))) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    id = %lease.id,
                    machine = ?lease.machine,
                    "the database went away during a step; it is repeated"
                );
                self.release(lease.machine, lease.id).await;
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    id = %lease.id,
                    machine = ?lease.machine,
                    "a step failed inside"
                );
                // On the heap, as everything that is seldom needed.
                Box::pin(self.failed_inside(lease)).await;
            }
        }
    }

    /// Has the row say so; or, where it cannot, puts it off.
    async fn failed_inside(&self, lease: &Lease) {
        match unpanicked(Box::pin(self.tell(lease))).await {
            Ok(Told::OnTheRow | Told::NotOurs)
            | Err(WorkerError::Storage(StorageError::LeaseLost(_))) => return,
            Ok(Told::Elsewhere) => {}
            Err(error) => tracing::error!(
                error = &error as &dyn std::error::Error,
                id = %lease.id,
                machine = ?lease.machine,
                "that a step failed inside cannot be kept on its row"
            ),
        }
        let pause = self.local.stumbles.pause(lease.id);
        let put_off = async {
            let mut tx = self.db.begin();
            let (owner, at) = (&self.settings.name, self.clock.now() + pause);
            lease::release(&mut tx, lease.machine, lease.id, owner, at).await?;
            tx.commit().await
        };
        match put_off.await {
            Ok(()) => tracing::warn!(
                id = %lease.id,
                machine = ?lease.machine,
                "it is tried again in {} min",
                pause.whole_minutes()
            ),
            Err(error) => tracing::error!(
                error = &error as &dyn std::error::Error,
                id = %lease.id,
                machine = ?lease.machine,
                "it cannot be put off either; it is tried again when its lease runs out"
            ),
        }
    }

    async fn tell(&self, lease: &Lease) -> Result<Told, WorkerError> {
        let mut tx = self.db.read().await?;
        let (owner, id) = (&self.settings.name, lease.id);
        let held = lease::held_by(&mut tx, lease.machine, id, owner).await?;
        drop(tx);
        let Some(held) = held else { return Ok(Told::NotOurs) };
        match lease.machine {
            Machine::Issuer => self.tell_issuer(IssuerId(id), &held).await,
            Machine::Certificate => self.tell_certificate(CertificateId(id), &held).await,
            Machine::Order => {
                let mut tx = self.db.read().await?;
                let found = orders::find(&mut tx, OrderId(id), &Scope::Everything).await?;
                drop(tx);
                // One that is over has nobody left to tell; its proofs are still to be taken away.
                let Some((order, _)) = found.filter(|(order, _)| !order.is_over()) else {
                    return Ok(Told::Elsewhere);
                };
                Box::pin(self.order_failed_inside(order, failure(lease), &held)).await?;
                Ok(Told::OnTheRow)
            }
            Machine::Revocation => {
                let mut tx = self.db.read().await?;
                let found = revocations::find(&mut tx, RevocationId(id)).await?;
                drop(tx);
                let Some((revocation, _)) = found else { return Ok(Told::Elsewhere) };
                let now = self.clock.now();
                let next = revocation.apply(Err(failure(lease)), now, crate::worker::jitter());
                self.settle_revocation(&next, &held).await?;
                Ok(Told::OnTheRow)
            }
            Machine::Expiry => self.tell_watch(CertificateId(id)).await,
            Machine::Delivery => self.tell_webhook(WebhookId(id), &held).await,
            Machine::Task => Ok(Told::Elsewhere),
        }
    }

    async fn tell_issuer(&self, id: IssuerId, held: &Lease) -> Result<Told, WorkerError> {
        let (now, failure) = (self.clock.now(), failure(held));
        let mut tx = self.db.begin();
        let found = issuers::find(&mut tx, id, &Scope::Everything).await?;
        let Some((issuer, _)) = found else { return Ok(Told::Elsewhere) };
        let next = if issuer.account_change.is_some() {
            let at = now + crate::domain::backoff::transient(issuer.tries, crate::worker::jitter());
            issuer.account_change_waits(Some(failure), at, now)
        } else {
            issuer.not_registered(failure, now, crate::worker::jitter())
        };
        issuers::save(&mut tx, &next, held).await?;
        tx.commit().await?;
        Ok(Told::OnTheRow)
    }

    async fn tell_certificate(&self, id: CertificateId, held: &Lease) -> Result<Told, WorkerError> {
        let now = self.clock.now();
        let mut tx = self.db.read().await?;
        let found = certificates::find(&mut tx, id, &Scope::Everything).await?;
        drop(tx);
        let Some((certificate, _)) = found else { return Ok(Told::Elsewhere) };
        let next = certificate.failed_inside(failure(held), now, crate::worker::jitter());
        self.settle_certificate(next, held).await?;
        Ok(Told::OnTheRow)
    }

    /// A watch has no place for a failure: its certificate's history has.
    async fn tell_watch(&self, id: CertificateId) -> Result<Told, WorkerError> {
        let mut tx = self.db.begin();
        let found = certificates::find(&mut tx, id, &Scope::Everything).await?;
        let Some((certificate, _)) = found else { return Ok(Told::Elsewhere) };
        let message = "Its end cannot be watched over: something inside fails; see the log";
        let event = Event::warning(Resource::Certificate(id), "InternalError", message);
        self.record(&mut tx, &certificate.namespace, id, event)?;
        tx.commit().await?;
        Ok(Told::Elsewhere)
    }

    /// It counts like an endpoint that takes no messages: shown with the webhook, and told in its time.
    async fn tell_webhook(&self, id: WebhookId, held: &Lease) -> Result<Told, WorkerError> {
        let now = self.clock.now();
        let mut tx = self.db.begin();
        let found = webhooks::find(&mut tx, id, &Scope::Everything).await?;
        let Some((webhook, _)) = found else { return Ok(Told::Elsewhere) };
        let words = failure(held).to_string();
        let next = webhook.failed(&words, None, now, crate::worker::jitter());
        webhooks::save(&mut tx, &next, held, Some(now)).await?;
        tx.commit().await?;
        Ok(Told::Elsewhere)
    }

    fn record(
        &self,
        tx: &mut Tx,
        namespace: &str,
        certificate: CertificateId,
        event: Event,
    ) -> Result<(), StorageError> {
        events::record(tx, namespace, Some(certificate), &[event], self.clock.now());
        Ok(())
    }
}

/// Says where to look, and nothing of the cause: that may be anything, and tenants read this.
fn failure(lease: &Lease) -> Failure {
    Failure::of(
        code::INTERNAL_ERROR,
        format!(
            "Something inside failed; it is tried again. The service's log has the cause, under {}.",
            lease.id
        ),
    )
}

/// A panic is a failure like others.
async fn unpanicked<T>(
    step: impl Future<Output = Result<T, WorkerError>>,
) -> Result<T, WorkerError> {
    AssertUnwindSafe(step)
        .catch_unwind()
        .await
        .unwrap_or_else(|panic| Err(WorkerError::Panicked(words(&*panic))))
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without words").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_is_put_off_ever_longer_until_it_succeeds() {
        let stumbles = Stumbles::default();
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let minutes: Vec<_> = (0..9).map(|_| stumbles.pause(one).whole_minutes()).collect();

        assert_eq!(minutes, [2, 4, 8, 16, 32, 64, 128, 256, 360]);
        assert_eq!(stumbles.pause(other), FIRST_PAUSE);
        stumbles.forget(one);
        assert_eq!(stumbles.pause(one), FIRST_PAUSE);
    }

    #[tokio::test]
    async fn a_panic_is_an_error_with_its_words() {
        let step = async {
            assert!(std::env::args().count() > 1_000_000, "the words");
            Ok(())
        };

        assert_eq!(unpanicked(step).await.unwrap_err().to_string(), "a step panicked: the words");
    }
}
