//! Wake-ups that a clock which was ahead has left behind.
//!
//! What was scheduled by a clock two days ahead is due in two days by the right one, and nobody would look before.
//! Such rows are told by when they were written, as far as they know, and by a wake-up beyond every pause that there
//! is. All of them are due at once then: whoever looks too early only looks, and waits on.

use time::{Duration, OffsetDateTime};

use super::deliveries;
use crate::storage::engine::{Read, StorageError, Tx, execute, fetch, millis, statements};

/// Longer than any pause that is not for good reason longer: a day, as receivers and probes have it, and a quarter for
/// chance. A CA may ask for more: it is asked once more, and then everybody waits as it says.
const LONGEST_PAUSE: Duration = Duration::hours(30);

/// Clocks of replicas may differ by so much.
const TOLERANCE: Duration = Duration::minutes(1);

statements! {
    NEWEST = "SELECT max(last_seen) FROM events";
    // A served certificate waits for its renewal, a deleted one for its revocations, and one for approval until its
    // deadline: with good reason for long.
    CERTIFICATES writes(certificates) = "UPDATE certificates SET next_action_at = $1
        WHERE leased_by IS NULL AND next_action_at > $2 AND deleting_since IS NULL AND NOT awaits_approval
            AND (state_since > $2 OR (next_action_at > $3 AND state NOT IN ('idle', 'backoff')))";
    CHALLENGES writes(challenges) reads(orders) = "UPDATE challenges SET next_action_at = $1
        WHERE order_id IN (SELECT id FROM orders WHERE next_action_at IS NOT NULL AND created_at > $2)
            AND next_action_at > $2";
    ORDERS writes(orders) = "UPDATE orders SET next_action_at = $1
        WHERE leased_by IS NULL AND next_action_at > $2 AND (created_at > $2 OR next_action_at > $3)";
    ISSUERS writes(issuers) = "UPDATE issuers SET next_action_at = $1
        WHERE leased_by IS NULL AND next_action_at > $2 AND (state_since > $2 OR next_action_at > $3)";
    REVOCATIONS writes(revocations) = "UPDATE revocations SET next_action_at = $1
        WHERE leased_by IS NULL AND next_action_at > $2 AND (created_at > $2 OR next_action_at > $3)";
    PAUSES writes(webhooks) = "UPDATE webhooks SET paused_until = NULL WHERE paused_until > $1";
    THROTTLES writes(throttles) = "UPDATE throttles SET held_until = $1 WHERE held_until > $2";
}

/// Whether something was written by a clock that was ahead: what happened last has not happened yet.
pub async fn are_from_the_future(
    read: &mut Read,
    now: OffsetDateTime,
) -> Result<bool, StorageError> {
    let (newest,): (Option<i64>,) = fetch!(fetch_one, read, NEWEST)?;
    Ok(newest.is_some_and(|newest| newest > millis(now + TOLERANCE)))
}

/// Makes everything due at once that waits by a clock that was ahead, and ends the throttles that it may have written;
/// returns the number of rows.
pub async fn clamp(tx: &mut Tx, now: OffsetDateTime) -> Result<u64, StorageError> {
    let (at, tolerated) = (millis(now), millis(now + TOLERANCE));
    let latest = millis(now + LONGEST_PAUSE);
    let rows = execute!(tx, CERTIFICATES, at, tolerated, latest)?
        + execute!(tx, ORDERS, at, tolerated, latest)?
        + execute!(tx, ISSUERS, at, tolerated, latest)?
        + execute!(tx, REVOCATIONS, at, tolerated, latest)?
        + deliveries::make_due(tx, at, tolerated, latest).await?
        + execute!(tx, THROTTLES, at, latest)?;
    // These are parts of what is counted already.
    execute!(tx, CHALLENGES, at, tolerated)?;
    deliveries::wake_webhooks(tx, at, tolerated, latest).await?;
    execute!(tx, PAUSES, latest)?;
    if rows > 0 {
        tx.wake_workers();
        tx.wake_deliverers();
    }
    Ok(rows)
}
