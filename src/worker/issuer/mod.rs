//! Registers accounts: once each, under a lease, with a key that was stored before.

mod account_change;

use super::limits::admission::UNNAMED;
use super::order::session::Trouble;
use super::{STEP_TIMEOUT, Worker, WorkerError};
use crate::ca::{ExternalKey, Registration, mac_key};
use crate::domain::failure::{Class, Failure, code};
use crate::domain::id::IssuerId;
use crate::domain::issuer::{Account, AccountChange, Issuer};
use crate::domain::throttle;
use crate::domain::throttle::Asker;
use crate::secret::Secret;
use crate::storage::lease::Lease;
use crate::storage::{Scope, certificates, issuers, throttles};

impl Worker {
    pub(in crate::worker) async fn issuer(&self, lease: Lease) -> Result<(), WorkerError> {
        let id = IssuerId(lease.id);
        let mut tx = self.db.read().await?;
        let Some((issuer, _)) = issuers::find(&mut tx, id, &Scope::Everything).await? else {
            return Ok(());
        };
        let sealed = issuers::account_key(&mut tx, id).await?;
        drop(tx);
        match issuer.account_change {
            Some(AccountChange::RotatingKey { since }) => {
                return self.rotate_key(issuer, since, &lease).await;
            }
            Some(AccountChange::Deactivating { since, then_delete }) => {
                return self.deactivate(issuer, since, then_delete, &lease).await;
            }
            Some(AccountChange::Deactivated { .. }) => {
                return self.stay_deactivated(issuer, &lease).await;
            }
            None => {}
        }
        let asker = Asker { server: &issuer.acme.server, account: "", names: &[] };
        let held = self.held(&[asker.key(&throttle::Scope::Endpoint)]).await?;
        let registered = match self.sealer.open(&issuers::account_key_place(id), &sealed) {
            _ if let Some(failure) = held => Err(failure),
            Ok(key) => {
                let registration = self.register(&issuer, &key);
                tokio::time::timeout(STEP_TIMEOUT, registration).await.unwrap_or_else(|_| {
                    Err(Failure::timed_out("The registration took too long", STEP_TIMEOUT))
                })
            }
            Err(error) => Err(super::unreadable(&error)),
        };

        failpoint!("after_new_account");

        let now = self.clock.now();
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
            Err(failure) => issuer.not_registered(failure, now, super::jitter()),
        };
        let mut tx = self.db.begin();
        issuers::save(&mut tx, &transition, &lease).await?;
        if let Some((key, scope, why)) = throttle {
            let until = why.retry_at.unwrap_or(now + UNNAMED);
            throttles::hold(&mut tx, &key, &scope, until, &why, now).await?;
        }
        // Who waits for it is told what is new; a failure that repeats itself is not.
        if !transition.events.is_empty() {
            let issuer = &transition.issuer;
            certificates::wake_waiting(&mut tx, issuer.kind, &issuer.namespace, &issuer.name, now)
                .await?;
        }
        tx.commit().await?;
        Ok(())
    }

    async fn register(
        &self,
        issuer: &Issuer,
        key: &Secret<Vec<u8>>,
    ) -> Result<Registration, Failure> {
        let Some(binding) = &issuer.acme.external_account_binding else {
            return self.ca.of(issuer.kind).register(&issuer.acme, key).await;
        };
        let text = match self.secret(issuer, &binding.key_secret_ref, "secret").await {
            Ok(text) => text,
            Err(Trouble::Failed(failure)) => return Err(failure),
            Err(Trouble::Broken(WorkerError::Secret(error))) => {
                return Err(super::unreadable(&error));
            }
            Err(Trouble::Broken(error)) => return Err(broken(&error)),
        };
        let external = ExternalKey { id: binding.key_id.clone(), mac: mac_key(&text)? };
        self.ca.of(issuer.kind).register_bound(&issuer.acme, key, &external).await
    }

    /// Nothing brings a deactivated account back: the row says so, and rests.
    async fn stay_deactivated(&self, issuer: Issuer, lease: &Lease) -> Result<(), WorkerError> {
        let mut still = issuer.deactivated(self.clock.now());
        // That is no news.
        still.events.clear();
        let mut tx = self.db.begin();
        issuers::save(&mut tx, &still, lease).await?;
        tx.commit().await?;
        Ok(())
    }
}

/// The database's trouble while a credential was read: soon again.
fn broken(error: &WorkerError) -> Failure {
    tracing::warn!(error = error as &dyn std::error::Error, "a credential could not be read");
    let code = code::SECRET_UNREADABLE.with_class(Class::Transient).with_advice("");
    Failure::of(code, "The database was busy or away.").titled("A credential could not be read")
}
