//! The state that one run with one order keeps from step to step: rows that it has read, and the live
//! handle at the CA.
//!
//! A handle that is kept spares requests; one that is not there is restored from the order's URL. Losing
//! it loses nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::ca::{self, Account};
use crate::domain::certificate::Certificate;
use crate::domain::challenge::{Kind, ProofTimeouts};
use crate::domain::event::Event;
use crate::domain::failure::{Class, Failure, code};
use crate::domain::issuer::Issuer;
use crate::domain::order::{Order, Seen, Status};
use crate::pki::Leaf;
use crate::secret::Sealed;
use crate::solver::{Expected, Solver};
use crate::storage::lease::Lease;
use crate::storage::{Scope, certificates, issuers, requests, revisions};
use crate::worker::context::Context;
use crate::worker::error::{Tried, WorkerError};
use crate::worker::judgement::judge;
use crate::worker::limits::Admission;
use crate::worker::preflight::{Subject, examine};

pub(super) struct Session<'a> {
    pub(super) ctx: &'a Context,
    pub(super) admission: Admission,
    /// The issuer, if it was needed before.
    pub(super) issuer: Option<Arc<Issuer>>,
    /// The account, if it was needed before.
    pub(super) account: Option<Arc<Account>>,
    /// The sealed key that the account signs with.
    signs_with: Option<Sealed>,
    pub(super) handle: Option<ca::Order>,
    /// By their place in the issuer's list.
    pub(super) solvers: HashMap<(u32, Kind), ConfiguredSolver>,
    csr: Option<Vec<u8>>,
    /// Whether the CAA records were looked at before the CA is asked for the order.
    pub(super) is_preflighted: bool,
    /// A name for which DNSSEC validation failed then.
    pub(super) bogus: Option<String>,
    /// The order's certificate, as it was when the order was placed.
    pub(super) certificate: Option<(Certificate, Lease)>,
    /// From the beginning of an order until its proofs are about to be shown.
    pub(super) expected: Option<Expected>,
    /// Set by a successful download, for the transaction that concludes the order.
    pub(super) download: Option<Download>,
}

/// An issued chain that was checked.
pub(super) struct Download {
    /// PEM, the leaf first.
    pub(super) chain: String,
    pub(super) leaf: Leaf,
    /// The account that it was issued to.
    pub(super) account: String,
    /// Whether its topmost issuer is not that of the revision before.
    pub(super) leads_elsewhere: bool,
    /// Remarks for people.
    pub(super) remarks: Vec<Event>,
}

/// A solver of the issuer, with its credential.
#[derive(Clone)]
pub(super) struct ConfiguredSolver {
    pub(super) solver: Arc<dyn Solver>,
    pub(super) timeouts: ProofTimeouts,
    /// Names what its provider is called with.
    pub(super) credential: Option<String>,
}

impl<'a> Session<'a> {
    pub(super) fn new(ctx: &'a Context) -> Self {
        Self {
            ctx,
            admission: Admission::default(),
            issuer: None,
            account: None,
            signs_with: None,
            handle: None,
            solvers: HashMap::new(),
            csr: None,
            is_preflighted: false,
            bogus: None,
            certificate: None,
            expected: None,
            download: None,
        }
    }

    /// For an order that was placed just now: what is known of its attempt need not be read again.
    pub(super) fn knowing(
        ctx: &'a Context,
        csr: Vec<u8>,
        certificate: (Certificate, Lease),
    ) -> Self {
        Self { csr: Some(csr), certificate: Some(certificate), ..Self::new(ctx) }
    }

    /// The live order, and whether it was read from the CA just now.
    pub(super) async fn handle(&mut self, order: &Order) -> Tried<(&mut ca::Order, bool)> {
        let fresh = self.handle.is_none();
        if fresh {
            let account = self.account(order).await?;
            let url = order.url().unwrap_or_default();
            let age = self.ctx.clock.now() - order.created_at;
            self.handle = Some(account.order(url, age).await?);
        }
        match &mut self.handle {
            Some(handle) => Ok((handle, fresh)),
            None => Err(Failure::of(code::NO_ORDER, "").into()),
        }
    }

    /// The order, for accepting its challenges: where it stands is not asked for that.
    pub(super) async fn handle_for_challenges(&mut self, order: &Order) -> Tried<&mut ca::Order> {
        let account = self.account(order).await?;
        let known = || order.challenges.iter().map(|known| known.authorization_url.clone());
        Ok(self.handle.get_or_insert_with(|| {
            let age = self.ctx.clock.now() - order.created_at;
            account.unread_order(order.url().unwrap_or_default(), age, known().collect())
        }))
    }

