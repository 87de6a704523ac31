//! Carries orders through: the interpreter of the order machine.

pub(in crate::worker) mod chains;
pub(in crate::worker) mod cleanup;
pub(in crate::worker) mod session;

use super::order::session::Session;
use super::{SAVES, STEP_TIMEOUT, Worker, WorkerError};
use crate::domain::ari::Ari;
use crate::domain::certificate::{Certificate, Issued};
use crate::domain::challenge::Challenge;
use crate::domain::event::Event;
use crate::domain::failure::{Failure, code};
use crate::domain::id::{IssuerId, OrderId, RequestId};
use crate::domain::issuer;
use crate::domain::order;
use crate::domain::order::{Answer, Order, Outcome, Transition};
use crate::pki::Leaf;
use crate::storage::lease;
use crate::storage::lease::{LEASE, Lease};
use crate::storage::requests::RequestState;
use crate::storage::revisions;
use crate::storage::revisions::Revision;
use crate::storage::{
    Scope, StorageError, Tx, certificates, challenges, events, issuers, orders, requests,
};

/// What a download brought, once it was checked.
pub(in crate::worker) struct Fetched {
    pub(in crate::worker) chain: String,
    pub(in crate::worker) leaf: Leaf,
    /// The account that it was issued to.
    pub(in crate::worker) account: String,
    /// What a person may want to know about it.
    pub(in crate::worker) remarks: Vec<Event>,
}

/// How an order has ended.
struct Ended<'a> {
    order: &'a Order,
    outcome: &'a Outcome,
    fetched: Option<&'a Fetched>,
}

/// What an order looked like before a step.
struct Before {
    challenges: Vec<Challenge>,
    last_error: Option<Failure>,
}

impl Before {
    fn step(order: &Order) -> Self {
        Self { challenges: order.challenges.clone(), last_error: order.last_error.clone() }
    }
}

/// A pause so short that giving the lease back, and taking it and everything up again, would cost
/// more than keeping it.
const SHORT: time::Duration = time::Duration::milliseconds(500);

/// A pause that is over before a step could be saved: the next step is saved with it.
const BRIEF: time::Duration = time::Duration::milliseconds(30);

/// A lease that was extended no longer ago is long enough for any one step.
const FRESH: time::Duration = time::Duration::seconds(10);
const _: () = assert!(
    FRESH.whole_seconds().unsigned_abs() + STEP_TIMEOUT.as_secs()
        < LEASE.whole_seconds().unsigned_abs()
);

/// What becomes of the lease when a step is saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    /// It ends.
    LetGo,
    /// It goes on as it is.
    Keep,
    /// It goes on for its whole length.
    Extend,
}

/// Steps in one run; an order that could go on for ever gives its slot back now and then.
const STEPS_PER_RUN: usize = 50;

impl Worker {
    pub(in crate::worker) async fn order(&self, lease: Lease) -> Result<(), WorkerError> {
        let mut tx = self.db.read().await?;
        let found = orders::find(&mut tx, OrderId(lease.id), &Scope::Everything).await?;
        drop(tx);
        // One that has ended meanwhile is cleaned up after with others.
        let Some((mut order, _)) = found.filter(|(order, _)| !order.is_over()) else {
            return Ok(());
        };
        // The row shows when the lease runs out; it was claimed because it is due.
        order.next_action_at = Some(self.clock.now());
        Box::pin(self.carry_out(Session::new(self), order, lease)).await
    }

