//! Registers accounts: once each, under a lease, with a key that was stored before.

use super::{STEP_TIMEOUT, Worker, WorkerError};
use crate::domain::failure::{Class, Failure};
use crate::domain::id::IssuerId;
use crate::domain::issuer::Account;
use crate::storage::lease::Lease;
use crate::storage::{Scope, certificates, events, issuers};

impl Worker {
    pub(super) async fn issuer(&self, lease: Lease) -> Result<(), WorkerError> {
        let id = IssuerId(lease.id);
        let mut tx = self.db.read().await?;
        let Some((issuer, _)) = issuers::find(&mut tx, id, &Scope::Everything).await? else {
            return Ok(());
        };
        let sealed = issuers::account_key(&mut tx, id).await?;
        drop(tx);
        let registered = match self.sealer.open(&issuers::account_key_place(id), &sealed) {
            Ok(key) => {
                let registration = self.ca.register(&issuer.acme, &key);
                tokio::time::timeout(STEP_TIMEOUT, registration).await.unwrap_or_else(|_| {
                    Err(Failure::new(
                        Class::Transient,
                        "step_timed_out",
                        "The registration took too long",
                        format!("The CA did not answer within {} s.", STEP_TIMEOUT.as_secs()),
                    ))
                })
            }
            Err(error) => Err(super::unreadable(&error)),
        };

        failpoint!("after_new_account");

        let now = self.clock.now();
        let server = issuer.acme.server.clone();
        let (issuer, happened) = match registered {
            Ok(account) => {
                let account = Account { url: account.url, server, email: account.email };
                issuer.registered(account, now)
            }
            Err(failure) => issuer.not_registered(failure, now, super::jitter()),
        };
        let mut tx = self.db.begin().await?;
        issuers::save(&mut tx, &issuer, &lease).await?;
        events::record(&mut tx, &issuer.namespace, None, &happened, now).await?;
        // Who waits for it is told what is new; a failure that repeats itself is not.
        if !happened.is_empty() {
            certificates::wake_waiting(&mut tx, issuer.kind, &issuer.namespace, &issuer.name, now)
                .await?;
        }
        tx.commit().await?;
        Ok(())
    }
}
