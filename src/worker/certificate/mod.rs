//! Begins attempts: when something has to be issued, makes key, CSR and order, and goes on with it.

mod keys;
mod renewal;

use super::order::session::Session;
use super::{Worker, WorkerError};
use crate::domain::backoff::Jitter;
use crate::domain::certificate::{Certificate, State, Transition};
use crate::domain::failure::{Class, Failure};
use crate::domain::id::{CertificateId, OrderId, RequestId};
use crate::domain::issuer;
use crate::domain::issuer::{Issuer, RenewalInformationSource};
use crate::domain::order::{Order, Outcome};
use crate::storage::lease::{Lease, Machine};
use crate::storage::requests::{Request, RequestState};
use crate::storage::{Scope, certificates, issuers, orders, requests};

impl Worker {
    pub(in crate::worker) async fn certificate(&self, lease: Lease) -> Result<(), WorkerError> {
        let id = CertificateId(lease.id);
        let mut tx = self.db.read().await?;
        let found = certificates::find(&mut tx, id, &Scope::Everything).await?;
        drop(tx);
        match found {
            Some((certificate, _)) => Box::pin(self.begin(certificate, lease)).await,
            None => Ok(()),
        }
    }

    /// Does what there is to do with a certificate as it was read, or added, under this lease.
    pub(in crate::worker) async fn begin(
        &self,
        certificate: Certificate,
        lease: Lease,
    ) -> Result<(), WorkerError> {
        let now = self.clock.now();
        let reference = certificate.spec.issuer_ref.clone();
        let (kind, namespace) = (reference.kind, &certificate.namespace);
        let issuer = issuers::recall_by_name(&self.db, kind, namespace, &reference.name).await?;

        if certificate.deleting_since.is_some() {
            return Box::pin(self.delete_at_last(certificate, &lease)).await;
        }
        let woken = certificate.wake(now);
        if woken.certificate.ari_is_due(now) {
            let told = Box::pin(self.ask_for_renewal(woken.certificate, issuer.as_ref())).await;
            return self.settle_certificate(told, &lease).await;
        }
        match woken.certificate.state {
            State::Triggered(_) | State::AwaitingIssuer(_) => {}
            State::Ordering(_) => return Box::pin(self.watch(woken, lease)).await,
            State::Idle | State::Backoff | State::Blocked => {
                return self.settle_certificate(woken, &lease).await;
            }
        }
        match issuer {
            None => {
                let why = format!(
                    "There is no {} named \"{}\"; create it, and this goes on by itself",
                    reference.kind.as_str(),
                    reference.name
                );
                let waiting = woken.then(|one| one.await_issuer("IssuerNotFound", &why, now));
                self.settle_certificate(waiting, &lease).await
            }
            Some(issuer) if issuer.state != issuer::State::Ready => {
                let (_, reason, message) = issuer.ready();
                let why = format!(
                    "Referenced {} \"{}\" is not ready ({reason}): {message}",
                    reference.kind.as_str(),
                    reference.name
                );
                let mut waiting = woken.then(|one| one.await_issuer("IssuerNotReady", &why, now));
                if let (Some(shown), Some(cause)) =
                    (&mut waiting.certificate.last_error, &issuer.last_error)
                {
                    // Where a person can act.
                    shown.instance.clone_from(&cause.instance);
                }
                self.settle_certificate(waiting, &lease).await
            }
            Some(issuer) => Box::pin(self.place_order(woken, &issuer, lease)).await,
        }
    }

