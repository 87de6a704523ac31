//! Placing orders, and taking them up again.

use std::net::IpAddr;

use instant_acme::Identifier;
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use super::Account;
use super::call::Call;
use super::classify::unreadable;
use super::exchange::Exchange;
use super::order::Order;
use super::state::OrderState;
use crate::domain::failure::{Class, Failure, code};

impl Account {
    /// Orders a certificate for DNS names and IP addresses; wildcards are written `*.example.com`.
    ///
    /// This is not idempotent: repeating it after a lost answer leaves an order that expires.
    pub async fn new_order(
        &self,
        names: &[String],
        profile: Option<&str>,
    ) -> Result<Order, Failure> {
        self.new_order_replacing(names, profile, None, None).await
    }

    /// Like [`Account::new_order`], optionally for a certificate that takes the place of `replaces`
    /// (RFC 9773, section 5) or ends at `not_after`.
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
        let wanted = Wanted { names, profile, replaces, not_after };
        let answer = self.place(&wanted).await;
        if let Err(failure) = &answer
            && matches!(
                failure.known_code(),
                Some(code::ACME_ENDPOINT_MOVED | code::ACME_INVALID_PROFILE)
            )
        {
            self.endpoint.expire().await;
        }
        let (url, exchange) = answer?;
        let asked = self.asked(Call::NewOrder, None);
        let state = OrderState::read(asked, &exchange);
        if let Err(failure) = &state {
            // The CA has the order, whatever it says of it: it is read there, not placed again.
            tracing::warn!(%failure, order = url, "the answer to a new order cannot be read");
        }
        Ok(Order::placed(self, url, self.clock.now(), state.ok()))
    }

    async fn place(&self, wanted: &Wanted<'_>) -> Result<(String, Exchange), Failure> {
        let asked = self.asked(Call::NewOrder, None);
        let payload = wanted.payload().map_err(|why| unreadable(asked, why))?;
        let answer = self.post(asked, &self.directory.new_order, &payload).await;
        let exchange = answer.map_err(|failure| match wanted.not_after {
            Some(_) => about_the_end(failure),
            None => failure,
        })?;
        let url = exchange.location.clone();
        let url = url.ok_or_else(|| unreadable(asked, "The CA does not say where the order is"))?;
        Ok((url, exchange))
    }

    /// Takes up an order again. `age` is the time since the CA handed its URL out: it decides
    /// whether "not found" means "not yet" or "not any more".
    pub async fn order(&self, url: &str, age: Duration) -> Result<Order, Failure> {
        let asked = self.asked(Call::GetOrder, Some(age));
        let read = |exchange: Exchange| OrderState::read(asked, &exchange);
        let state = self.fetch(asked, url, read).await?;
        Ok(Order::taken_up(self, url.to_owned(), self.clock.now() - age, state))
    }

    /// An order whose authorizations are known, without asking the CA where it stands.
    pub fn unread_order(&self, url: &str, age: Duration, authorizations: Vec<String>) -> Order {
        Order::unread(self, url.to_owned(), self.clock.now() - age, authorizations)
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
        Err(Failure::of(
            code::ACME_UNKNOWN_PROFILE,
            format!("The profile asked for is \"{profile}\". {offer}"),
        ))
    }
}

/// The content of a new order.
struct Wanted<'a> {
    names: &'a [String],
    profile: Option<&'a str>,
    replaces: Option<&'a str>,
    not_after: Option<OffsetDateTime>,
}

impl Wanted<'_> {
    /// `newOrder`'s payload (RFC 8555, section 7.4).
    fn payload(&self) -> Result<Value, String> {
        let names: Vec<_> = self.names.iter().map(|name| identifier(name)).collect();
        let mut payload = json!({"identifiers": names});
        if let Some(end) = self.not_after {
            let end = end.truncate_to_second().format(&Rfc3339);
            payload["notAfter"] = Value::from(end.map_err(|error| error.to_string())?);
        }
        for (field, value) in [("profile", self.profile), ("replaces", self.replaces)] {
            if let Some(value) = value {
                payload[field] = Value::from(value);
            }
        }
        Ok(payload)
    }
}

/// An address (RFC 8738) or a DNS name.
fn identifier(name: &str) -> Identifier {
    match name.parse::<IpAddr>() {
        Ok(address) => Identifier::Ip(address),
        Err(_) => Identifier::Dns(name.to_owned()),
    }
}

/// CAs that take no `notAfter`, or not this one, say no more than that the request is malformed.
fn about_the_end(failure: Failure) -> Failure {
    if failure.class != Class::Blocked || !failure.is(code::ACME_MALFORMED) {
        return failure;
    }
    let Failure { code, title, detail, .. } =
        Failure::of(code::ACME_NOT_AFTER_REFUSED, failure.detail.trim_end_matches('.'));
    Failure { code, title, detail, ..failure }
}