    pub(super) async fn account(&mut self, order: &Order) -> Tried<Arc<Account>> {
        if let Some(account) = &self.account {
            return Ok(Arc::clone(account));
        }
        let issuer = self.issuer(order).await?;
        let (Some(known), Some(sealed)) = (&issuer.account, self.signs_with.clone()) else {
            return Err(Failure::of(code::ISSUER_NOT_READY.with_class(Class::Transient), "").into());
        };
        let key = self.ctx.sealer.open(&issuers::account_key_place(&issuer), &sealed)?;
        let ca = self.ctx.ca.of(issuer.kind);
        let account = ca.account(&issuer.acme, &key, &known.url).await?;
        self.account = Some(Arc::clone(&account));
        Ok(account)
    }

    /// Whether the account's key is, or was meanwhile, followed by another one.
    pub(super) async fn key_is_changing(&self, order: &Order) -> Result<bool, WorkerError> {
        let Some(used) = &self.signs_with else { return Ok(false) };
        let mut tx = self.ctx.db.read().await?;
        if issuers::find(&mut tx, order.issuer, &Scope::Everything).await?.is_none() {
            return Ok(false);
        }
        let next = issuers::next_account_key(&mut tx, order.issuer).await?;
        Ok(next.is_some() || issuers::account_key(&mut tx, order.issuer).await? != *used)
    }

    pub(super) async fn issuer(&mut self, order: &Order) -> Tried<Arc<Issuer>> {
        if let Some(issuer) = &self.issuer {
            return Ok(Arc::clone(issuer));
        }
        let found = issuers::cached_with_account_key(&self.ctx.db, order.issuer).await?;
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

    pub(super) async fn labels(
        &self,
        order: &Order,
    ) -> Result<BTreeMap<String, String>, WorkerError> {
        if let Some((certificate, _)) = &self.certificate {
            return Ok(certificate.labels.clone());
        }
        let mut tx = self.ctx.db.read().await?;
        let found = certificates::find(&mut tx, order.certificate, &Scope::Everything).await?;
        Ok(found.map(|(certificate, _)| certificate.labels).unwrap_or_default())
    }

    /// The chain that is served until now.
    pub(super) async fn served_chain(&self, order: &Order) -> Result<Option<String>, WorkerError> {
        if let Some((Certificate { current: None, .. }, _)) = &self.certificate {
            return Ok(None);
        }
        let mut tx = self.ctx.db.read().await?;
        let found = certificates::find(&mut tx, order.certificate, &Scope::Everything).await?;
        let Some(current) = found.and_then(|(certificate, _)| certificate.current) else {
            return Ok(None);
        };
        let served = revisions::find(&mut tx, order.certificate, current.revision).await?;
        Ok(served.map(|revision| revision.chain))
    }

    /// Why the certificate may not be issued: no policy allows it any more, or somebody has to approve it by now.
    pub(super) async fn withheld(&self, order: &Order) -> Result<Option<Failure>, WorkerError> {
        if let Some((certificate, _)) = &self.certificate
            && certificate.objection(judge(self.ctx, certificate).await?).is_none()
        {
            return Ok(None);
        }
        // What was known of it may be outdated.
        let mut tx = self.ctx.db.read().await?;
        let found = certificates::find(&mut tx, order.certificate, &Scope::Everything).await?;
        drop(tx);
        let Some((certificate, _)) = found else { return Ok(None) };
        Ok(certificate.objection(judge(self.ctx, &certificate).await?))
    }

    /// Why the CA must not issue, by the CAA records of the order's names. While the CA's directory, which says what
    /// the CA is called there, is not known, nothing is looked at.
    pub(super) async fn refused_by_caa(&mut self, order: &Order) -> Tried<Option<Failure>> {
        let issuer = self.issuer(order).await?;
        let ca = self.ctx.ca.of(issuer.kind);
        let Some(identities) = ca.known_caa_identities(&issuer.acme) else { return Ok(None) };
        self.is_preflighted = true;
        if identities.is_empty() {
            return Ok(None);
        }
        let labels = self.labels(order).await?;
        let (namespace, names) = (&*order.namespace, &*order.names);
        let subject = Subject { issuer: &issuer, namespace, labels: &labels, names };
        let now = self.ctx.clock.now();
        let findings = Box::pin(examine(&self.ctx.solvers, &identities, &subject, now)).await;
        if let Some(why) = findings.unknown {
            tracing::debug!(order = %order.id, why, "CAA is left to the CA");
        }
        self.bogus = findings.bogus;
        Ok(findings.forbidden)
    }

    pub(super) async fn csr(&mut self, order: &Order) -> Tried<Vec<u8>> {
        if let Some(csr) = &self.csr {
            return Ok(csr.clone());
        }
        let mut tx = self.ctx.db.read().await?;
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

pub(super) fn seen(state: &ca::OrderState) -> Seen {
    let status = match state.status {
        ca::OrderStatus::Pending => Status::Pending,
        ca::OrderStatus::Ready => Status::Ready,
        ca::OrderStatus::Processing => Status::Processing,
        ca::OrderStatus::Valid => Status::Valid,
        ca::OrderStatus::Invalid => Status::Invalid,
    };
    Seen { status, expires: state.expires, retry_at: state.retry_at }
}
