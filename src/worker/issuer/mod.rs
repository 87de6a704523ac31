//! Registers accounts: once each, under a lease, with a key that was stored before.

mod account_change;

use super::context::{Context, STEP_TIMEOUT};
use super::credentials::secret;
use super::error::{WorkerError, unreadable};
use super::limits::UNNAMED;
use crate::ca::{ExternalKey, Registration, mac_key};
use crate::domain::backoff::{self, Jitter};
use crate::domain::failure::{Class, Failure, code};
use crate::domain::id::IssuerId;
use crate::domain::issuer::{Account, AccountChange, Issuer, State};
use crate::domain::throttle;
use crate::domain::throttle::Asker;
use crate::secret::Secret;
use crate::storage::lease::Lease;
use crate::storage::{Scope, certificates, issuers, throttles};

pub(crate) async fn run(ctx: &Context, lease: Lease) -> Result<(), WorkerError> {
    let id = IssuerId(lease.id);
    let mut tx = ctx.db.read().await?;
    let Some((issuer, _)) = issuers::find(&mut tx, id, &Scope::Everything).await? else {
        return Ok(());
    };
    let sealed = issuers::account_key(&mut tx, id).await?;
    drop(tx);
    match issuer.account_change {
        Some(AccountChange::RotatingKey { since }) => {
            return account_change::rotate_key(ctx, issuer, since, &lease).await;
        }
        Some(AccountChange::Deactivating { since, then_delete }) => {
            return account_change::deactivate(ctx, issuer, since, then_delete, &lease).await;
        }
        Some(AccountChange::Deactivated { .. }) => {
            return stay_deactivated(ctx, issuer, &lease).await;
        }
        None if issuer.state == State::Ready => return wake_again(ctx, issuer, &lease).await,
        None => {}
    }
    let asker = Asker { server: &issuer.acme.server, account: "", names: &[] };
    let held = ctx.limits.throttle(&[asker.key(&throttle::Scope::Endpoint)]).await?;
    let registered = match ctx.sealer.open(&issuers::account_key_place(&issuer), &sealed) {
        _ if let Some(failure) = held => Err(failure),
        Ok(key) => {
            let registration = register(ctx, &issuer, &key);
            tokio::time::timeout(STEP_TIMEOUT, registration).await.unwrap_or_else(|_| {
                Err(Failure::timed_out("The registration took too long", STEP_TIMEOUT))
            })
        }
        Err(error) => Err(unreadable(&error)),
    };

    failpoint!("after_new_account");

    let now = ctx.clock.now();
    let throttle = registered.as_ref().err().and_then(|failure| {
        let scope = failure.scope.clone()?;
        Some((asker.key(&scope), scope, failure.clone()))
    });
    let server = issuer.acme.server.clone();
    let transition = match registered {
        Ok(account) => {
            let account = Account { url: account.url, server, email: account.email };
            issuer.registered(account, now)
        }
        Err(failure) => issuer.not_registered(failure, now, Jitter::random()),
    };
    let mut tx = ctx.db.begin();
    issuers::save(&mut tx, &transition, &lease).await?;
    if let Some((key, scope, why)) = throttle {
        let until = why.retry_at.unwrap_or(now + UNNAMED);
        throttles::hold(&mut tx, &key, &scope, until, &why, now).await?;
    }
    // Certificates that wait for the issuer are told news only, not a failure that repeats itself.
    if !transition.events.is_empty() {
        let issuer = &transition.issuer;
        certificates::wake_waiting(&mut tx, issuer.kind, &issuer.namespace, &issuer.name, now)
            .await?;
    }
    tx.commit().await?;
    Ok(())
}

/// A step failed inside: for the issuer that is a failure like any other.
pub(crate) async fn fail(
    ctx: &Context,
    id: IssuerId,
    failure: Failure,
    held: &Lease,
) -> Result<bool, WorkerError> {
    let (now, jitter) = (ctx.clock.now(), Jitter::random());
    let mut tx = ctx.db.begin();
    let found = issuers::find(&mut tx, id, &Scope::Everything).await?;
    let Some((issuer, _)) = found else { return Ok(false) };
    let next = if issuer.account_change.is_some() {
        let at = now + backoff::transient(issuer.tries, jitter);
        issuer.account_change_waits(Some(failure), at, now)
    } else {
        issuer.not_registered(failure, now, jitter)
    };
    issuers::save(&mut tx, &next, held).await?;
    tx.commit().await?;
    Ok(true)
}

async fn register(
    ctx: &Context,
    issuer: &Issuer,
    key: &Secret<Vec<u8>>,
) -> Result<Registration, Failure> {
    let Some(binding) = &issuer.acme.external_account_binding else {
        return ctx.ca.of(issuer.kind).register(&issuer.acme, key).await;
    };
    let text = match secret(ctx, issuer, &binding.key_secret_ref, "secret").await {
        Ok(text) => text,
        Err(trouble) => {
            return Err(trouble.into_failure().unwrap_or_else(|error| broken(&error)));
        }
    };
    let external = ExternalKey { id: binding.key_id.clone(), mac: mac_key(&text)? };
    ctx.ca.of(issuer.kind).register_as(&issuer.acme, key, Some(&external)).await
}

/// Wakes the certificates that saved that they wait just when the issuer became ready.
async fn wake_again(ctx: &Context, issuer: Issuer, lease: &Lease) -> Result<(), WorkerError> {
    let now = ctx.clock.now();
    let rested = issuer.rested(now);
    let mut tx = ctx.db.begin();
    issuers::save(&mut tx, &rested, lease).await?;
    let Issuer { kind, namespace, name, .. } = &rested.issuer;
    certificates::wake_still_waiting(&mut tx, *kind, namespace, name, now).await?;
    tx.commit().await?;
    Ok(())
}

/// A deactivated account cannot come back: the row says so, and rests.
async fn stay_deactivated(ctx: &Context, issuer: Issuer, lease: &Lease) -> Result<(), WorkerError> {
    let mut still = issuer.deactivated(ctx.clock.now());
    // That is no news.
    still.events.clear();
    let mut tx = ctx.db.begin();
    issuers::save(&mut tx, &still, lease).await?;
    tx.commit().await?;
    Ok(())
}

/// Database error while a credential was read; retried.
fn broken(error: &WorkerError) -> Failure {
    tracing::warn!(error = error as &dyn std::error::Error, "a credential could not be read");
    let code = code::SECRET_UNREADABLE.with_class(Class::Transient).with_advice("");
    Failure::of(code, "The database was busy or away.").titled("A credential could not be read")
}
