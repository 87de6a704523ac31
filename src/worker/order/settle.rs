//! Settles the steps of an order: saves the order, its certificate where the order has ended, and the
//! history, all or nothing.

use super::after_step::Hold;
use super::conclude::{Ended, conclude};
use super::count;
use super::session::Session;
use crate::domain::certificate::Certificate;
use crate::domain::challenge::Challenge;
use crate::domain::event::Event;
use crate::domain::failure::Failure;
use crate::domain::order::{Order, Transition};
use crate::storage::lease::{self, Lease};
use crate::storage::{Scope, StorageError, certificates, challenges, events, orders};
use crate::telemetry::LogLimit;
use crate::worker::context::{Context, SAVES, pause};
use crate::worker::error::WorkerError;
use crate::worker::limits::budget;

/// The order as the database has it, and the events that are saved with its next step.
pub(super) struct Before {
    challenges: Vec<Challenge>,
    last_error: Option<Failure>,
    /// The trouble that was told last.
    told: Option<String>,
    /// Of steps that were taken since, and not saved.
    unsaved: Vec<Event>,
}

impl Before {
    pub(super) fn step(order: &Order) -> Self {
        let (challenges, last_error) = (order.challenges.clone(), order.last_error.clone());
        let told = order.course.told.clone();
        Self { challenges, last_error, told, unsaved: Vec::new() }
    }

    /// Whether a step has made something of the order that clients can see.
    pub(super) fn is_changed_by(&self, transition: &Transition) -> bool {
        transition.outcome.is_some() || transition.order.last_error != self.last_error
    }

    /// Goes on to the next step without saving this one.
    pub(super) fn went_on(&mut self, transition: Transition) -> Order {
        self.unsaved.extend(transition.events);
        transition.order
    }
}

/// Saves a step's result; tries again where somebody else has changed the certificate meanwhile.
pub(super) async fn settle(
    session: &Session<'_>,
    transition: &Transition,
    before: &Before,
    lease: &Lease,
    hold: Hold,
) -> Result<Lease, WorkerError> {
    let ctx = session.ctx;
    let mut is_unheard = false;
    let mut known = session.certificate.as_ref();
    for _ in 0..SAVES {
        match try_settle(session, known, transition, before, lease, hold).await {
            // The certificate is read anew.
            Err(WorkerError::Storage(StorageError::LeaseLost(id))) if id != lease.id => {
                known = None;
            }
            // The commit before may have come through, and only its answer was lost.
            Err(WorkerError::Storage(lost @ StorageError::LeaseLost(_))) if is_unheard => {
                let mut tx = ctx.db.read().await?;
                let owner = &ctx.settings.name;
                let ours = lease::after_unheard_commit(&mut tx, lease, owner).await?;
                return ours.ok_or(WorkerError::Storage(lost));
            }
            // What was done out there must not be forgotten because the database is busy.
            Err(WorkerError::Storage(error)) if error.is_passing() => {
                static LIMIT: LogLimit = LogLimit::new();
                if let Some(left_out) = LIMIT.pass() {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        order = %lease.id,
                        left_out,
                        "saving a step's result again"
                    );
                }
                is_unheard = true;
                pause().await;
            }
            settled => {
                if settled.is_ok() {
                    count::ended(session, transition, ctx.clock.now());
                }
                return settled;
            }
        }
    }
    try_settle(session, None, transition, before, lease, hold).await
}

async fn try_settle(
    session: &Session<'_>,
    known: Option<&(Certificate, Lease)>,
    transition: &Transition,
    before: &Before,
    lease: &Lease,
    hold: Hold,
) -> Result<Lease, WorkerError> {
    let ctx = session.ctx;
    let now = ctx.clock.now();
    let order = &transition.order;
    // Known or read before, and fenced when it is saved: a transaction that asks nothing is written in
    // one go.
    let certificate = match (&transition.outcome, known) {
        (None, _) => None,
        (Some(_), Some(known)) => Some(known.clone()),
        (Some(_), None) => certificate_of(ctx, order).await?,
    };
    let mut tx = ctx.db.begin();
    let challenges = &before.challenges;
    let lease = match hold {
        Hold::Release => orders::save(&mut tx, order, challenges, lease, None).await?,
        Hold::Extend => orders::save(&mut tx, order, challenges, lease, Some(now)).await?,
        Hold::Keep => orders::save_held(&mut tx, order, challenges, lease).await?,
    };
    if before.challenges.is_empty() && !order.challenges.is_empty() {
        challenges::insert(&mut tx, order.id, &order.challenges).await?;
    }
    let happened = [&before.unsaved[..], &transition.events].concat();
    events::record(&mut tx, &order.namespace, Some(order.certificate), &happened, now);
    if transition.outcome.is_none() && before.last_error != order.last_error {
        let trouble = order.last_error.as_ref();
        certificates::note(&mut tx, order.certificate, order.id, trouble).await?;
    }
    if let Some(trouble) = order.new_trouble(before.told.as_deref()) {
        orders::tell_trouble(&mut tx, order, trouble);
    }
    orders::tell_end(&mut tx, transition);
    session.admission.store(&mut tx, now).await?;
    if let Some(outcome) = &transition.outcome {
        if let Some(issuer) = &session.issuer {
            budget::count_failures(&mut tx, issuer, order, outcome, now).await?;
        }
        // It was deleted, or has gone on to another order, where there is none.
        if let Some((certificate, lease)) = certificate {
            let ended = Ended { order, outcome, download: session.download.as_ref() };
            // On the heap: it is the largest part of what is handed around with each order.
            Box::pin(conclude(&mut tx, ended, certificate, &lease, now)).await?;
        }
    }
    tx.commit().await?;
    Ok(lease)
}

/// The certificate that waits for this order.
async fn certificate_of(
    ctx: &Context,
    order: &Order,
) -> Result<Option<(Certificate, Lease)>, StorageError> {
    let mut tx = ctx.db.read().await?;
    let found = certificates::find(&mut tx, order.certificate, &Scope::Everything).await?;
    Ok(found.filter(|(certificate, _)| certificate.order == Some(order.id)))
}
