//! What is done to an account and its certificates beside ordering: another key, giving it up, taking
//! certificates back.
//!
//! Whatever a call depends on is stored before by whoever calls; each of these may be repeated.

use serde_json::json;

use super::ask::ask;
use super::classify::{Asked, Call};
use super::directory::Directory;
use super::jose::{Signer, revocation};
use super::{Account, Ca};
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
        let endpoint = self.endpoint(acme)?;
        let directory = endpoint.directory().await?;
        let url = directory.new_account();
        let asked = Asked::of(Call::NewAccount);
        let payload = json!({"onlyReturnExisting": true});
        let found = ask!(asked, async {
            let signer = Signer::from_pkcs8(key)?;
            signer.post(endpoint.client(), directory.new_nonce(), None, url, &payload).await
        });
        match found {
            Ok(((), exchange)) => Ok(exchange.and_then(|exchange| exchange.location)),
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
        let endpoint = self.endpoint(acme)?;
        let directory = endpoint.directory().await?;
        let url = directory.key_change().ok_or_else(|| not_offered("keyChange"))?;
        let asked = Asked::of(Call::KeyChange);
        ask!(asked, async {
            let (present, next) = (Signer::from_pkcs8(present)?, Signer::from_pkcs8(next)?);
            let payload = next.follows(&present, account, url)?;
            let client = endpoint.client();
            present.post(client, directory.new_nonce(), Some(account), url, &payload).await
        })
        .map(drop)
    }

    /// Revokes a certificate by its own key, where no account of ours may.
    pub async fn revoke_by_key(
        &self,
        acme: &Acme,
        key: &Secret<Vec<u8>>,
        leaf: &[u8],
        reason: Reason,
    ) -> Result<(), Failure> {
        let endpoint = self.endpoint(acme)?;
        let directory = endpoint.directory().await?;
        let url = revoke_url(&directory)?;
        let payload = revocation(leaf, reason.code());
        ask!(Asked::of(Call::Revoke), async {
            let signer = Signer::from_pkcs8(key)?;
            signer.post(endpoint.client(), directory.new_nonce(), None, url, &payload).await
        })
        .map(drop)
    }

    /// Gives the account up for good (RFC 8555, section 7.3.6).
    pub async fn deactivate(
        &self,
        acme: &Acme,
        key: &Secret<Vec<u8>>,
        account: &str,
    ) -> Result<(), Failure> {
        let endpoint = self.endpoint(acme)?;
        let directory = endpoint.directory().await?;
        let payload = json!({"status": "deactivated"});
        ask!(Asked::of(Call::UpdateAccount), async {
            let signer = Signer::from_pkcs8(key)?;
            let client = endpoint.client();
            signer.post(client, directory.new_nonce(), Some(account), account, &payload).await
        })
        .map(drop)
    }
}

impl Account {
    /// Revokes a certificate that was issued to the account, or to one that has proved its names.
    pub async fn revoke(&self, leaf: &[u8], reason: Reason) -> Result<(), Failure> {
        let url = revoke_url(&self.directory)?;
        let payload = revocation(leaf, reason.code());
        let asked = self.asked(Call::Revoke, None);
        ask!(asked, async {
            let (client, account) = (self.endpoint.client(), Some(self.url()));
            self.signer.post(client, self.directory.new_nonce(), account, url, &payload).await
        })
        .map(drop)
    }
}

fn revoke_url(directory: &Directory) -> Result<&str, Failure> {
    directory.revoke_cert().ok_or_else(|| not_offered("revokeCert"))
}

fn not_offered(what: &str) -> Failure {
    Failure::of(code::ACME_NOT_OFFERED, format!("Its directory has no `{what}`."))
}
