//! An account at a CA: what may ask for certificates.

use std::sync::Arc;

use instant_acme::{CertificateIdentifier, Identifier, NewOrder};
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use super::ask::{ask, fetch, unreadable};
use super::classify::{Asked, Call};
use super::directory::{Directory, Endpoint};
use super::jose::Signer;
use super::order::{Order, Remembered};
use super::state::OrderState;
use super::tape::Exchange;
use crate::clock::Clock;
use crate::domain::failure::{Class, Failure};

/// An account with its key; shared freely, holds nothing that changes.
pub struct Account {
    pub(super) inner: instant_acme::Account,
    pub(super) signer: Signer,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) directory: Arc<Directory>,
    pub(super) clock: Arc<dyn Clock>,
    /// When this process first heard of it. A CA that does not know it within the next minutes may
    /// be lagging behind: it may have been registered just before, perhaps by another replica.
    pub(super) seen: OffsetDateTime,
    pub(super) remembered: Remembered,
}

impl Account {
    /// Its URL: its name towards the CA.
    pub fn url(&self) -> &str {
        self.inner.id()
    }

    /// What has to be shown for a challenge with this token (RFC 8555, section 8.1).
    pub fn key_authorization(&self, token: &str) -> String {
        format!("{token}.{}", self.inner.key_thumbprint())
    }

    /// Orders a certificate for DNS names and IP addresses; wildcards are written `*.example.com`.
    ///
    /// Not idempotent on the wire: after a lost answer, repeating it costs one order that expires.
    pub async fn new_order(
        &self,
        names: &[String],
        profile: Option<&str>,
    ) -> Result<Order, Failure> {
        self.new_order_replacing(names, profile, None, None).await
    }

    /// The same, for a certificate that takes the place of `replaces` (RFC 9773, section 5), and that
    /// ends at `not_after`, both where they are given.
    pub async fn new_order_replacing(
        &self,
        names: &[String],
        profile: Option<&str>,
        replaces: Option<&str>,
        not_after: Option<OffsetDateTime>,
    ) -> Result<Order, Failure> {
        if let Some(profile) = profile {
            self.check_profile(profile).await?;
        }
        let names: Vec<_> = names.iter().map(|name| identifier(name)).collect();
        let answer = match not_after {
            None => self.place(&names, profile, replaces).await,
            // On the heap: few orders come this way, and all would carry it.
            Some(end) => Box::pin(self.place_until(end, &names, profile, replaces)).await,
        };
        if let Err(failure) = &answer
            && matches!(failure.code.as_str(), "acme_endpoint_moved" | "acme_invalid_profile")
        {
            self.endpoint.expire().await;
        }
        let (url, exchange) = answer?;
        let state = OrderState::read(self.asked(Call::NewOrder, None), &exchange)?;
        Ok(Order::new(self, url, self.clock.now(), state))
    }

    async fn place(
        &self,
        names: &[Identifier],
        profile: Option<&str>,
        replaces: Option<&str>,
    ) -> Result<(String, Exchange), Failure> {
        let mut order = NewOrder::new(names);
        if let Some(profile) = profile {
            order = order.profile(profile);
        }
        if let Some((key, serial)) = replaces.and_then(|known| known.split_once('.')) {
            order = order.replaces(CertificateIdentifier {
                authority_key_identifier: key.into(),
                serial: serial.into(),
            });
        }
        let asked = self.asked(Call::NewOrder, None);
        let (order, exchange) = ask!(asked, async { self.inner.new_order(&order).await })?;
        let exchange = exchange.ok_or_else(|| unreadable(asked, "no answer"))?;
        Ok((order.url().to_owned(), exchange))
    }

    /// As instant-acme has no place for `notAfter`, such an order is signed here.
    async fn place_until(
        &self,
        end: OffsetDateTime,
        names: &[Identifier],
        profile: Option<&str>,
        replaces: Option<&str>,
    ) -> Result<(String, Exchange), Failure> {
        let asked = self.asked(Call::NewOrder, None);
        let end = end.truncate_to_second().format(&Rfc3339);
        let end = end.map_err(|error| unreadable(asked, error.to_string()))?;
        let mut payload = json!({"identifiers": names, "notAfter": end});
        let more = [("profile", profile), ("replaces", replaces)];
        for (field, value) in more.into_iter().filter_map(|(field, value)| Some((field, value?))) {
            payload[field] = Value::from(value);
        }
        let answer = ask!(asked, async {
            let (client, account) = (self.endpoint.client(), Some(self.url()));
            let (nonce, url) = (self.directory.new_nonce(), self.directory.new_order());
            self.signer.post(client, nonce, account, url, &payload).await
        });
        let ((), exchange) = answer.map_err(about_the_end)?;
        let exchange = exchange.ok_or_else(|| unreadable(asked, "no answer"))?;
        let url = exchange.location.clone();
        let url = url.ok_or_else(|| unreadable(asked, "The CA does not say where the order is"))?;
        Ok((url, exchange))
    }

    /// Takes up an order again. `age` is the time since the CA handed its URL out: it decides
    /// whether "not found" means "not yet" or "not any more".
    pub async fn order(&self, url: &str, age: Duration) -> Result<Order, Failure> {
        let asked = self.asked(Call::GetOrder, Some(age));
        let read = |exchange: Exchange| OrderState::read(asked, &exchange);
        let state = fetch(&self.inner, asked, url, read).await?;
        Ok(Order::new(self, url.to_owned(), self.clock.now() - age, state))
    }

    pub(super) fn asked(&self, call: Call, age: Option<Duration>) -> Asked {
        Asked { call, age, account_age: Some(self.clock.now() - self.seen) }
    }

    /// CAs refuse unknown profiles, too, but not with the list of known ones.
    async fn check_profile(&self, profile: &str) -> Result<(), Failure> {
        if self.endpoint.directory().await?.profiles().contains_key(profile) {
            return Ok(());
        }
        let directory = self.endpoint.newer_directory().await?;
        let known: Vec<_> = directory.profiles().keys().map(String::as_str).collect();
        if known.contains(&profile) {
            return Ok(());
        }
        let offer = match known.as_slice() {
            [] => "It offers none: leave the profile out.".to_owned(),
            known => format!("It offers: {}.", known.join(", ")),
        };
        Err(Failure::new(
            Class::Blocked,
            "acme_unknown_profile",
            "The CA does not offer the certificate profile.",
            format!("The profile asked for is \"{profile}\". {offer}"),
        ))
    }
}

/// What a name is for ACME: an address, or a DNS name.
fn identifier(name: &str) -> Identifier {
    name.parse().map_or_else(|_| Identifier::Dns(name.to_owned()), Identifier::Ip)
}

/// CAs that take no `notAfter`, or not this one, say no more than that the request is malformed.
fn about_the_end(failure: Failure) -> Failure {
    if (failure.class, failure.code.as_str()) != (Class::Blocked, "acme_malformed") {
        return failure;
    }
    let said = failure.detail.trim_end_matches('.');
    Failure {
        code: "acme_not_after_refused".to_owned(),
        title: "The CA does not take an order that says when the certificate is to end.".to_owned(),
        detail: format!(
            "{said}. Set `enableDurationFeature: false` in the issuer, or give the certificate another `duration`."
        ),
        ..failure
    }
}
