//! One run with one order: what it needs from the database, and the live handle at the CA.
//!
//! A handle that is kept from step to step spares requests; one that is not there is restored from
//! the order's URL. Losing it loses nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::admission::Admission;
use super::chains::preferred_chain;
use super::orders::Fetched;
use super::{STEP_TIMEOUT, Worker, WorkerError};
use crate::ca::{self, Account};
use crate::domain::certificate::Certificate;
use crate::domain::challenge::{self, Challenge, Kind};
use crate::domain::failure::{Class, Failure};
use crate::domain::id::ChallengeId;
use crate::domain::issuer::Issuer;
use crate::domain::order::{Answer, ORDER_DEADLINE, Order, Seen, Status, Step};
use crate::domain::selection::pick_solver;
use crate::pki;
use crate::secret::Sealed;
use crate::solver::Expected;
use crate::storage::lease::Lease;
use crate::storage::{Scope, certificates, issuers, requests};

mod solving;

use solving::Chosen;
pub(super) use solving::Solving;

pub(super) struct Session<'a> {
    pub(super) worker: &'a Worker,
    pub(super) admission: Admission,
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
    pub(super) fetched: Option<Fetched>,
}

pub(super) type Tried<T> = Result<T, Trouble>;

/// Why a step has no answer of its own.
pub(super) enum Trouble {
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
    pub(super) fn new(worker: &'a Worker) -> Self {
        Self {
            worker,
            admission: Admission::default(),
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
    pub(super) fn knowing(
        worker: &'a Worker,
        csr: Vec<u8>,
        certificate: Certificate,
        lease: Lease,
    ) -> Self {
        Self { csr: Some(csr), certificate: Some((certificate, lease)), ..Self::new(worker) }
    }

    /// The certificate as it was when the order was placed, if that was in this run.
    pub(super) fn certificate(&self) -> Option<&(Certificate, Lease)> {
        self.certificate.as_ref()
    }

    /// Does what a step says; what goes wrong in the outside world is an answer too.
    pub(super) async fn take(&mut self, step: Step, order: &Order) -> Result<Answer, WorkerError> {
        let attempt = Box::pin(self.attempt(step.clone(), order));
        let tried = tokio::time::timeout(STEP_TIMEOUT, attempt).await;
        let answer = self.understand(tried, order).await?;
        self.heed(&step, &answer, order);
        Ok(answer)
    }

    async fn understand(
        &mut self,
        tried: Result<Tried<Answer>, tokio::time::error::Elapsed>,
        order: &Order,
    ) -> Result<Answer, WorkerError> {
        match tried {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Trouble::Broken(WorkerError::Secret(error)))) => {
                Ok(Answer::Failed(super::unreadable(&error)))
            }
            Ok(Err(Trouble::Broken(error))) => Err(error),
            Ok(Err(Trouble::Failed(mut failure))) => {
                // Whatever the handle knew may be wrong now.
                self.handle = None;
                if failure.class == Class::Blocked && self.key_is_changing(order).await? {
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
                let answer = Answer::Created(handle.url().to_owned(), seen(handle.state()));
                self.handle = Some(handle);
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
            Step::Poll => {
                let (handle, fresh) = self.handle(order).await?;
                if !fresh {
                    handle.refresh().await?;
                }
                let seen = seen(handle.state());
                if seen.status == Status::Invalid {
                    return Ok(Answer::Ended(why_invalid(handle).await?));
                }
                Ok(Answer::Looked(seen))
            }
            Step::Finalize => self.finalize(order).await,
            Step::Download => self.download(order).await,
        }
    }

    async fn read_authorizations(&mut self, order: &Order) -> Tried<Answer> {
        let account = self.account(order).await?;
        let issuer = self.issuer(order).await?;
        let authorizations = self.handle(order).await?.0.authorizations().await?;
        failpoint!("after_authorizations");
        let labels = self.labels(order).await?;
        let now = self.worker.clock.now();
        let mut challenges = Vec::new();
        for authorization in authorizations {
            // A CA's answer is input: never prove a name that nobody asked for.
            if !order
                .names
                .iter()
                .any(|name| name.strip_prefix("*.").unwrap_or(name) == authorization.domain)
            {
                return Err(Failure::new(
                    Class::Blocked,
                    "acme_foreign_authorization",
                    "The CA wants a name proved that was not asked for",
                    format!("It is \"{}\".", authorization.domain),
                )
                .into());
            }
            match authorization.status {
                ca::AuthorizationStatus::Valid => continue,
                ca::AuthorizationStatus::Pending => {}
                _ => return Ok(Answer::Ended(unusable(&authorization))),
            }
            let offered: Vec<_> =
                authorization.challenges.iter().filter_map(|offer| kind(&offer.kind)).collect();
            let (domain, wildcard) = (&authorization.domain, authorization.wildcard);
            let picked = pick_solver(&issuer.acme.solvers, domain, wildcard, &labels, &offered);
            let found = picked.and_then(|(place, _, wanted)| {
                let offer = authorization
                    .challenges
                    .iter()
                    .find(|offer| kind(&offer.kind) == Some(wanted))?;
                Some((place, wanted, offer))
            });
            let Some((solver, kind, offer)) = found else {
                return Err(no_solver(&issuer, domain, wildcard, &offered).into());
            };
            let id = ChallengeId::generate(now);
            challenges.push(Challenge {
                id,
                authorization_url: authorization.url.clone(),
                url: offer.url.clone(),
                domain: domain.clone(),
                wildcard,
                kind,
                solver,
                token: offer.token.clone(),
                key_authorization: account.key_authorization(&offer.token),
                state: challenge::State::Pending,
                record: None,
                clean: false,
                tries: 0,
                reason: None,
                observations: Vec::new(),
                next_action_at: Some(now),
                deadline: order.deadline.min(now + ORDER_DEADLINE),
            });
        }
        Ok(Answer::Authorizations(challenges))
    }

    async fn finalize(&mut self, order: &Order) -> Tried<Answer> {
        let csr = self.csr(order).await?;
        let (handle, _) = self.handle(order).await?;
        handle.finalize(&csr).await?;
        failpoint!("after_finalize");
        let mut seen = seen(handle.state());
        match seen.status {
            Status::Invalid => return Ok(Answer::Ended(why_invalid(handle).await?)),
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
        match pki::check_chain(&download.chain_pem, &csr, now) {
            Ok(leaf) => {
                let preferred = issuer.acme.preferred_chain.as_deref().unwrap_or_default();
                let (chain, remark) = preferred_chain(handle, download, preferred, &csr, now).await;
                self.fetched = Some(Fetched { chain, leaf, account, remark });
                Ok(Answer::Downloaded)
            }
            Err(problem) => Ok(Answer::Failed(Failure::new(
                Class::Gone,
                "acme_wrong_certificate",
                "The CA sent another certificate than the one that was asked for",
                problem.to_string(),
            ))),
        }
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
            None => Err(Failure::new(Class::Transient, "no_order", "No order", "").into()),
        }
    }

    async fn account(&mut self, order: &Order) -> Tried<Arc<Account>> {
        if let Some(account) = &self.account {
            return Ok(Arc::clone(account));
        }
        let issuer = self.issuer(order).await?;
        let (Some(known), Some(sealed)) = (&issuer.account, self.signs_with.clone()) else {
            return Err(Failure::new(
                Class::Transient,
                "issuer_not_ready",
                "The issuer has no account at its CA",
                "Its registration is under way; see the issuer's conditions.",
            )
            .into());
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
    pub(super) fn known_issuer(&self) -> Option<Arc<Issuer>> {
        self.issuer.clone()
    }

    pub(super) async fn issuer(&mut self, order: &Order) -> Tried<Arc<Issuer>> {
        if let Some(issuer) = &self.issuer {
            return Ok(Arc::clone(issuer));
        }
        let found = issuers::recall(&self.worker.db, order.issuer).await?;
        let Some((issuer, sealed)) = found else {
            return Err(Failure::new(
                Class::Blocked,
                "issuer_not_found",
                "The issuer is gone",
                "It was deleted while an order of it was under way.",
            )
            .into());
        };
        let issuer = Arc::new(issuer);
        self.issuer = Some(Arc::clone(&issuer));
        self.signs_with = Some(sealed);
        Ok(issuer)
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
            None => Err(Failure::new(
                Class::Blocked,
                "certificate_deleted",
                "The certificate was deleted",
                "Its order is not carried through.",
            )
            .into()),
        }
    }
}

/// A step that was cut off.
pub(super) fn timed_out() -> Failure {
    Failure::new(
        Class::Transient,
        "step_timed_out",
        "A step took too long",
        format!("No answer within {} s.", STEP_TIMEOUT.as_secs()),
    )
}

/// Whether another order might fare better that does not say what it replaces: CAs answer to that
/// with all kinds of errors. Who was not heard, or is asked to wait, has learnt nothing about it.
fn may_be_the_replacement(failure: &Failure) -> bool {
    let answered = failure.http_status.is_some() || failure.code == "acme_unreadable_answer";
    answered && !matches!(failure.class, Class::Throttle | Class::Consistency)
}

fn kind(offered: &ca::ChallengeKind) -> Option<Kind> {
    match offered {
        ca::ChallengeKind::Http01 => Some(Kind::Http01),
        ca::ChallengeKind::Dns01 => Some(Kind::Dns01),
        ca::ChallengeKind::Other(_) => None,
    }
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

/// An invalid order says little; its challenges say what the CA saw.
async fn why_invalid(handle: &ca::Order) -> Result<Failure, Failure> {
    let order_error = handle.state().error.clone();
    let authorizations = handle.settled_authorizations().await?;
    let of_challenges = authorizations
        .into_iter()
        .flat_map(|authorization| authorization.challenges)
        .find_map(|offer| offer.error);
    Ok(of_challenges.or(order_error).unwrap_or_else(|| {
        Failure::new(
            Class::Validation,
            "acme_order_invalid",
            "The CA refused the order",
            "It did not say why.",
        )
    }))
}

fn unusable(authorization: &ca::Authorization) -> Failure {
    let said = authorization.challenges.iter().find_map(|offer| offer.error.clone());
    said.unwrap_or_else(|| {
        Failure::new(
            Class::Gone,
            "acme_authorization_unusable",
            "An authorization of the order cannot be used any more",
            format!("{} is {:?} at the CA.", authorization.domain, authorization.status),
        )
    })
}

fn no_solver(issuer: &Issuer, domain: &str, wildcard: bool, offered: &[Kind]) -> Failure {
    let name = if wildcard { format!("*.{domain}") } else { domain.to_owned() };
    let offered: Vec<_> = offered.iter().map(|kind| kind.as_str()).collect();
    Failure::new(
        Class::Blocked,
        "no_solver",
        "No solver of the issuer fits a name",
        format!(
            "{} \"{}\" has no solver for {name} whose challenge the CA offers ({}). Add one, or widen a selector.",
            issuer.kind.as_str(),
            issuer.name,
            offered.join(", ")
        ),
    )
}
