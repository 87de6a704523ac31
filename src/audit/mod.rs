//! Sealing and verifying the audit log.
//!
//! Transactions add entries and never wait for each other. A sealer in every replica gives them numbers and hashes
//! within about a second. It needs no lease: two that seal at once give the same number, and the database takes one.

mod watch;

use std::time::Duration;

use thiserror::Error;
use time::OffsetDateTime;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::clock::Clock;
use crate::domain::audit::{Break, ChainKey, Entry, Head, Seal, Walk};
use crate::domain::principal::PrincipalKind;
use crate::storage::{Db, StorageError, audit, audit_checkpoints};
use crate::telemetry::LogLimit;

pub use watch::Watch;

/// Time between two looks for entries without a seal.
const EVERY: Duration = Duration::from_millis(500);

/// Entries that are sealed in one transaction.
const BATCH: u32 = 200;

/// Seals that are read at once.
const PAGE: u32 = 500;

/// Nearly all transactions are committed sooner after they have made their entries. Each look passes over what it
/// covers and is sealed already, so that it must not cover much.
const RECENT: time::Duration = time::Duration::seconds(3);

/// Time between two looks at what was slow to be committed, or comes from a clock that is behind; what such a look covers.
const WIDER: (Duration, time::Duration) = (Duration::from_secs(20), time::Duration::minutes(2));

/// Time between two looks at everything.
const EVERYTHING: Duration = Duration::from_hours(1);

/// Time between two lines of the log that tell the head.
const TELL: Duration = Duration::from_mins(10);

/// Makes the seals.
pub struct Sealer {
    db: Db,
    key: ChainKey,
}

impl Sealer {
    pub fn new(db: Db, key: ChainKey) -> Self {
        Self { db, key }
    }

    /// Seals all entries from this identifier on; returns how many it were.
    pub async fn seal(&self, mut from: Uuid) -> Result<usize, StorageError> {
        let mut sealed = 0;
        loop {
            let (done, last) = match self.seal_some(from).await {
                // Another replica was first.
                Err(StorageError::Conflict) => return Ok(sealed),
                done => done?,
            };
            sealed += done;
            if done < BATCH as usize {
                return Ok(sealed);
            }
            from = last;
        }
    }

    /// Seals the first of them; returns how many it were, and the last one's identifier.
    async fn seal_some(&self, from: Uuid) -> Result<(usize, Uuid), StorageError> {
        let mut read = self.db.read().await?;
        let entries = audit::unsealed(&mut read, from, BATCH).await?;
        let Some(last) = entries.last().map(|entry| entry.id) else { return Ok((0, from)) };
        let mut head = audit::head(&mut read).await?;
        drop(read);
        let mut tx = self.db.begin();
        for entry in &entries {
            let seal = self.key.seal(&head, entry);
            audit::seal(&mut tx, entry.id, &seal).await?;
            head = Head { seq: seal.seq, hash: seal.hash };
        }
        tx.commit().await?;
        failpoint!("after_seal");
        Ok((entries.len(), last))
    }

    /// Seals for as long as the service runs, and tells the head in the log: elsewhere it says that nothing of the
    /// log's end is missing.
    pub async fn run(self, clock: &dyn Clock, stop: CancellationToken) {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut from, mut looks) = (Uuid::nil(), Looks::begin());
        let (mut told, mut is_told) = (Head::beginning(), Instant::now());
        let limit = LogLimit::new();
        loop {
            let is_last = tokio::select! {
                _ = tick.tick() => false,
                () = stop.cancelled() => true,
            };
            // What a look that failed should have covered is covered by the next one.
            from = from.min(looks.next(clock.now()));
            match self.seal(from).await {
                Ok(_) => from = Uuid::max(),
                Err(error) => {
                    if let Some(left_out) = limit.pass() {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(
                            error,
                            left_out,
                            "the audit log is not sealed; trying again"
                        );
                    }
                }
            }
            if is_last || is_told.elapsed() >= TELL {
                is_told = Instant::now();
                self.tell(&mut told).await;
            }
            if is_last {
                return;
            }
        }
    }

    async fn tell(&self, told: &mut Head) {
        let head = async { audit::head(&mut self.db.read().await?).await };
        match head.await {
            Ok(head) if head != *told => {
                tracing::info!(%head, "head of the audit log; `certwright audit verify --head` takes it");
                *told = head;
            }
            _ => {}
        }
    }
}

/// How far back the next look goes.
struct Looks {
    wider: Instant,
    everything: Instant,
}

impl Looks {
    fn begin() -> Self {
        Self { wider: Instant::now(), everything: Instant::now() }
    }

    /// The identifier that the next look begins with.
    fn next(&mut self, now: OffsetDateTime) -> Uuid {
        let (every, back) = WIDER;
        if self.everything.elapsed() >= EVERYTHING {
            self.everything = Instant::now();
            Uuid::nil()
        } else if self.wider.elapsed() >= every {
            self.wider = Instant::now();
            first_of(now - back)
        } else {
            first_of(now - RECENT)
        }
    }
}

