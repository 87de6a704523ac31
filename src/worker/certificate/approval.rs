//! Requests that wait until somebody has approved them.

use super::request::at_hand;
use crate::domain::approval::Decision;
use crate::domain::backoff::Jitter;
use crate::domain::certificate::{Course, Transition};
use crate::domain::order::Outcome;
use crate::storage::certificates;
use crate::storage::lease::Lease;
use crate::storage::requests::{self, RequestState};
use crate::worker::context::Context;
use crate::worker::error::WorkerError;
use crate::worker::judgement::judge;

/// Looks whether a certificate still has to wait for approval of its request.
pub(super) async fn look(
    ctx: &Context,
    woken: Transition,
    lease: &Lease,
) -> Result<(), WorkerError> {
    let now = ctx.clock.now();
    let certificate = &woken.certificate;
    let judged = judge(ctx, certificate).await?;
    let request = at_hand(ctx, certificate).await?;
    let waiting = request.as_ref().and_then(|one| Some((one, one.approval.as_ref()?)));
    let deadline = waiting.map(|(_, approval)| approval.deadline);
    let course = certificate.course(judged.as_ref().map_err(Clone::clone), deadline, now);
    let mut tx = ctx.db.begin();
    let next = match (course, waiting) {
        // Without its request, another attempt begins.
        (Course::Order, _) | (_, None) => woken.then(|one| one.released(now)),
        (Course::Ask, Some((request, approval))) => {
            woken.then(|one| one.await_approval(request.id, approval.deadline, now))
        }
        (Course::GiveUp, Some((request, approval))) => {
            let decision = Decision::timed_out(approval.deadline, now);
            let denied = approval.clone().decided(decision.clone());
            requests::decide(&mut tx, request.id, &denied, now).await?;
            woken.then(|one| one.decided(&decision, now))
        }
        (Course::Block(failure), Some((request, _))) => {
            let (message, state) = (failure.to_string(), RequestState::Failed);
            requests::progress(&mut tx, request.id, state, &message, request.order, now).await?;
            woken.then(|one| one.order_failed(Outcome::Blocked(failure), 0, now, Jitter::random()))
        }
    };
    certificates::save(&mut tx, &next, lease, None).await?;
    tx.commit().await?;
    Ok(())
}
