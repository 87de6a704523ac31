//! Figures of the whole database for the metrics.
//!
//! None of them reads the rows of all certificates. All are counted by an index; those that are not idle, or not served,
//! are at one place of an index, and are few. What may pile up is counted up to [`MOST`].

use sqlx::FromRow;
use time::OffsetDateTime;

use super::certificates::{end, never};
use crate::storage::engine::{Read, StorageError, fetch, millis, moment, statements};

/// What waits is counted up to here.
pub const MOST: u64 = 10_000;

/// Counts the rows of a table that are due.
macro_rules! due {
    ($queue:literal, $table:literal) => {
        concat!(
            "SELECT '",
            $queue,
            "', count(*), min(due.next_action_at) FROM (
                SELECT next_action_at FROM ",
            $table,
            " WHERE next_action_at <= $1
                ORDER BY next_action_at LIMIT 10000) AS due"
        )
    };
}

const _: () = assert!(MOST == 10_000, "the statements have it as a literal");

statements! {
    ALL = "SELECT count(*) FROM certificates";
    // Each step of the recursion seeks the next name in `certificates_by_issuer`, and each count a part of it: what is
    // idle, which is nearly all, is passed over.
    NOT_IDLE = "WITH RECURSIVE used (kind, name) AS (
            SELECT kinds.kind, (SELECT min(c.issuer_name) FROM certificates c WHERE c.issuer_kind = kinds.kind)
            FROM (SELECT 'Issuer' AS kind UNION ALL SELECT 'ClusterIssuer') AS kinds
            UNION ALL
            SELECT used.kind, (SELECT min(c.issuer_name) FROM certificates c
                               WHERE c.issuer_kind = used.kind AND c.issuer_name > used.name)
            FROM used WHERE used.name IS NOT NULL)
        SELECT states.state, CAST(coalesce(sum((SELECT count(*) FROM certificates c
            WHERE c.issuer_kind = used.kind AND c.issuer_name = used.name AND c.state = states.state)), 0) AS BIGINT)
        FROM used, (SELECT 'triggered' AS state UNION ALL SELECT 'awaiting_issuer' UNION ALL SELECT 'ordering'
            UNION ALL SELECT 'backoff' UNION ALL SELECT 'blocked') AS states
        WHERE used.name IS NOT NULL GROUP BY states.state";
    UNISSUED = concat!("SELECT state, count(*), min(created_at) FROM certificates WHERE ", end!(), " = ", never!(), " GROUP BY state");
    ENDED = concat!("SELECT state, count(*) FROM certificates WHERE ", end!(), " <= $1 GROUP BY state");
    TRYING_AGAIN = concat!("SELECT count(*) FROM certificates WHERE failed_attempts > 0
        AND state IN ('triggered', 'awaiting_issuer', 'ordering') AND ", end!(), " > $1 AND ", end!(), " < ", never!());
    EXPIRING = "SELECT told, count(*) FROM expiry_watches WHERE told IS NOT NULL AND told <> 'expired' GROUP BY told";
    ENDING = concat!("SELECT namespace, name, not_after FROM certificates WHERE ", end!(), " > $1 AND ", end!(), " < ", never!(),
        " ORDER BY ", end!(), " LIMIT $2");
    QUEUES = concat!(
        due!("certificate", "certificates"), " UNION ALL ",
        due!("order", "orders"), " UNION ALL ",
        due!("issuer", "issuers"), " UNION ALL ",
        due!("expiry", "expiry_watches"), " UNION ALL ",
        due!("revocation", "revocations"), " UNION ALL ",
        due!("task", "tasks"), " UNION ALL ",
        due!("webhook", "webhooks")
    );
    THROTTLES = "SELECT scope, count(*), max(held_until) FROM throttles WHERE held_until > $1 GROUP BY scope";
    WEBHOOKS = "SELECT coalesce(disabled_because, CASE WHEN failures > 0 THEN 'not_answering' ELSE 'well' END), count(*)
        FROM webhooks GROUP BY 1";
}

/// How many certificates are in a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InState {
    /// The database's word for it.
    pub state: String,
    /// Nothing was issued yet.
    pub unissued: u64,
    /// When the first of those was asked for.
    pub unissued_since: Option<OffsetDateTime>,
    /// What was issued has ended.
    pub ended: u64,
    /// What was issued can be used.
    pub served: u64,
}

/// A certificate and its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    pub namespace: String,
    pub name: String,
    pub not_after: OffsetDateTime,
}

