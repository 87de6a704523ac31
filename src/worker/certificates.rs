//! Begins attempts: when something has to be issued, makes key, CSR and order, and goes on with it.

use super::{Worker, WorkerError};
use crate::domain::backoff::Jitter;
use crate::domain::certificate::{Certificate, RotationPolicy, State, Transition};
use crate::domain::failure::{Class, Failure};
use crate::domain::id::{CertificateId, OrderId, RequestId};
use crate::domain::issuer::{self, Issuer};
use crate::domain::order::{self, ORDER_DEADLINE, Order, Outcome};
use crate::pki;
use crate::secret::Secret;
use crate::storage::lease::{Lease, Machine};
use crate::storage::requests::{Request, RequestState};
use crate::storage::{Scope, certificates, events, issuers, orders, requests, revisions};

impl Worker {
    pub(super) async fn certificate(&self, lease: Lease) -> Result<(), WorkerError> {
        let id = CertificateId(lease.id);
        let now = self.clock.now();
        let mut tx = self.db.read().await?;
        let Some((certificate, _)) = certificates::find(&mut tx, id, &Scope::Everything).await?
        else {
            return Ok(());
        };
        let reference = certificate.spec.issuer_ref.clone();
        let issuer =
            issuers::find_by_name(&mut tx, reference.kind, &certificate.namespace, &reference.name)
                .await?
                .map(|(issuer, _)| issuer);
        drop(tx);

        let woken = certificate.wake(now);
        match woken.certificate.state {
            State::Triggered(_) | State::AwaitingIssuer(_) => {}
            State::Ordering(_) => return self.watch(woken, lease).await,
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
                let waiting = woken.certificate.await_issuer("IssuerNotFound", &why, now);
                self.settle_certificate(waiting.after(woken.events), &lease).await
            }
            Some(issuer) if issuer.state != issuer::State::Ready => {
                let (_, reason, message) = issuer.ready();
                let why = format!(
                    "Referenced {} \"{}\" is not ready ({reason}): {message}",
                    reference.kind.as_str(),
                    reference.name
                );
                let waiting = woken.certificate.await_issuer("IssuerNotReady", &why, now);
                self.settle_certificate(waiting.after(woken.events), &lease).await
            }
            Some(issuer) => self.place_order(woken, &issuer, lease).await,
        }
    }

    /// Stores key and CSR, then the order; the CA hears of it only afterwards.
    async fn place_order(
        &self,
        woken: Transition,
        issuer: &Issuer,
        lease: Lease,
    ) -> Result<(), WorkerError> {
        let certificate = woken.certificate;
        let key = self.key_for(&certificate).await?;
        let spec = &certificate.spec;
        let csr = pki::make_csr(&key, &spec.dns_names, spec.common_name.as_deref())?;
        let now = self.clock.now();
        let request = RequestId::generate(now);
        let sealed = self.sealer.seal(&requests::private_key_place(request), key.expose())?;
        let id = OrderId::generate(now);
        let name = certificate.request_name();
        let order = Order {
            id,
            name: order::name(&name, id),
            certificate: certificate.id,
            request,
            issuer: issuer.id,
            namespace: certificate.namespace.clone(),
            names: spec.dns_names.clone(),
            profile: [&spec.profile, &issuer.acme.profile]
                .into_iter()
                .flatten()
                .find(|profile| !profile.is_empty())
                .cloned(),
            predecessors: 0,
            state: order::State::New,
            expires: None,
            challenges: Vec::new(),
            tries: 0,
            stalled_since: None,
            attempts: 0,
            last_error: None,
            created_at: now,
            handed_out_at: now,
            next_action_at: Some(now),
            deadline: now + ORDER_DEADLINE,
        };
        let attempt = Request {
            id: request,
            name,
            certificate: certificate.id,
            namespace: certificate.namespace.clone(),
            revision: certificate.next_revision(),
            csr,
            state: RequestState::Pending,
            message: format!("Waiting on certificate issuance from order {}", order.name),
            order: order.id,
            created_at: now,
            finished_at: None,
        };
        let placed = certificate.order_placed(request, order.id, now).after(woken.events);
        let mut tx = self.db.begin().await?;
        certificates::save(&mut tx, &placed.certificate, &lease, None).await?;
        requests::insert(&mut tx, &attempt, &sealed).await?;
        let order_lease = orders::insert(&mut tx, &order, Some((&self.settings.name, now))).await?;
        let certificate = &placed.certificate;
        events::record(&mut tx, &certificate.namespace, Some(certificate.id), &placed.events, now)
            .await?;
        if let Err(error) = tx.commit().await {
            // It may be there all the same; then nobody is working on it.
            self.release(Machine::Order, order.id.0).await;
            return Err(error.into());
        }
        self.carry_out(order, order_lease).await
    }

    /// The present key where it may be kept and fits, else a new one.
    async fn key_for(&self, certificate: &Certificate) -> Result<Secret<Vec<u8>>, WorkerError> {
        let wanted = &certificate.spec.private_key;
        // The API admits only kinds that can be made.
        let kind = wanted.kind().unwrap_or(crate::domain::certificate::KeyKind::P256);
        if let (RotationPolicy::Never, Some(issued)) =
            (wanted.rotation_policy, &certificate.current)
        {
            let mut tx = self.db.read().await?;
            let kept = revisions::private_key(&mut tx, certificate.id, issued.revision).await?;
            drop(tx);
            if let Some((sealed, request)) = kept {
                let key = self.sealer.open(&requests::private_key_place(request), &sealed)?;
                if pki::fits(&key, kind) {
                    return Ok(key);
                }
            }
        }
        Ok(tokio::task::spawn_blocking(move || pki::generate_key(kind)).await??)
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
        let failed = woken.certificate.order_failed(Outcome::Failed(failure), 0, now, Jitter::NONE);
        self.settle_certificate(failed, &lease).await
    }

    async fn settle_certificate(
        &self,
        transition: Transition,
        lease: &Lease,
    ) -> Result<(), WorkerError> {
        let Transition { certificate, events, .. } = transition;
        let now = self.clock.now();
        let mut tx = self.db.begin().await?;
        certificates::save(&mut tx, &certificate, lease, None).await?;
        events::record(&mut tx, &certificate.namespace, Some(certificate.id), &events, now).await?;
        tx.commit().await?;
        Ok(())
    }
}
