//! One run with one order: what it needs from the database, and the live handle at the CA.
//!
//! A handle that is kept from step to step spares requests; one that is not there is restored from
//! the order's URL. Losing it loses nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::Fetched;
use super::chains;
use crate::ca;
use crate::ca::{Account, Meter};
use crate::domain::caa;
use crate::domain::certificate::Certificate;
use crate::domain::challenge::Kind;
use crate::domain::event::{Event, Resource};
use crate::domain::failure::{Class, Failure, code};
use crate::domain::issuer::Issuer;
use crate::domain::order::{Answer, Conditions, Order, Requests, Seen, Status, Step};
use crate::pki;
use crate::pki::Issued;
use crate::secret::Sealed;
use crate::solver::Expected;
use crate::storage::lease::Lease;
use crate::storage::{Scope, certificates, issuers, requests};
use crate::worker::limits::admission::Admission;
use crate::worker::{STEP_TIMEOUT, Worker, WorkerError};

mod authorizations;
mod solving;

use authorizations::why_invalid;
use solving::Chosen;
pub(in crate::worker) use solving::Solving;

pub(in crate::worker) struct Session<'a> {
    pub(in crate::worker) worker: &'a Worker,
    pub(in crate::worker) admission: Admission,
    /// Counts the requests of the present step.
    pub(in crate::worker) meter: Arc<Meter>,
    issuer: Option<Arc<Issuer>>,
    account: Option<Arc<Account>>,
    /// The sealed key that the account signs with.
    signs_with: Option<Sealed>,
    handle: Option<ca::Order>,
    solvers: HashMap<(u32, Kind), Chosen>,
    csr: Option<Vec<u8>>,
    /// What the order is for, as it was when that was placed.
    certificate: Option<(Certificate, Lease)>,
    /// From the beginning of an order until its proofs are about to be shown.
    expected: Option<Expected>,
    /// Set by a successful download, for the transaction that concludes the order.
    pub(in crate::worker) fetched: Option<Fetched>,
}

pub(in crate::worker) type Tried<T> = Result<T, Trouble>;

/// Why a step has no answer of its own.
pub(in crate::worker) enum Trouble {
    /// The outside world's doing: the order machine decides what it means.
    Failed(Failure),
    /// Ours.
    Broken(WorkerError),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl<E: Into<WorkerError>> From<E> for Trouble {
    fn from(error: E) -> Self {
        Self::Broken(error.into())
    }
}

impl<'a> Session<'a> {
    pub(in crate::worker) fn new(worker: &'a Worker) -> Self {
        Self {
            worker,
            admission: Admission::default(),
            meter: Meter::new(0, Requests::default()),
            issuer: None,
            account: None,
            signs_with: None,
            handle: None,
            solvers: HashMap::new(),
            csr: None,
            certificate: None,
            expected: None,
            fetched: None,
        }
    }

    /// For an order that was placed just now: what is known of its attempt need not be read again.
    pub(in crate::worker) fn knowing(
        worker: &'a Worker,
        csr: Vec<u8>,
        certificate: Certificate,
        lease: Lease,
    ) -> Self {
        Self { csr: Some(csr), certificate: Some((certificate, lease)), ..Self::new(worker) }
    }

    /// The certificate as it was when the order was placed, if that was in this run.
    pub(in crate::worker) fn certificate(&self) -> Option<&(Certificate, Lease)> {
        self.certificate.as_ref()
    }

    /// Does what a step says; what goes wrong in the outside world is an answer too.
    pub(in crate::worker) async fn take(
        &mut self,
        step: Step,
        order: &Order,
    ) -> Result<(Answer, Conditions), WorkerError> {
        let meter = Meter::new(order.names.len(), order.course.requests.clone());
        self.meter = Arc::clone(&meter);
        let attempt = Box::pin(meter.scope(self.attempt(step.clone(), order)));
        let tried = tokio::time::timeout(STEP_TIMEOUT, attempt).await;
        let mut answer = self.understand(tried, order).await?;
        if let Answer::Failed(failure) | Answer::Ended(failure) = &mut answer {
            self.say_what_allows(failure, order);
        }
        self.heed(&step, &answer, order);
        let conditions = Conditions {
            jitter: crate::worker::jitter(),
            first_look: self.first_look(&step),
            requests: Some(meter.requests()),
        };
        Ok((answer, conditions))
    }

