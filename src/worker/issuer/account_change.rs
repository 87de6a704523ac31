//! Gives accounts another key, and gives accounts up.
//!
//! The next key is stored before the CA hears of it. After a crash, or a lost answer, the CA is asked
//! which of the two it knows the account by; nothing is forgotten before that is known.

use time::Duration;

use crate::domain::backoff::{self, Jitter};
use crate::domain::event::Event;
use crate::domain::failure::{Class, Failure, code};
use crate::domain::issuer::{Account, DEACTIVATION_DEADLINE, Issuer, ROTATION_WAITS, Transition};
use crate::secret::{Sealed, Secret};
use crate::storage::lease::Lease;
use crate::storage::{certificates, issuers, orders};
use crate::worker::context::{Context, STEP_TIMEOUT};
use crate::worker::error::{WorkerError, unreadable};

/// Pause between checks whether the orders that are under way have ended.
const LOOK_AGAIN: Duration = Duration::seconds(2);

/// How a change of keys ended.
enum Changed {
    /// The CA knows the account by the next key.
    Done,
    /// The CA knows the account by the present key, and will not change that.
    Refused(Failure),
}

pub(super) async fn rotate_key(
    ctx: &Context,
    issuer: Issuer,
    since: time::OffsetDateTime,
    lease: &Lease,
) -> Result<(), WorkerError> {
    let now = ctx.clock.now();
    let mut tx = ctx.db.read().await?;
    let busy = orders::any_under_way_of_issuer(&mut tx, issuer.id).await?.is_some();
    let present = issuers::account_key(&mut tx, issuer.id).await?;
    let next = issuers::next_account_key(&mut tx, issuer.id).await?;
    drop(tx);
    if busy && now < since + ROTATION_WAITS {
        return settle(ctx, issuer.account_change_waits(None, now + LOOK_AGAIN, now), lease).await;
    }
    let (Some(account), Some(next)) = (issuer.account.clone(), next) else {
        let failure = Failure::of(code::NO_ACCOUNT, "");
        return settle(ctx, issuer.key_kept(&failure, now), lease).await;
    };
    let present = ctx.sealer.open(&issuers::account_key_place(&issuer), &present);
    let next = ctx.sealer.open(&issuers::next_account_key_place(&issuer), &next);
    let (present, next) = match (present, next) {
        (Ok(present), Ok(next)) => (present, next),
        (Err(error), _) | (_, Err(error)) => {
            let failure = unreadable(&error);
            let later = now + Duration::hours(1);
            return settle(ctx, issuer.account_change_waits(Some(failure), later, now), lease)
                .await;
        }
    };
    let changing = change_key(ctx, &issuer, &account, &present, &next);
    let changed =
        tokio::time::timeout(STEP_TIMEOUT, changing).await.unwrap_or_else(|_| Err(timed_out()));
    failpoint!("after_key_change");
    let now = ctx.clock.now();
    match changed {
        Ok(Changed::Done) => {
            let place = issuers::account_key_place(&issuer);
            let sealed = ctx.sealer.seal(&place, next.expose())?;
            take_over(ctx, issuer, &sealed, lease).await
        }
        Ok(Changed::Refused(failure)) => settle(ctx, issuer.key_kept(&failure, now), lease).await,
        Err(failure) => {
            let pause = backoff::transient(issuer.tries, Jitter::random());
            let at = failure.retry_at.map_or(now + pause, |asked| asked.max(now + pause));
            tracing::warn!(issuer = %issuer.id, %failure, "the account's key is not replaced yet");
            settle(ctx, issuer.account_change_waits(Some(failure), at, now), lease).await
        }
    }
}

async fn change_key(
    ctx: &Context,
    issuer: &Issuer,
    account: &Account,
    present: &Secret<Vec<u8>>,
    next: &Secret<Vec<u8>>,
) -> Result<Changed, Failure> {
    let (ca, acme) = (ctx.ca.of(issuer.kind), &issuer.acme);
    let is_ours = |found: Option<String>| found.is_some_and(|url| url == account.url);
    // Perhaps it was done before, and nobody came to remember it.
    if is_ours(ca.account_of(acme, next).await?) {
        return Ok(Changed::Done);
    }
    let Err(failure) = ca.change_key(acme, &account.url, present, next).await else {
        return Ok(Changed::Done);
    };
    // A refusal is one only where the present key still is the account's.
    if failure.is_refusal() && is_ours(ca.account_of(acme, present).await?) {
        return Ok(Changed::Refused(failure));
    }
    Err(failure)
}

