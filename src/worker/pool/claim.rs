//! Claims the oldest rows that are due, as far as the quotas allow.

use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::OwnedSemaphorePermit;

use super::longest_rest;
use super::slots::Slots;
use crate::domain::certificate::Certificate;
use crate::domain::order::Order;
use crate::storage::fair::{Claimed, Flow};
use crate::storage::lease::{self, Lease, Machine};
use crate::storage::{Read, StorageError, cleanups, fair};
use crate::worker::context::Context;
use crate::worker::limits::Share;
use crate::worker::steps::CLEAN_UPS_TOGETHER;

/// Another replica holds what is due and yet could not be claimed: the pool looks again soon, not at
/// once.
const SHORT: Duration = Duration::from_millis(20);

/// Claimed work for one slot.
pub(super) enum Work {
    Row(Lease, Option<Share>),
    Certificate(Box<Certificate>, Lease, Share),
    /// Orders that are over, to be cleaned up after together.
    CleanUps(Vec<(Order, Lease)>, OwnedSemaphorePermit),
}

/// The result of a look.
pub(super) enum Look {
    Found(Vec<Work>),
    /// Something is due that there is no room for, or that another replica holds.
    Crowded,
    /// Nothing is due before this time.
    Nothing(Option<OffsetDateTime>),
}

/// Claims what is due: what is quick or rare (watches, revocations, issuers, tasks), then flow by flow,
/// the namespace first that holds least. Among equals orders go before certificates: what has begun is
/// finished before more is begun.
pub(super) async fn look(ctx: &Context, slots: &Slots, free: usize) -> Result<Look, StorageError> {
    let now = ctx.clock.now();
    let mut tx = ctx.db.read().await?;
    let rows = lease::next_due(&mut tx).await?;
    if rows.iter().all(|(_, at)| *at > now) {
        return Ok(Look::Nothing(rows.into_iter().map(|(_, at)| at).min()));
    }
    let has_clean_ups = clean_ups_are_due(&mut tx, &rows, now).await?;
    let mut waiting = Vec::new();
    let mut few = Vec::new();
    for (machine, _) in rows.into_iter().filter(|(_, at)| *at <= now) {
        if !is_shared(machine) {
            few.push(machine);
            continue;
        }
        let mut found = fair::oldest(&mut tx, machine, now).await?;
        if found.more {
            // The flows behind the oldest rows must not wait for them.
            found = fair::every(&mut tx, machine).await?;
        }
        waiting.extend(found.flows.into_iter().filter(|(_, due)| *due <= now));
    }
    // A connection is given back before another one is asked for.
    drop(tx);
    let mut claimed = Vec::new();
    if has_clean_ups {
        claimed = claim_clean_ups(ctx, slots, free).await?;
    }
    let owner = &ctx.settings.name;
    for machine in few {
        let mut tx = ctx.db.begin();
        let leases = lease::claim(&mut tx, machine, owner, now, free - claimed.len()).await?;
        tx.commit().await?;
        claimed.extend(leases.into_iter().map(|lease| Work::Row(lease, None)));
    }
    let quota = &ctx.limits.quota;
    let is_late = |flow: &Flow| flow.machine == Machine::Certificate;
    waiting.sort_by_key(|(flow, due)| (quota.held(&flow.namespace), is_late(flow), *due));
    for (flow, _) in waiting {
        let room = slots.room(quota, &flow, free - claimed.len());
        if room == 0 {
            continue;
        }
        let mut tx = ctx.db.begin();
        let rows = fair::claim(&mut tx, &flow, owner, now, room).await?;
        tx.commit().await?;
        claimed.extend(rows.into_iter().map(|Claimed { lease, certificate }| {
            let share = quota.take(&flow);
            match certificate {
                Some(certificate) => Work::Certificate(certificate, lease, share),
                None => Work::Row(lease, Some(share)),
            }
        }));
    }
    Ok(if claimed.is_empty() { Look::Crowded } else { Look::Found(claimed) })
}

/// Whether a machine's rows are claimed flow by flow.
fn is_shared(machine: Machine) -> bool {
    match machine {
        Machine::Order | Machine::Certificate => true,
        Machine::Expiry
        | Machine::Revocation
        | Machine::Issuer
        | Machine::Task
        | Machine::PolicyReview
        | Machine::Delivery => false,
    }
}

/// Whether orders are due that are over; `due` is when the next of all orders is.
async fn clean_ups_are_due(
    read: &mut Read,
    due: &[(Machine, OffsetDateTime)],
    now: OffsetDateTime,
) -> Result<bool, StorageError> {
    if due.iter().all(|(machine, at)| *machine != Machine::Order || *at > now) {
        return Ok(false);
    }
    Ok(cleanups::next_due(read).await?.is_some_and(|at| at <= now))
}

/// Each piece takes one slot for many orders, and not many slots are for clean-ups.
async fn claim_clean_ups(
    ctx: &Context,
    slots: &Slots,
    free: usize,
) -> Result<Vec<Work>, StorageError> {
    let mut claimed = Vec::new();
    while claimed.len() < free
        && let Some(slot) = slots.take_for_clean_up()
    {
        let mut tx = ctx.db.begin();
        let (owner, now) = (&ctx.settings.name, ctx.clock.now());
        let over = cleanups::claim(&mut tx, owner, now, CLEAN_UPS_TOGETHER).await?;
        tx.commit().await?;
        let are_more = over.len() == CLEAN_UPS_TOGETHER;
        if !over.is_empty() {
            claimed.push(Work::CleanUps(over, slot));
        }
        if !are_more {
            break;
        }
    }
    Ok(claimed)
}

/// How long there is nothing to claim before this time, unless a signal comes.
pub(super) fn until(ctx: &Context, next: Option<OffsetDateTime>) -> Duration {
    let longest = longest_rest(ctx);
    next.map_or(longest, |at| {
        Duration::try_from(at - ctx.clock.now()).unwrap_or_default().clamp(SHORT, longest)
    })
}

/// When the next row is due that there is room for.
pub(super) async fn next_claimable(
    ctx: &Context,
    slots: &Slots,
    free: usize,
) -> Result<Option<OffsetDateTime>, StorageError> {
    let quota = &ctx.limits.quota;
    let mut tx = ctx.db.read().await?;
    let mut due = lease::next_due(&mut tx).await?;
    let now = ctx.clock.now();
    if slots.clean_ups_are_full()
        && clean_ups_are_due(&mut tx, &due, now).await?
        && fair::oldest(&mut tx, Machine::Order, now).await?.flows.is_empty()
    {
        // The orders that are due are to be cleaned up after, and wait for a clean-up to end.
        due.retain(|(machine, _)| *machine != Machine::Order);
    }
    if !slots.are_for_newcomers(free) && !quota.any_full() {
        return Ok(due.into_iter().map(|(_, at)| at).min());
    }
    let mut next = Vec::new();
    for (machine, at) in due {
        if !is_shared(machine) {
            next.push(at);
            continue;
        }
        let every = fair::every(&mut tx, machine).await?.flows;
        let has_room = |flow: &Flow| slots.room(quota, flow, free) > 0;
        next.extend(every.iter().filter(|(flow, _)| has_room(flow)).map(|(_, at)| *at));
    }
    Ok(next.into_iter().min())
}