    /// Stores key and CSR, then the order; the CA hears of it only afterwards.
    async fn place_order(
        &self,
        woken: Transition,
        issuer: &Issuer,
        lease: Lease,
    ) -> Result<(), WorkerError> {
        let certificate = &woken.certificate;
        let now = self.clock.now();
        let request = RequestId::generate(now);
        let id = OrderId::generate(now);
        let name = certificate.request_name();
        let made = match self.key_and_csr(certificate, request).await? {
            Ok(made) => made,
            Err(failure) => {
                let blocked = woken.then(|one| {
                    one.order_failed(Outcome::Blocked(failure), 0, now, super::jitter())
                });
                return self.settle_certificate(blocked, &lease).await;
            }
        };
        let spec = &certificate.spec;
        let account = issuer.account.as_ref().map(|account| account.url.as_str());
        let not_after = spec.not_after(now).filter(|_| issuer.acme.enable_duration_feature);
        let wants_ari = issuer.acme.renewal_information_source == RenewalInformationSource::Ari;
        let order = Order {
            profile: [&spec.profile, &issuer.acme.profile]
                .into_iter()
                .flatten()
                .find(|profile| !profile.is_empty())
                .cloned(),
            replaces: certificate.replaces(account).filter(|_| wants_ari),
            not_after,
            deadline: certificate.order_deadline(now, not_after),
            ..Order::placed(id, certificate, request, issuer.id, now)
        };
        let attempt = Request {
            id: request,
            name,
            certificate: certificate.id,
            namespace: certificate.namespace.clone(),
            revision: certificate.next_revision(),
            csr: made.csr,
            state: RequestState::Pending,
            message: format!("Waiting on certificate issuance from order {}", order.name),
            order: order.id,
            created_at: now,
            finished_at: None,
        };
        let mut placed = woken.then(|one| one.order_placed(request, order.id, now));
        placed.events.extend(made.event);
        let mut tx = self.db.begin();
        let lease = certificates::save(&mut tx, &placed, &lease, None).await?;
        requests::insert(&mut tx, &attempt, made.sealed.as_ref()).await?;
        // Where the issuer's share is used up, the order waits to be claimed like any other.
        let share = self.local.shares.take_issuer(issuer.id);
        let hold = share.as_ref().map(|_| (self.settings.name.as_str(), now));
        let order_lease = orders::insert(&mut tx, &order, hold).await?;
        if let Err(error) = tx.commit().await {
            // It may be there all the same; then nobody is working on it.
            self.release(Machine::Order, order.id.0).await;
            return Err(error.into());
        }
        let Some(_share) = share else { return Ok(()) };
        let session = Session::knowing(self, attempt.csr, placed.certificate, lease);
        // On the heap: on top of all that came before, it is too large to be handed around. What fails
        // from here on is the order's.
        let steps = Box::pin(self.carry_out(session, order, order_lease));
        self.see_through(&order_lease, steps).await;
        Ok(())
    }

    /// An order's end changes its certificate in one transaction, so this is never needed; but a
    /// certificate that waits for an order that is over would wait for ever.
    async fn watch(&self, woken: Transition, lease: Lease) -> Result<(), WorkerError> {
        let mut tx = self.db.read().await?;
        let order = match woken.certificate.order {
            Some(id) => orders::find(&mut tx, id, &Scope::Everything).await?,
            None => None,
        };
        drop(tx);
        let now = self.clock.now();
        if let Some((order, _)) = order.filter(|(order, _)| !order.is_over()) {
            let mut later = woken;
            later.certificate.next_action_at = order.deadline.max(now) + time::Duration::hours(1);
            return self.settle_certificate(later, &lease).await;
        }
        let failure = Failure::new(
            Class::Gone,
            "order_gone",
            "The order ended without telling its certificate",
            "This is a bug; a new attempt follows.",
        );
        let failed =
            woken.then(|one| one.order_failed(Outcome::Failed(failure), 0, now, Jitter::NONE));
        self.settle_certificate(failed, &lease).await
    }

    pub(in crate::worker) async fn settle_certificate(
        &self,
        transition: Transition,
        lease: &Lease,
    ) -> Result<(), WorkerError> {
        let mut tx = self.db.begin();
        certificates::save(&mut tx, &transition, lease, None).await?;
        tx.commit().await?;
        Ok(())
    }
}