async fn take_over(
    ctx: &Context,
    issuer: Issuer,
    sealed: &Sealed,
    lease: &Lease,
) -> Result<(), WorkerError> {
    let now = ctx.clock.now();
    let rotated = issuer.key_rotated(now);
    let id = rotated.issuer.id;
    let mut tx = ctx.db.begin();
    // Steps that are just being taken are signed by the former key.
    orders::retake_steps(&mut tx, id, now).await?;
    issuers::save(&mut tx, &rotated, lease).await?;
    issuers::set_account_key(&mut tx, id, sealed).await?;
    tx.commit().await?;
    Ok(())
}

pub(super) async fn deactivate(
    ctx: &Context,
    issuer: Issuer,
    since: time::OffsetDateTime,
    then_delete: bool,
    lease: &Lease,
) -> Result<(), WorkerError> {
    let given_up = match &issuer.account {
        None => Ok(()),
        Some(account) => {
            let sealed = issuers::account_key(&mut ctx.db.read().await?, issuer.id).await?;
            match ctx.sealer.open(&issuers::account_key_place(&issuer), &sealed) {
                Err(error) => Err(unreadable(&error)),
                Ok(key) => {
                    let asked = ctx.ca.of(issuer.kind).deactivate(&issuer.acme, &key, &account.url);
                    tokio::time::timeout(STEP_TIMEOUT, asked)
                        .await
                        .unwrap_or_else(|_| Err(timed_out()))
                }
            }
        }
    };
    let now = ctx.clock.now();
    let failure = match given_up {
        Ok(()) => None,
        // The CA says so of accounts that are given up already, and of those that it forgot.
        Err(failure)
            if matches!(
                failure.known_code(),
                Some(code::ACME_UNAUTHORIZED | code::ACME_ACCOUNT_DOES_NOT_EXIST)
            ) =>
        {
            None
        }
        Err(failure) => Some(failure),
    };
    match failure {
        None => end(ctx, issuer.deactivated(now), then_delete, lease).await,
        Some(failure) if then_delete && now >= since + DEACTIVATION_DEADLINE => {
            let event = Event::warning(
                issuer.id,
                "AccountDeactivationFailed",
                format!("The issuer is deleted, its account was not deactivated: {failure}"),
            );
            let ended = Transition::silent(issuer, now).remarking([event]);
            end(ctx, ended, true, lease).await
        }
        Some(failure) => {
            let pause = match failure.class {
                Class::Blocked => Duration::hours(1),
                _ => backoff::transient(issuer.tries, Jitter::random()),
            };
            let at = failure.retry_at.map_or(now + pause, |asked| asked.max(now + pause));
            settle(ctx, issuer.account_change_waits(Some(failure), at, now), lease).await
        }
    }
}

/// Saves an issuer whose account is over; deletes it where that is wanted and nobody needs it.
async fn end(
    ctx: &Context,
    mut ended: Transition,
    delete: bool,
    lease: &Lease,
) -> Result<(), WorkerError> {
    let now = ctx.clock.now();
    let Issuer { id, kind, namespace, name, .. } = ended.issuer.clone();
    let mut tx = ctx.db.begin();
    let user = certificates::any_of_issuer(&mut tx, kind, &namespace, &name).await?;
    let goes = delete && user.is_none();
    if goes {
        let message = format!("Issuer `{name}` was deleted");
        ended = ended.remarking([Event::normal(id, "Deleted", message)]);
    }
    issuers::save(&mut tx, &ended, lease).await?;
    if goes {
        issuers::delete(&mut tx, id).await?;
    }
    certificates::wake_waiting(&mut tx, kind, &namespace, &name, now).await?;
    tx.commit().await?;
    Ok(())
}

/// Saves an issuer; the next key of an account that keeps its present one is forgotten.
async fn settle(ctx: &Context, settled: Transition, lease: &Lease) -> Result<(), WorkerError> {
    let mut tx = ctx.db.begin();
    issuers::save(&mut tx, &settled, lease).await?;
    if settled.issuer.account_change.is_none() {
        issuers::set_next_account_key(&mut tx, settled.issuer.id, None).await?;
    }
    tx.commit().await?;
    Ok(())
}

fn timed_out() -> Failure {
    Failure::timed_out("The CA took too long", STEP_TIMEOUT)
}