/// A queue's rows that are due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    pub queue: String,
    pub rows: u64,
    /// When the oldest of them fell due.
    pub since: Option<OffsetDateTime>,
}

/// The throttles of one scope that hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub scope: String,
    pub count: u64,
    /// When the last of them ends.
    pub until: OffsetDateTime,
}

/// The certificates in each state that any is in.
pub async fn certificates(
    read: &mut Read,
    now: OffsetDateTime,
) -> Result<Vec<InState>, StorageError> {
    let (all,): (i64,) = fetch!(fetch_one, read, ALL)?;
    let mut counted: Vec<Counted> = fetch!(fetch_all, read, NOT_IDLE)?;
    let not_idle: i64 = counted.iter().map(|known| known.1).sum();
    counted.push(Counted("idle".to_owned(), all - not_idle));
    counted.retain(|known| known.1 > 0);
    let unissued: Vec<(String, i64, i64)> = fetch!(fetch_all, read, UNISSUED)?;
    let ended: Vec<Counted> = fetch!(fetch_all, read, ENDED, millis(now))?;
    let in_state = |Counted(state, count): Counted| {
        let unissued = unissued.iter().find(|known| known.0 == state);
        let unissued_since = unissued.map(|known| moment(known.2));
        let unissued = unissued.map_or(0, |known| whole(known.1));
        let ended = ended.iter().find(|known| known.0 == state).map_or(0, |known| whole(known.1));
        // They are read one after the other.
        let served = whole(count).saturating_sub(unissued + ended);
        InState { state, unissued, unissued_since, ended, served }
    };
    Ok(counted.into_iter().map(in_state).collect())
}

/// When the first of the certificates was asked for that were never issued and wait for no person.
pub fn unissued_since(certificates: &[InState]) -> Option<OffsetDateTime> {
    let waiting = certificates.iter().filter(|one| one.state != "blocked");
    waiting.filter_map(|one| one.unissued_since).min()
}

/// The certificates that can be used, and whose renewal is tried again just now after it has failed.
pub async fn trying_again(read: &mut Read, now: OffsetDateTime) -> Result<u64, StorageError> {
    let (count,): (i64,) = fetch!(fetch_one, read, TRYING_AGAIN, millis(now))?;
    Ok(whole(count))
}

/// The certificates that near their end and have no successor, by the stage of which was told last.
pub async fn expiring(read: &mut Read) -> Result<Vec<(String, u64)>, StorageError> {
    let rows: Vec<Counted> = fetch!(fetch_all, read, EXPIRING)?;
    Ok(rows.into_iter().map(|Counted(stage, count)| (stage, whole(count))).collect())
}

/// The certificates that end next, the soonest first.
pub async fn ending(
    read: &mut Read,
    now: OffsetDateTime,
    limit: u32,
) -> Result<Vec<Ending>, StorageError> {
    let rows: Vec<(String, String, i64)> =
        fetch!(fetch_all, read, ENDING, millis(now), i64::from(limit))?;
    let ending = |(namespace, name, end)| Ending { namespace, name, not_after: moment(end) };
    Ok(rows.into_iter().map(ending).collect())
}

/// Every queue with what is due in it, and nobody has taken.
pub async fn queues(read: &mut Read, now: OffsetDateTime) -> Result<Vec<Due>, StorageError> {
    let rows: Vec<(String, i64, Option<i64>)> = fetch!(fetch_all, read, QUEUES, millis(now))?;
    let due = |(queue, rows, since): (String, i64, Option<i64>)| Due {
        queue,
        rows: whole(rows),
        since: since.map(moment),
    };
    Ok(rows.into_iter().map(due).collect())
}

/// The throttles that hold, by scope.
pub async fn throttles(read: &mut Read, now: OffsetDateTime) -> Result<Vec<Held>, StorageError> {
    let rows: Vec<(String, i64, i64)> = fetch!(fetch_all, read, THROTTLES, millis(now))?;
    let held = |(scope, count, until)| Held { scope, count: whole(count), until: moment(until) };
    Ok(rows.into_iter().map(held).collect())
}

/// The number of webhooks that do well, are not answering, or are disabled, each by its word.
pub async fn webhooks(read: &mut Read) -> Result<Vec<(String, u64)>, StorageError> {
    let rows: Vec<Counted> = fetch!(fetch_all, read, WEBHOOKS)?;
    Ok(rows.into_iter().map(|Counted(word, count)| (word, whole(count))).collect())
}

#[derive(FromRow)]
struct Counted(String, i64);

fn whole(count: i64) -> u64 {
    u64::try_from(count).unwrap_or_default()
}