    /// Takes step after step, until there is something to wait for that is not to come at once.
    ///
    /// Each is settled in one transaction, but for those that may be taken again: what came of them
    /// is saved with the next.
    pub(in crate::worker) async fn carry_out(
        &self,
        mut session: Session<'_>,
        mut order: Order,
        mut lease: Lease,
    ) -> Result<(), WorkerError> {
        let mut before = Before::step(&order);
        let mut unsaved = Vec::new();
        // The lease was taken just now.
        let mut extended = self.clock.now();
        for _ in 0..STEPS_PER_RUN {
            let now = self.clock.now();
            let mut is_repeatable = false;
            let mut transition = if order.has_expired(now) {
                order.expire(now)
            } else if let Some(step) = order.next_step(now) {
                is_repeatable = step.is_repeatable();
                let (answer, conditions) = session.take(step, &order).await?;
                order.apply(answer, self.clock.now(), conditions)?
            } else if order.next_action_at.is_some_and(|at| at > now) {
                // The clock is not where the timer is: the row tells the time.
                break;
            } else {
                // Due, but nothing to do: never leave such a row without a wake-up.
                Transition::waiting(order, now)
            };
            transition.events.splice(0..0, unsaved.drain(..));
            let now = self.clock.now();
            let next = transition.order.next_action_at.map(|at| at - now);
            let may_go_on = !transition.order.is_over() && !self.stop.is_cancelled();
            let pause = next.filter(|pause| *pause <= SHORT && may_go_on);
            let is_unremarkable =
                transition.outcome.is_none() && transition.order.last_error == before.last_error;
            let is_fresh = now - extended < FRESH;
            if is_repeatable
                && is_unremarkable
                && is_fresh
                && let Some(pause) = pause.filter(|pause| *pause <= BRIEF)
            {
                (order, unsaved) = (transition.order, transition.events);
                self.wait(pause).await;
                continue;
            }
            let hold = match pause {
                None => Hold::LetGo,
                Some(_) if is_fresh => Hold::Keep,
                Some(_) => Hold::Extend,
            };
            if hold == Hold::Extend {
                extended = now;
            }
            lease = self.settle_order(&session, &transition, &before, &lease, hold).await?;
            session.admission.settled();
            order = transition.order;
            let Some(pause) = pause else { return Ok(()) };
            before = Before::step(&order);
            if !self.wait(pause).await {
                break;
            }
        }
        let rest = Transition { order, events: unsaved, outcome: None };
        self.settle_order(&session, &rest, &before, &lease, Hold::LetGo).await?;
        Ok(())
    }

    /// A step failed inside: for the order that is a failure like any other.
    pub(in crate::worker) async fn order_failed_inside(
        &self,
        mut order: Order,
        failure: Failure,
        lease: &Lease,
    ) -> Result<(), WorkerError> {
        let now = self.clock.now();
        // The row shows when the lease runs out.
        order.next_action_at = Some(now);
        let before = Before::step(&order);
        let transition = if order.has_expired(now) {
            order.expire(now)
        } else {
            order.apply(Answer::Failed(failure), now, super::jitter())?
        };
        let session = Session::new(self);
        self.settle_order(&session, &transition, &before, lease, Hold::LetGo).await?;
        Ok(())
    }

    /// Waits, and says whether the service goes on.
    async fn wait(&self, pause: time::Duration) -> bool {
        let pause = std::time::Duration::try_from(pause).unwrap_or_default();
        pause.is_zero() || tokio::time::timeout(pause, self.stop.cancelled()).await.is_err()
    }

