//! Registers accounts (RFC 8555, section 7.3): with their contact, bound to others where that is wanted.
//!
//! Only the `Location` of the CA's answer is required; the body may be anything.

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Ca;
use super::ask::KeyHolder;
use super::call::{Asked, Call};
use super::classify::{unreadable, unusable_key};
use super::exchange::Exchange;
use crate::acme::jose::JoseError;
use crate::acme::json::{self, each};
use crate::domain::failure::{Failure, code};
use crate::domain::issuer::Acme;
use crate::secret::Secret;

/// An account as the CA has it on file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    pub url: String,
    /// The address that the CA took; `None` when none was given, or the CA would not have it.
    pub email: Option<String>,
}

/// A key that the CA gave out for an account of another kind (RFC 8555, section 7.3.4).
#[derive(Debug)]
pub struct ExternalKey {
    pub id: String,
    pub mac: Secret<Vec<u8>>,
}

/// A request for an account.
struct Applicant<'a> {
    holder: KeyHolder,
    external: Option<&'a ExternalKey>,
}

impl Ca {
    /// Registers the key, agreeing to the CA's terms of service. Repeating it is harmless: the same
    /// key has the same account.
    ///
    /// An e-mail address that the CA refuses does not keep the account from being used.
    pub async fn register(
        &self,
        acme: &Acme,
        key: &Secret<Vec<u8>>,
    ) -> Result<Registration, Failure> {
        self.register_as(acme, key, None).await
    }

    /// Like [`Ca::register`], bound to another account where there is an external key. A CA that knows the key
    /// already does not look at the binding again.
    pub async fn register_as(
        &self,
        acme: &Acme,
        key: &Secret<Vec<u8>>,
        external: Option<&ExternalKey>,
    ) -> Result<Registration, Failure> {
        let holder = KeyHolder::of(self.endpoint(acme)?, key).await?;
        let applicant = Applicant { holder, external };
        let email = acme.email.as_deref();
        let answer = match applicant.apply(email).await {
            // Some want no contact, or not this one: the account is worth more.
            Err(refused) if email.is_some() && is_about_contact(&refused) => {
                tracing::warn!(failure = %refused, "an account is registered without its e-mail address");
                match applicant.apply(None).await {
                    // It does want one: what was wrong with the issuer's says more.
                    Err(again) if is_about_contact(&again) => Err(refused),
                    answer => answer.map(|(url, _)| Registration { url, email: None }),
                }
            }
            Err(failure) => Err(failure),
            Ok((url, exchange)) => {
                let email = applicant.make_known(email, &url, &exchange).await?;
                Ok(Registration { url, email })
            }
        };
        if let Err(failure) = &answer
            && failure.is(code::ACME_ENDPOINT_MOVED)
        {
            applicant.holder.endpoint.expire().await;
        }
        answer
    }
}

impl Applicant<'_> {
    /// Asks for the account; its URL, and what the CA said.
    async fn apply(&self, email: Option<&str>) -> Result<(String, Exchange), Failure> {
        let (asked, url) = (Asked::of(Call::NewAccount), &self.holder.directory.new_account);
        let payload = self.payload(email).map_err(unusable_key)?;
        let exchange = self.holder.post(asked, None, url, &payload).await?;
        let account = exchange.location.clone().ok_or_else(|| {
            unreadable(asked, "The CA registered the account and does not say where")
        })?;
        Ok((account, exchange))
    }

    fn payload(&self, email: Option<&str>) -> Result<Value, JoseError> {
        let mut payload = json!({"termsOfServiceAgreed": true});
        if let Some(email) = email {
            payload["contact"] = contact(Some(email));
        }
        if let Some(external) = self.external {
            let KeyHolder { directory, signer, .. } = &self.holder;
            payload["externalAccountBinding"] =
                signer.binding(&directory.new_account, &external.id, &external.mac)?;
        }
        Ok(payload)
    }

    /// Makes the CA know the address of an account that it had already, unless its answer says that it
    /// does; returns what it knows then.
    async fn make_known(
        &self,
        email: Option<&str>,
        account: &str,
        registered: &Exchange,
    ) -> Result<Option<String>, Failure> {
        let is_new = registered.status == StatusCode::CREATED.as_u16();
        let wanted = contact(email);
        if (is_new && email.is_some()) || wanted == json!(contacts(registered)) {
            return Ok(email.map(str::to_owned));
        }
        let just_handed_out = Some(time::Duration::ZERO);
        let asked = Asked { call: Call::UpdateAccount, age: None, account_age: just_handed_out };
        let payload = json!({"contact": wanted});
        match self.holder.post(asked, Some(account), account, &payload).await {
            Ok(_) => Ok(email.map(str::to_owned)),
            Err(failure) if is_about_contact(&failure) => {
                tracing::warn!(%failure, account, "the account goes without its e-mail address");
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }
}

fn is_about_contact(failure: &Failure) -> bool {
    matches!(
        failure.known_code(),
        Some(code::ACME_INVALID_CONTACT | code::ACME_UNSUPPORTED_CONTACT)
    )
}

fn contact(email: Option<&str>) -> Value {
    email.iter().map(|email| format!("mailto:{email}")).collect()
}

/// The contacts that the CA's answer names; many CAs keep them to themselves.
fn contacts(exchange: &Exchange) -> Vec<String> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default, deserialize_with = "each")]
        contact: Vec<String>,
    }
    json::read::<Body>(&exchange.body).map(|body| body.contact).unwrap_or_default()
}

/// Reads a MAC key as CAs give it out: base64url, or base64, with or without padding.
pub fn mac_key(text: &Secret<String>) -> Result<Secret<Vec<u8>>, Failure> {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let plain = text.expose().trim().trim_end_matches('=').replace('+', "-").replace('/', "_");
    let key = URL_SAFE_NO_PAD.decode(zeroize::Zeroizing::new(plain).as_bytes());
    key.ok()
        .filter(|key| !key.is_empty())
        .map(Secret::new)
        .ok_or_else(|| Failure::of(code::EXTERNAL_ACCOUNT_KEY_UNUSABLE, ""))
}