    async fn understand(
        &mut self,
        tried: Result<Tried<Answer>, tokio::time::error::Elapsed>,
        order: &Order,
    ) -> Result<Answer, WorkerError> {
        match tried {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Trouble::Broken(WorkerError::Secret(error)))) => {
                Ok(Answer::Failed(crate::worker::unreadable(&error)))
            }
            Ok(Err(Trouble::Broken(error))) => Err(error),
            Ok(Err(Trouble::Failed(mut failure))) => {
                // Whatever the handle knew may be wrong now.
                self.handle = None;
                if failure.is_refusal() && self.key_is_changing(order).await? {
                    // The CA did not know us by the key that it was asked with.
                    failure.class = Class::Transient;
                }
                tracing::info!(order = %order.id, code = failure.code, %failure, "a step did not work");
                Ok(Answer::Failed(failure))
            }
            Err(_) => {
                self.handle = None;
                Ok(Answer::Failed(timed_out()))
            }
        }
    }

    async fn attempt(&mut self, step: Step, order: &Order) -> Tried<Answer> {
        if matches!(step, Step::Create | Step::ReadAuthorizations) {
            self.expected.get_or_insert_with(|| self.worker.solvers.upcoming().expect());
        }
        self.admit(&step, order).await?;
        match step {
            Step::Create => {
                let account = self.account(order).await?;
                let (profile, replaces) = (order.profile.as_deref(), order.replaces.as_deref());
                let asked = account
                    .new_order_replacing(&order.names, profile, replaces, order.not_after)
                    .await;
                let handle = match asked {
                    Err(failure) if replaces.is_some() && may_be_the_replacement(&failure) => {
                        return Ok(Answer::NotReplacing(failure));
                    }
                    asked => asked?,
                };
                failpoint!("after_new_order");
                let handle = self.unused(handle, order).await?;
                let answer = Answer::Created(handle.url().to_owned(), seen(handle.state()));
                // What could not be read is read again, by its URL.
                self.handle = Some(handle).filter(ca::Order::is_read);
                Ok(answer)
            }
            Step::ReadAuthorizations => self.read_authorizations(order).await,
            Step::Solve(actions) => self.solve(actions, order).await,
            Step::Accept => {
                let urls: Vec<_> = order.challenges.iter().map(|known| known.url.clone()).collect();
                self.handle(order).await?.0.accept(&urls).await?;
                failpoint!("after_accept");
                Ok(Answer::Accepted)
            }
            Step::Poll => self.poll(order).await,
            Step::Inspect => self.inspect(order).await,
            Step::Finalize => self.finalize(order).await,
            Step::Download => self.download(order).await,
        }
    }

    /// The order, unless it is one of before whose certificate is no use to us: some CAs answer a new
    /// order with the one that they issued for the same names last. Another would be the same again.
    async fn unused(&mut self, mut placed: ca::Order, order: &Order) -> Tried<ca::Order> {
        if placed.state().status != ca::OrderStatus::Valid {
            return Ok(placed);
        }
        let csr = self.csr(order).await?;
        let Some(download) = placed.certificate().await? else { return Ok(placed) };
        match pki::check_chain(&download.chain_pem, &csr, self.worker.clock.now()) {
            Ok(_) => Ok(placed),
            Err(problem) => Err(Failure::of(
                code::ACME_ORDER_REUSED,
                format!("Its certificate is not the one that is wanted: {problem}."),
            )
            .into()),
        }
    }

    async fn poll(&mut self, order: &Order) -> Tried<Answer> {
        let (handle, fresh) = self.handle(order).await?;
        if !fresh {
            handle.refresh().await?;
        }
        let seen = seen(handle.state());
        if seen.status == Status::Invalid {
            return Ok(Answer::Ended(why_invalid(handle, order).await?));
        }
        Ok(Answer::Looked(seen))
    }

    /// A look at the order, and at what keeps the CA from coming to an end with it.
    async fn inspect(&mut self, order: &Order) -> Tried<Answer> {
        let seen = match self.poll(order).await? {
            Answer::Looked(seen) if seen.status == Status::Pending => seen,
            answer => return Ok(answer),
        };
        let authorizations = match self.handle(order).await?.0.settled_authorizations().await {
            Ok(authorizations) => authorizations,
            Err(failure) => {
                tracing::info!(order = %order.id, %failure, "the authorizations could not be read");
                Vec::new()
            }
        };
        let is_over = |one: &&ca::Authorization| {
            !matches!(one.status, ca::AuthorizationStatus::Pending | ca::AuthorizationStatus::Valid)
        };
        if let Some(over) = authorizations.iter().find(is_over) {
            return Ok(Answer::Ended(over.unusable()));
        }
        let challenges = authorizations.into_iter().flat_map(|one| one.challenges);
        let said = challenges.filter_map(|offer| Some((offer.url, offer.error?)));
        Ok(Answer::Inspected(seen, said.collect()))
    }

    async fn finalize(&mut self, order: &Order) -> Tried<Answer> {
        let csr = self.csr(order).await?;
        let (handle, _) = self.handle(order).await?;
        handle.finalize(&csr).await?;
        failpoint!("after_finalize");
        let mut seen = seen(handle.state());
        match seen.status {
            Status::Invalid => return Ok(Answer::Ended(why_invalid(handle, order).await?)),
            // The CSR has arrived, whatever a lagging replica says.
            Status::Ready | Status::Pending => seen.status = Status::Processing,
            Status::Processing | Status::Valid => {}
        }
        Ok(Answer::Looked(seen))
    }

    async fn download(&mut self, order: &Order) -> Tried<Answer> {
        failpoint!("before_download");
        let csr = self.csr(order).await?;
        let issuer = self.issuer(order).await?;
        let account = self.account(order).await?.url().to_owned();
        let now = self.worker.clock.now();
        let handle = self.handle(order).await?.0;
        let Some(download) = handle.certificate().await? else {
            return Ok(Answer::Looked(seen(handle.state())));
        };
        failpoint!("after_download");
        let usual = match pki::check_chain(&download.chain_pem, &csr, now) {
            Ok(usual) => usual,
            Err(problem) => return Ok(Answer::Failed(chains::unusable(&problem))),
        };
        let preferred = issuer.acme.preferred_chain.as_deref().unwrap_or_default();
        let alternates = &download.alternates;
        let (chosen, remark) =
            chains::preferred_chain(handle, alternates, usual, preferred, &csr, now).await;
        let mut remarks = chains::remarks(&chosen, order.certificate);
        remarks.extend(remark.map(|remark| {
            let about = Resource::Certificate(order.certificate);
            Event::warning(about, "PreferredChainNotUsed", remark)
        }));
        let Issued { chain, leaf, .. } = chosen;
        self.fetched = Some(Fetched { chain, leaf, account, remarks });
        Ok(Answer::Downloaded)
    }

    /// The live order, and whether it was read from the CA just now.
    async fn handle(&mut self, order: &Order) -> Tried<(&mut ca::Order, bool)> {
        let fresh = self.handle.is_none();
        if fresh {
            let account = self.account(order).await?;
            let url = order.url().unwrap_or_default();
            let age = self.worker.clock.now() - order.created_at;
            self.handle = Some(account.order(url, age).await?);
        }
        match &mut self.handle {
            Some(handle) => Ok((handle, fresh)),
            None => Err(Failure::of(code::NO_ORDER, "").into()),
        }
    }

    async fn account(&mut self, order: &Order) -> Tried<Arc<Account>> {
        if let Some(account) = &self.account {
            return Ok(Arc::clone(account));
        }
        let issuer = self.issuer(order).await?;
        let (Some(known), Some(sealed)) = (&issuer.account, self.signs_with.clone()) else {
            return Err(Failure::of(code::ISSUER_NOT_READY.with_class(Class::Transient), "").into());
        };
        let key = self.worker.sealer.open(&issuers::account_key_place(issuer.id), &sealed)?;
        let ca = self.worker.ca.of(issuer.kind);
        let account = ca.account(&issuer.acme, &key, &known.url).await?;
        self.account = Some(Arc::clone(&account));
        Ok(account)
    }

    /// Whether the account's key is, or was meanwhile, followed by another one.
    async fn key_is_changing(&self, order: &Order) -> Result<bool, WorkerError> {
        let Some(used) = &self.signs_with else { return Ok(false) };
        let mut tx = self.worker.db.read().await?;
        if issuers::find(&mut tx, order.issuer, &Scope::Everything).await?.is_none() {
            return Ok(false);
        }
        let next = issuers::next_account_key(&mut tx, order.issuer).await?;
        Ok(next.is_some() || issuers::account_key(&mut tx, order.issuer).await? != *used)
    }

    /// The issuer, if it was needed before.
    pub(in crate::worker) fn known_issuer(&self) -> Option<Arc<Issuer>> {
        self.issuer.clone()
    }

    pub(in crate::worker) async fn issuer(&mut self, order: &Order) -> Tried<Arc<Issuer>> {
        if let Some(issuer) = &self.issuer {
            return Ok(Arc::clone(issuer));
        }
        let found = issuers::recall(&self.worker.db, order.issuer).await?;
        let Some((issuer, sealed)) = found else {
            return Err(Failure::of(
                code::ISSUER_NOT_FOUND,
                "It was deleted while an order of it was under way.",
            )
            .into());
        };
        let issuer = Arc::new(issuer);
        self.issuer = Some(Arc::clone(&issuer));
        self.signs_with = Some(sealed);
        Ok(issuer)
    }

    /// Adds the CAA records that would allow the CA, where one is missing.
    fn say_what_allows(&self, failure: &mut Failure, order: &Order) {
        if let Some(account) = &self.account
            && failure.is(code::ACME_CAA)
        {
            let records =
                caa::allowing(failure, &order.names, account.caa_identities(), account.url());
            failure.detail = format!("{} {records}", failure.detail);
        }
    }

    async fn labels(&self, order: &Order) -> Result<BTreeMap<String, String>, WorkerError> {
        if let Some((certificate, _)) = &self.certificate {
            return Ok(certificate.labels.clone());
        }
        let mut tx = self.worker.db.read().await?;
        let found = certificates::find(&mut tx, order.certificate, &Scope::Everything).await?;
        Ok(found.map(|(certificate, _)| certificate.labels).unwrap_or_default())
    }

    async fn csr(&mut self, order: &Order) -> Tried<Vec<u8>> {
        if let Some(csr) = &self.csr {
            return Ok(csr.clone());
        }
        let mut tx = self.worker.db.read().await?;
        match requests::find(&mut tx, order.request, &Scope::Everything).await? {
            Some(request) => {
                self.csr = Some(request.csr.clone());
                Ok(request.csr)
            }
            None => {
                Err(Failure::of(code::CERTIFICATE_DELETED, "Its order is not carried through.")
                    .into())
            }
        }
    }
}

/// A step that was cut off.
pub(in crate::worker) fn timed_out() -> Failure {
    Failure::timed_out("A step took too long", STEP_TIMEOUT)
}

/// Whether another order might fare better that does not say what it replaces: CAs answer to that
/// with all kinds of errors. Who was not heard, or is asked to wait, has learnt nothing about it.
fn may_be_the_replacement(failure: &Failure) -> bool {
    let answered = failure.http_status.is_some() || failure.is(code::ACME_UNREADABLE_ANSWER);
    answered && !matches!(failure.class, Class::Throttle | Class::Consistency)
}

fn seen(state: &ca::OrderState) -> Seen {
    let status = match state.status {
        ca::OrderStatus::Pending => Status::Pending,
        ca::OrderStatus::Ready => Status::Ready,
        ca::OrderStatus::Processing => Status::Processing,
        ca::OrderStatus::Valid => Status::Valid,
        ca::OrderStatus::Invalid => Status::Invalid,
    };
    Seen { status, expires: state.expires, retry_at: state.retry_at }
}