/// The least identifier of a moment (UUIDv7).
fn first_of(at: OffsetDateTime) -> Uuid {
    let milliseconds = u128::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or_default();
    Uuid::from_u128(milliseconds << 80)
}

/// Why the audit log could not be verified, or is not what it was.
#[derive(Debug, Error)]
pub enum VerifyError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("the audit log is not whole: {0}. Compare it with an export or a backup")]
    Broken(#[from] Break),
}

/// A log that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    pub head: Head,
    /// Entries that were not sealed yet.
    pub unsealed: usize,
}

/// Walks along the whole chain, from its checkpoint on if it was pruned, and shows each entry to `show`. With a head
/// that was `known` before, a tail that was cut off is found, too.
pub async fn verify(
    db: &Db,
    key: &ChainKey,
    known: Option<Head>,
    show: impl FnMut(&Seal, &Entry),
) -> Result<Verified, VerifyError> {
    let head = walk(db, key, known, None, show).await?;
    let unsealed = audit::unsealed(&mut db.read().await?, Uuid::nil(), PAGE).await?.len();
    Ok(Verified { head, unsealed })
}

/// The same at a pace: a page each time; the head.
async fn walk(
    db: &Db,
    key: &ChainKey,
    known: Option<Head>,
    pace: Option<Duration>,
    mut show: impl FnMut(&Seal, &Entry),
) -> Result<Head, VerifyError> {
    let checkpoint = audit_checkpoints::last(&mut db.read().await?).await?;
    let mut walk = Walk::new(key, checkpoint, known)?;
    let mut after = walk.head().seq;
    let mut pace = pace.map(tokio::time::interval);
    loop {
        if let Some(pace) = &mut pace {
            pace.tick().await;
        }
        let found = audit::chain(&mut db.read().await?, after, PAGE).await?;
        for (seal, entry) in &found {
            walk.step(seal, entry.as_ref())?;
            if let Some(entry) = entry {
                show(seal, entry);
            }
            after = seal.seq;
        }
        if found.len() < PAGE as usize {
            return Ok(walk.end()?);
        }
    }
}

/// Removes the beginning of the log as far as it is older than `before`, but for the last entry. A log that is not whole
/// stays as it is: what was done to it could not be found any more. Returns how many entries were removed.
///
/// Cut off anywhere, the checkpoint says where the log begins, and the next run removes what is before.
pub async fn prune(
    db: &Db,
    key: &ChainKey,
    before: OffsetDateTime,
    now: OffsetDateTime,
) -> Result<u64, VerifyError> {
    // The head is not removed, so that seals follow from it: the last one but one at most.
    let (mut last, mut next, mut is_over) = (None, None, false);
    let look = |seal: &Seal, entry: &Entry| {
        if !is_over {
            last = next.take();
            is_over = entry.at >= before;
            next = Some(Head { seq: seal.seq, hash: seal.hash.clone() }).filter(|_| !is_over);
        }
    };
    verify(db, key, None, look).await?;
    if let Some(last) = last {
        let mut tx = db.begin();
        let (kind, reason) = (PrincipalKind::Configuration, format!("everything up to {last}"));
        let entry =
            Entry::without_request(kind, "certwright audit prune", "audit.prune", reason, now);
        audit::insert(&mut tx, &entry).await?;
        audit_checkpoints::insert(&mut tx, &key.checkpoint(last, now)).await?;
        tx.commit().await?;
    }
    failpoint!("after_checkpoint");
    let checkpoint = audit_checkpoints::last(&mut db.read().await?).await?;
    let Some(checkpoint) = checkpoint else { return Ok(0) };
    let mut removed = 0;
    loop {
        let mut tx = db.begin();
        let some = audit_checkpoints::prune(&mut tx, &checkpoint.head, PAGE).await?;
        tx.commit().await?;
        removed += some;
        if some == 0 {
            return Ok(removed);
        }
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::domain::id::AuditId;

    #[tokio::test(start_paused = true)]
    async fn a_look_covers_seconds_now_and_then_minutes_and_each_hour_everything() {
        let now = datetime!(2026-11-24 12:00 UTC);
        let mut looks = Looks::begin();
        let (seconds, minutes) = (first_of(now - RECENT), first_of(now - WIDER.1));
        assert_eq!(looks.next(now), seconds);

        tokio::time::advance(WIDER.0).await;
        assert_eq!([looks.next(now), looks.next(now)], [minutes, seconds]);

        tokio::time::advance(EVERYTHING).await;
        let next = [looks.next(now), looks.next(now), looks.next(now)];
        assert_eq!(next, [Uuid::nil(), minutes, seconds]);
    }

    #[test]
    fn no_entry_of_a_moment_comes_before_the_first() {
        let now = datetime!(2026-11-24 12:00 UTC);
        // Generated ones never go back, so that one of a moment before others may carry theirs.
        assert!(first_of(now) <= AuditId::generate(now).0);
        let before = first_of(now - time::Duration::milliseconds(1)).as_u128() | ((1 << 80) - 1);
        assert!(before < first_of(now).as_u128());
    }
}