    /// Saves a step's result; again, when its certificate was changed by somebody else meanwhile.
    async fn settle_order(
        &self,
        session: &Session<'_>,
        transition: &Transition,
        before: &Before,
        lease: &Lease,
        hold: Hold,
    ) -> Result<Lease, WorkerError> {
        let mut unheard = false;
        let mut known = session.certificate();
        for _ in 0..SAVES {
            match self.try_settle(session, known, transition, before, lease, hold).await {
                Err(WorkerError::Storage(StorageError::LeaseLost(id))) if id != lease.id => {
                    known = None;
                }
                // The commit before may have come through, and only its answer was lost.
                Err(WorkerError::Storage(lost @ StorageError::LeaseLost(_))) if unheard => {
                    let mut tx = self.db.read().await?;
                    let owner = &self.settings.name;
                    let ours = lease::after_unheard_commit(&mut tx, lease, owner).await?;
                    return ours.ok_or(WorkerError::Storage(lost));
                }
                // What was done out there must not be forgotten because the database is busy.
                Err(WorkerError::Storage(StorageError::Unavailable(error))) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        order = %lease.id,
                        "saving a step's result again"
                    );
                    unheard = true;
                    super::pause().await;
                }
                settled => return settled,
            }
        }
        self.try_settle(session, None, transition, before, lease, hold).await
    }

    /// The order, its certificate where the order has ended, and the history: all or nothing.
    async fn try_settle(
        &self,
        session: &Session<'_>,
        known: Option<&(Certificate, Lease)>,
        transition: &Transition,
        before: &Before,
        lease: &Lease,
        hold: Hold,
    ) -> Result<Lease, WorkerError> {
        let now = self.clock.now();
        let order = &transition.order;
        // Known or read before, fenced when it is saved: a transaction that asks nothing is written in one go.
        let certificate = match (&transition.outcome, known) {
            (None, _) => None,
            (Some(_), Some(known)) => Some(known.clone()),
            (Some(_), None) => self.certificate_of(order).await?,
        };
        let mut tx = self.db.begin();
        let challenges = &before.challenges;
        let lease = match hold {
            Hold::LetGo => orders::save(&mut tx, order, challenges, lease, None).await?,
            Hold::Extend => orders::save(&mut tx, order, challenges, lease, Some(now)).await?,
            Hold::Keep => orders::save_held(&mut tx, order, challenges, lease).await?,
        };
        if before.challenges.is_empty() && !order.challenges.is_empty() {
            challenges::insert(&mut tx, order.id, &order.challenges).await?;
        }
        events::record(&mut tx, &order.namespace, Some(order.certificate), &transition.events, now);
        if transition.outcome.is_none() && before.last_error != order.last_error {
            let trouble = order.last_error.as_ref();
            certificates::note(&mut tx, order.certificate, order.id, trouble).await?;
        }
        session.admission.store(&mut tx, now).await?;
        if let Some(outcome) = &transition.outcome {
            self.count_failures(&mut tx, session, order, outcome).await?;
            // It was deleted, or has gone on to another order, where there is none.
            if let Some((certificate, lease)) = certificate {
                let ended = Ended { order, outcome, fetched: session.fetched.as_ref() };
                // On the heap: it is the largest part of what is handed around with each order.
                Box::pin(self.conclude(&mut tx, ended, certificate, &lease)).await?;
            }
        }
        tx.commit().await?;
        Ok(lease)
    }

    /// The certificate that waits for this order.
    async fn certificate_of(
        &self,
        order: &Order,
    ) -> Result<Option<(Certificate, Lease)>, StorageError> {
        let mut tx = self.db.read().await?;
        let found = certificates::find(&mut tx, order.certificate, &Scope::Everything).await?;
        Ok(found.filter(|(certificate, _)| certificate.order == Some(order.id)))
    }

    /// What an order's end means for its request and certificate.
    async fn conclude(
        &self,
        tx: &mut Tx,
        Ended { order, outcome, fetched }: Ended<'_>,
        certificate: Certificate,
        lease: &Lease,
    ) -> Result<(), WorkerError> {
        let now = self.clock.now();
        let mut transition = match (outcome, fetched) {
            (Outcome::Issued, Some(fetched)) => {
                let revision = certificate.current.as_ref().map_or(0, |issued| issued.revision) + 1;
                let Leaf { serial, fingerprint, not_before, not_after, ari } = fetched.leaf.clone();
                let (account, validity) = (fetched.account.clone(), (not_before, not_after));
                let ari = ari.map(|name| Ari::new(name, account, validity, now, super::jitter()));
                let renewal_time = certificate.renewal(not_before, not_after, ari.as_ref());
                let kept = i64::from(certificate.spec.revision_history_limit.max(1));
                let stored = Revision {
                    certificate: certificate.id,
                    revision,
                    request: order.request,
                    order: order.id,
                    chain: fetched.chain.clone(),
                    serial: serial.clone(),
                    fingerprint,
                    not_before,
                    not_after,
                    issued_at: now,
                    revoked_at: None,
                };
                let message = "Certificate fetched from issuer successfully";
                revisions::insert(tx, &stored, kept, message).await?;
                let issued = Issued { revision, serial, not_before, not_after, renewal_time };
                let mut issued = certificate.issued(issued, ari, now);
                issued.events.extend(fetched.remarks.iter().cloned());
                issued
            }
            (outcome, _) => {
                let issuer = issuers::find(tx, order.issuer, &Scope::Everything).await?;
                let retry = issuer.and_then(|(issuer, _)| issuer.acme.retry);
                let (outcome, predecessors) = (outcome.clone(), order.predecessors);
                let jitter = super::jitter();
                certificate.order_failed_under(retry.as_ref(), outcome, predecessors, now, jitter)
            }
        };
        if let Some(at) = transition.fresh_order_at {
            let mut fresh = successor(order, OrderId::generate(now), now, at);
            fresh.not_after = fresh.not_after.and(transition.certificate.spec.not_after(at));
            fresh.deadline = transition.certificate.order_deadline(at, fresh.not_after);
            transition.certificate.order = Some(fresh.id);
            orders::insert(tx, &fresh, None).await?;
            let message = format!("The CA lost order {}; waiting on order {}", order.id, fresh.id);
            self.progress(tx, order.request, RequestState::Pending, &message, fresh.id).await?;
        } else if let Some(failure) = failure_of(outcome) {
            let message = failure.to_string();
            self.progress(tx, order.request, RequestState::Failed, &message, order.id).await?;
        }
        if failure_of(outcome).is_some_and(|failure| failure.is(code::ACME_ACCOUNT_DOES_NOT_EXIST))
        {
            self.register_again(tx, order.issuer).await?;
        }
        if let Some(failure) = failure_of(outcome)
            && failure.is(code::ACME_USER_ACTION_REQUIRED)
        {
            self.await_action(tx, order.issuer, failure).await?;
        }
        certificates::save(tx, &transition, lease, None).await?;
        Ok(())
    }

    /// The CA forgot the account: the issuer is not ready any more, and finds out by itself.
    async fn register_again(&self, tx: &mut Tx, id: IssuerId) -> Result<(), WorkerError> {
        if let Some((issuer, lease)) = issuers::find(tx, id, &Scope::Everything).await?
            && issuer.state == issuer::State::Ready
        {
            issuers::save(tx, &issuer.denied(self.clock.now()), &lease).await?;
        }
        Ok(())
    }

    /// The CA wants a person to act before anything is issued to the account: the issuer says so, and
    /// with it every certificate that waits for it.
    async fn await_action(
        &self,
        tx: &mut Tx,
        id: IssuerId,
        failure: &Failure,
    ) -> Result<(), WorkerError> {
        let Some((issuer, lease)) = issuers::find(tx, id, &Scope::Everything).await? else {
            return Ok(());
        };
        if issuer.state != issuer::State::Ready {
            return Ok(());
        }
        let now = self.clock.now();
        let refused = issuer.not_registered(failure.clone(), now, super::jitter());
        issuers::save(tx, &refused, &lease).await?;
        Ok(())
    }

    async fn progress(
        &self,
        tx: &mut Tx,
        request: RequestId,
        state: RequestState,
        message: &str,
        order: OrderId,
    ) -> Result<(), WorkerError> {
        requests::progress(tx, request, state, message, order, self.clock.now()).await?;
        Ok(())
    }
}

fn failure_of(outcome: &Outcome) -> Option<&Failure> {
    match outcome {
        Outcome::Issued => None,
        Outcome::Lost(failure) | Outcome::Failed(failure) | Outcome::Blocked(failure) => {
            Some(failure)
        }
    }
}

/// A fresh order for the same request: the same key and CSR, from the beginning.
fn successor(
    lost: &Order,
    id: OrderId,
    now: time::OffsetDateTime,
    at: time::OffsetDateTime,
) -> Order {
    let request = lost.name.rsplit_once('-').map_or(lost.name.as_str(), |(request, _)| request);
    Order {
        id,
        name: order::name(request, id),
        predecessors: lost.predecessors + 1,
        state: order::State::New,
        expires: None,
        challenges: Vec::new(),
        tries: 0,
        stalled_since: None,
        course: lost.course.for_successor(),
        attempts: 0,
        last_error: None,
        created_at: now,
        handed_out_at: now,
        next_action_at: Some(at),
        deadline: at + order::ORDER_DEADLINE,
        ..lost.clone()
    }
}
