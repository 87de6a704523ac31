//! Registers accounts: once each, under a lease, with a key that was stored before.

use super::{Worker, WorkerError};
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
        let key = self.sealer.open(&issuers::account_key_place(id), &sealed)?;

        let registered = self.ca.register(&issuer.acme, &key).await;

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
