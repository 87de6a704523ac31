//! Operations on an account and its certificates beside ordering: key rollover, deactivation,
//! revocation.
//!
//! The caller stores what a call depends on before the call; each call may be repeated.

use serde_json::json;

use super::ask::{KeyHolder, signer};
use super::call::{Asked, Call};
use super::classify::unusable_key;
use super::directory::Directory;
use super::{Account, Ca};
use crate::acme::jose::revocation;
use crate::domain::failure::{Failure, code};
use crate::domain::issuer::Acme;
use crate::domain::revocation::Reason;
use crate::secret::Secret;

impl Ca {
    /// The account that the CA knows by this key; `None` if there is none.
    pub async fn account_of(
        &self,
        acme: &Acme,
        key: &Secret<Vec<u8>>,
    ) -> Result<Option<String>, Failure> {
        let holder = KeyHolder::of(self.endpoint(acme)?, key).await?;
        let (asked, url) = (Asked::of(Call::NewAccount), &holder.directory.new_account);
        match holder.post(asked, None, url, &json!({"onlyReturnExisting": true})).await {
            Ok(exchange) => Ok(exchange.location),
            Err(failure) if failure.is(code::ACME_ACCOUNT_DOES_NOT_EXIST) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Has the account's key followed by `next` (RFC 8555, section 7.3.5). Afterwards the CA knows the
    /// account by `next` alone; whether that has happened, [`Ca::account_of`] tells.
    pub async fn change_key(
        &self,
        acme: &Acme,
        account: &str,
        present: &Secret<Vec<u8>>,
        next: &Secret<Vec<u8>>,
    ) -> Result<(), Failure> {
        let holder = KeyHolder::of(self.endpoint(acme)?, present).await?;
        let url = holder.directory.key_change.as_deref();
        let url = url.ok_or_else(|| not_offered("keyChange"))?;
        let payload = signer(next)?.follows(&holder.signer, account, url).map_err(unusable_key)?;
        holder.post(Asked::of(Call::KeyChange), Some(account), url, &payload).await.map(drop)
    }

    /// Revokes a certificate by its own key, where no account of ours may.
    pub async fn revoke_by_key(
        &self,
        acme: &Acme,
        key: &Secret<Vec<u8>>,
        leaf: &[u8],
        reason: Reason,
    ) -> Result<(), Failure> {
        let holder = KeyHolder::of(self.endpoint(acme)?, key).await?;
        let (url, payload) = (revoke_url(&holder.directory)?, revocation(leaf, reason.code()));
        holder.post(Asked::of(Call::Revoke), None, url, &payload).await.map(drop)
    }

    /// Gives the account up for good (RFC 8555, section 7.3.6).
    pub async fn deactivate(
        &self,
        acme: &Acme,
        key: &Secret<Vec<u8>>,
        account: &str,
    ) -> Result<(), Failure> {
        let holder = KeyHolder::of(self.endpoint(acme)?, key).await?;
        let payload = json!({"status": "deactivated"});
        let asked = Asked::of(Call::UpdateAccount);
        holder.post(asked, Some(account), account, &payload).await.map(drop)
    }
}

impl Account {
    /// Revokes a certificate that was issued to the account, or to one that has proved its names.
    pub async fn revoke(&self, leaf: &[u8], reason: Reason) -> Result<(), Failure> {
        let url = revoke_url(&self.directory)?;
        let payload = revocation(leaf, reason.code());
        let asked = self.asked(Call::Revoke, None);
        self.post(asked, url, &payload).await.map(drop)
    }
}

fn revoke_url(directory: &Directory) -> Result<&str, Failure> {
    directory.revoke_cert.as_deref().ok_or_else(|| not_offered("revokeCert"))
}

fn not_offered(what: &str) -> Failure {
    Failure::of(code::ACME_NOT_OFFERED, format!("Its directory has no `{what}`."))
}
