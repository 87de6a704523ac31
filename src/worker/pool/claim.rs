//! What to take up next: the oldest that is due, as far as everybody's share allows.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::OwnedSemaphorePermit;

use super::quota::Share;
use crate::domain::order::Order;
use crate::storage::fair::Lane;
use crate::storage::lease;
use crate::storage::lease::{Due, Lease, Machine};
use crate::storage::{StorageError, fair};
use crate::worker::order::cleanup;
use crate::worker::{LONG, Worker};

/// On PostgreSQL another replica's wake-up may get lost: look at least this often.
pub(in crate::worker) const POLL: Duration = Duration::from_secs(5);

/// What is due and yet could not be claimed is somebody else's just now: look again soon, not at once.
const SHORT: Duration = Duration::from_millis(20);

/// This part of the pool (an eighth) is for namespaces that hold nothing of it.
const FOR_NEWCOMERS: usize = 8;

/// What was claimed, and takes a slot.
pub(in crate::worker) enum Work {
    /// A row.
    Row(Lease, Option<Share>),
    /// Orders that are over, to be cleaned up after together.
    CleanUps(Vec<(Order, Lease)>, OwnedSemaphorePermit),
}

/// What a look brought.
pub(in crate::worker) enum Look {
    /// Something to do.
    Found(Vec<Work>),
    /// Something is due that there is no room for, or that somebody else holds.
    Crowded,
    /// Nothing is due before this time.
    Nothing(Option<OffsetDateTime>),
}

impl Worker {
    /// Claims what is due: what is quick or rare (watches, revocations, issuers, housekeeping), then
    /// lane by lane, whoever holds least first. Among equals orders go before certificates: what has
    /// begun is finished before more is begun.
    pub(in crate::worker) async fn look(&self, free: usize) -> Result<Look, StorageError> {
        let now = self.clock.now();
        let mut tx = self.db.read().await?;
        let Due { rows, clean_ups } = lease::next_due(&mut tx).await?;
        if rows.iter().all(|(_, at)| *at > now) {
            return Ok(Look::Nothing(rows.into_iter().map(|(_, at)| at).min()));
        }
        let mut waiting = Vec::new();
        let mut few = Vec::new();
        for (machine, at) in rows {
            match machine {
                _ if at > now => {}
                Machine::Expiry
                | Machine::Revocation
                | Machine::Issuer
                | Machine::Task
                | Machine::Delivery => few.push(machine),
                Machine::Order | Machine::Certificate => {
                    let mut found = fair::oldest(&mut tx, machine, now).await?;
                    if found.more {
                        // Whoever is behind them must not wait for them.
                        found = fair::every(&mut tx, machine).await?;
                    }
                    waiting.extend(found.lanes.into_iter().filter(|(_, due)| *due <= now));
                }
            }
        }
        // Nobody holds a connection while waiting for another one.
        drop(tx);
        let mut claimed = Vec::new();
        if clean_ups.is_some_and(|at| at <= now) {
            claimed = self.claim_clean_ups(free).await?;
        }
        for machine in few {
            let (owner, free) = (&self.settings.name, free - claimed.len());
            let mut tx = self.db.begin();
            let leases = lease::claim(&mut tx, machine, owner, now, free).await?;
            tx.commit().await?;
            claimed.extend(leases.into_iter().map(|lease| Work::Row(lease, None)));
        }
        let shares = &self.local.shares;
        let late = |lane: &Lane| lane.machine == Machine::Certificate;
        waiting.sort_by_key(|(lane, due)| (shares.held(&lane.namespace), late(lane), *due));
        for (lane, _) in waiting {
            let room = self.room(&lane, free - claimed.len());
            if room == 0 {
                continue;
            }
            let mut tx = self.db.begin();
            let leases = fair::claim(&mut tx, &lane, &self.settings.name, now, room).await?;
            tx.commit().await?;
            let rows = leases.into_iter().map(|lease| Work::Row(lease, Some(shares.take(&lane))));
            claimed.extend(rows);
        }
        Ok(if claimed.is_empty() { Look::Crowded } else { Look::Found(claimed) })
    }

    /// Each takes one slot for many orders, and not many slots are for them.
    async fn claim_clean_ups(&self, free: usize) -> Result<Vec<Work>, StorageError> {
        let mut claimed = Vec::new();
        while claimed.len() < free
            && let Ok(place) = Arc::clone(&self.local.clean_ups).try_acquire_owned()
        {
            let over = self.orders_to_clean_up().await?;
            let are_more = over.len() == cleanup::TOGETHER;
            if !over.is_empty() {
                claimed.push(Work::CleanUps(over, place));
            }
            if !are_more {
                break;
            }
        }
        Ok(claimed)
    }

    /// Takes a step with everything that is due at this moment; says how much that was.
    pub async fn work_due(&self) -> Result<usize, StorageError> {
        let Look::Found(found) = self.look(self.settings.concurrency).await? else { return Ok(0) };
        let count = found.len();
        for work in found {
            Box::pin(self.carry(work)).await;
        }
        Ok(count)
    }

    /// How many rows of a lane may be taken, of so many free slots. The last part of the pool is for
    /// namespaces that hold nothing: their first row need not wait for a step of somebody else's.
    pub(in crate::worker) fn room(&self, lane: &Lane, free: usize) -> usize {
        let for_all = free.saturating_sub(self.settings.concurrency / FOR_NEWCOMERS);
        let most = match self.local.shares.held(&lane.namespace) {
            0 => for_all.max(1).min(free),
            _ => for_all,
        };
        self.local.shares.room(lane).min(most)
    }

    /// How long there is nothing to claim before this time, unless a signal comes.
    pub(in crate::worker) fn until(&self, next: Option<OffsetDateTime>) -> Duration {
        let longest = if self.db.dialect() == "sqlite" { LONG } else { POLL };
        let now = self.clock.now();
        next.map_or(longest, |at| {
            Duration::try_from(at - now).unwrap_or_default().clamp(SHORT, longest)
        })
    }

    /// When the next row is due that there is room for.
    pub(in crate::worker) async fn next_claimable(
        &self,
        free: usize,
    ) -> Result<Option<OffsetDateTime>, StorageError> {
        let crowded = free <= self.settings.concurrency / FOR_NEWCOMERS;
        let mut tx = self.db.read().await?;
        let Due { rows: mut due, clean_ups } = lease::next_due(&mut tx).await?;
        let now = self.clock.now();
        if clean_ups.is_some_and(|at| at <= now)
            && self.local.clean_ups.available_permits() == 0
            && fair::oldest(&mut tx, Machine::Order, now).await?.lanes.is_empty()
        {
            // What is due are clean-ups, and those wait for one of theirs to end.
            due.retain(|(machine, _)| *machine != Machine::Order);
        }
        if !crowded && !self.local.shares.any_full() {
            return Ok(due.into_iter().map(|(_, at)| at).min());
        }
        let mut next = Vec::new();
        for (machine, at) in due {
            if !matches!(machine, Machine::Order | Machine::Certificate) {
                next.push(at);
                continue;
            }
            let every = fair::every(&mut tx, machine).await?.lanes;
            next.extend(
                every.iter().filter(|(lane, _)| self.room(lane, free) > 0).map(|(_, at)| *at),
            );
        }
        Ok(next.into_iter().min())
    }
}
