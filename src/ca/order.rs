//! An order at a CA: from the authorizations to the certificate, one question at a time.

use std::collections::HashMap;
use std::sync::Arc;

use instant_acme::{Authorizations, Error};
use time::OffsetDateTime;

use super::account::Account;
use super::ask::{ask, unreadable};
use super::classify::{Asked, Call};
use super::state::{
    Authorization, AuthorizationStatus, ChallengeStatus, Offered, OrderState, OrderStatus,
};
use super::tape::{self, Exchange};
use crate::clock::Clock;
use crate::domain::failure::{Class, Failure};

/// More than any CA puts into one certificate.
const MOST_AUTHORIZATIONS: usize = 1_000;

const NOT_THERE: Error = Error::Str("the order has no such part");

/// A live handle; costs nothing to keep, nothing is lost when dropped.
pub struct Order {
    inner: instant_acme::Order,
    account: instant_acme::Account,
    clock: Arc<dyn Clock>,
    account_seen: OffsetDateTime,
    /// When the CA handed out its URL, and with it those of its authorizations.
    born: OffsetDateTime,
    state: OrderState,
    /// What was read since the order was, by URL; instant-acme does not ask for it again.
    authorizations: HashMap<String, Result<Authorization, Failure>>,
}

/// An issued certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Download {
    /// The certificate and its issuers, in PEM, as the CA sent them.
    pub chain_pem: String,
    /// URLs of other chains for the same certificate; see [`Order::alternate`].
    pub alternates: Vec<String>,
}

impl Order {
    pub(super) fn new(
        account: &Account,
        inner: instant_acme::Order,
        born: OffsetDateTime,
        asked: Asked,
        exchange: &Exchange,
    ) -> Result<Self, Failure> {
        Ok(Self {
            inner,
            account: account.inner.clone(),
            clock: account.clock.clone(),
            account_seen: account.seen,
            born,
            state: OrderState::read(asked, exchange)?,
            authorizations: HashMap::new(),
        })
    }

    /// Its URL: its name towards the CA, and all that is needed to take it up again.
    pub fn url(&self) -> &str {
        self.inner.url()
    }

    /// What the CA last said.
    pub fn state(&self) -> &OrderState {
        &self.state
    }

    /// Asks the CA where the order stands.
    pub async fn refresh(&mut self) -> Result<(), Failure> {
        let asked = self.asked(Call::GetOrder);
        let inner = &mut self.inner;
        let ((), exchange) = ask!(asked, async { inner.refresh().await.map(drop) })?;
        self.read(asked, exchange)
    }

    /// The order's authorizations. Asks the CA for those that were not read since the order was: a
    /// second call is free, and shows news only after [`Order::refresh`].
    pub async fn authorizations(&mut self) -> Result<Vec<Authorization>, Failure> {
        let asked = self.asked(Call::GetAuthorization);
        let count = self.inner.state().authorizations.len();
        if count > MOST_AUTHORIZATIONS {
            return Err(too_many(count));
        }
        let mut found = Vec::with_capacity(count);
        for index in 0..count {
            let inner = &mut self.inner;
            let (url, exchange) = ask!(asked, async {
                let mut rest = from_nth(inner, index).await?;
                let handle = rest.next().await.ok_or(NOT_THERE)??;
                Ok(handle.url().to_owned())
            })?;
            if let Some(exchange) = exchange {
                let read = Authorization::read(url.clone(), asked, &exchange);
                self.authorizations.insert(url.clone(), read);
            }
            let known = self.authorizations.get(&url).cloned();
            found.push(known.unwrap_or_else(|| Err(unreadable(asked, "no answer")))?);
        }
        Ok(found)
    }

    /// Tells the CA that the proofs for these challenges can be seen. Challenges that are not
    /// pending any more are left alone.
    pub async fn accept(&mut self, challenge_urls: &[String]) -> Result<(), Failure> {
        let authorizations = self.authorizations().await?;
        let offered = authorizations.iter().flat_map(|authorization| &authorization.challenges);
        let is_offered = |url: &String| offered.clone().any(|offered| offered.url == *url);
        if let Some(foreign) = challenge_urls.iter().find(|url| !is_offered(url)) {
            return Err(not_offered(foreign));
        }
        for (index, authorization) in authorizations.iter().enumerate() {
            for offered in &authorization.challenges {
                let is_due = offered.status == ChallengeStatus::Pending
                    && authorization.status == AuthorizationStatus::Pending;
                if is_due && challenge_urls.contains(&offered.url) {
                    self.accept_one(index, offered).await?;
                }
            }
        }
        Ok(())
    }

    /// Hands in the CSR. The order is `processing` or `valid` afterwards.
    pub async fn finalize(&mut self, csr_der: &[u8]) -> Result<(), Failure> {
        let asked = self.asked(Call::Finalize);
        let inner = &mut self.inner;
        let ((), exchange) = ask!(asked, async { inner.finalize_csr(csr_der).await })?;
        self.read(asked, exchange)
    }

    /// The certificate; `None` while the CA is still issuing it.
    pub async fn certificate(&mut self) -> Result<Option<Download>, Failure> {
        if self.state.status != OrderStatus::Valid {
            self.refresh().await?;
        }
        match self.state.status {
            OrderStatus::Processing => return Ok(None),
            OrderStatus::Valid => {}
            status => return Err(self.no_certificate(status)),
        }
        // How long the certificate has existed is not known, and it does exist: a CA that cannot
        // find it is lagging behind.
        let asked = Asked { age: None, ..self.asked(Call::Certificate) };
        if self.state.certificate.is_none() {
            return Err(unreadable(asked, "The order is valid and names no certificate"));
        }
        let inner = &mut self.inner;
        let ((), exchange) = ask!(asked, async { inner.certificate().await.map(drop) })?;
        download(asked, exchange).map(Some)
    }

    /// Another chain for the same certificate, from one of [`Download::alternates`].
    pub async fn alternate(&self, url: &str) -> Result<String, Failure> {
        let asked = Asked { age: None, ..self.asked(Call::Certificate) };
        // instant-acme asks for any URL in this way only; what it takes for an order is none.
        let account = &self.account;
        let ((), exchange) =
            ask!(asked, raw: true, async { account.order(url.to_owned()).await.map(drop) })?;
        Ok(download(asked, exchange)?.chain_pem)
    }

    async fn accept_one(&mut self, index: usize, offered: &Offered) -> Result<(), Failure> {
        let asked = self.asked(Call::Challenge);
        let inner = &mut self.inner;
        let answer = ask!(asked, async { set_ready(inner, index, &offered.url).await });
        let Err(failure) = answer else { return Ok(()) };
        if !matches!(failure.code.as_str(), "acme_malformed" | "acme_conflict" | "acme_refused") {
            return Err(failure);
        }
        // Perhaps it was accepted before and the answer was lost.
        if self.is_pending(index, &offered.url).await? { Err(failure) } else { Ok(()) }
    }

    /// Reads one authorization again and says whether one of its challenges still waits for us.
    async fn is_pending(&mut self, index: usize, challenge_url: &str) -> Result<bool, Failure> {
        let asked = self.asked(Call::GetAuthorization);
        let inner = &mut self.inner;
        let (url, exchange) = ask!(asked, async {
            let mut rest = from_nth(inner, index).await?;
            let mut handle = rest.next().await.ok_or(NOT_THERE)??;
            handle.refresh().await?;
            Ok(handle.url().to_owned())
        })?;
        let exchange = exchange.ok_or_else(|| unreadable(asked, "no answer"))?;
        let authorization = Authorization::read(url.clone(), asked, &exchange)?;
        let pending = authorization.status == AuthorizationStatus::Pending
            && authorization.challenges.iter().any(|offered| {
                offered.url == challenge_url && offered.status == ChallengeStatus::Pending
            });
        self.authorizations.insert(url, Ok(authorization));
        Ok(pending)
    }

    fn asked(&self, call: Call) -> Asked {
        let now = self.clock.now();
        Asked { call, age: Some(now - self.born), account_age: Some(now - self.account_seen) }
    }

    fn read(&mut self, asked: Asked, exchange: Option<Exchange>) -> Result<(), Failure> {
        let exchange = exchange.ok_or_else(|| unreadable(asked, "no answer"))?;
        self.authorizations.clear();
        self.state = OrderState::read(asked, &exchange)?;
        Ok(())
    }

    fn no_certificate(&self, status: OrderStatus) -> Failure {
        let error = self.state.error.clone().filter(|_| status == OrderStatus::Invalid);
        error.unwrap_or_else(|| {
            Failure::new(
                Class::Conflict,
                "acme_order_not_valid",
                "The order has no certificate.",
                format!("It is {status:?} at the CA.").to_lowercase(),
            )
        })
    }
}

/// An order's authorizations from the given one on; those before are read first, if they were not.
async fn from_nth(
    order: &mut instant_acme::Order,
    index: usize,
) -> Result<Authorizations<'_>, Error> {
    let mut all = order.authorizations();
    for _ in 0..index {
        all.next().await.transpose()?;
    }
    Ok(all)
}

async fn set_ready(order: &mut instant_acme::Order, index: usize, url: &str) -> Result<(), Error> {
    let mut rest = from_nth(order, index).await?;
    let mut authorization = rest.next().await.ok_or(NOT_THERE)??;
    let kind = authorization.challenges.iter().find(|challenge| challenge.url == url);
    let kind = kind.ok_or(NOT_THERE)?.r#type.clone();
    let mut challenge = authorization.challenge(kind).ok_or(NOT_THERE)?;
    match challenge.set_ready().await {
        // The challenge carries an error, which the authorization will tell; the CA has accepted.
        Err(_) if tape::succeeded() => Ok(()),
        result => result,
    }
}

fn download(asked: Asked, exchange: Option<Exchange>) -> Result<Download, Failure> {
    let exchange = exchange.ok_or_else(|| unreadable(asked, "no answer"))?;
    let chain_pem = String::from_utf8(exchange.body.to_vec())
        .ok()
        .filter(|text| text.contains("-----BEGIN CERTIFICATE-----"))
        .ok_or_else(|| unreadable(asked, "The download is no certificate in PEM"))?;
    let alternates = exchange.links.into_iter().filter(|link| link.relation == "alternate");
    Ok(Download { chain_pem, alternates: alternates.map(|link| link.url).collect() })
}

fn not_offered(url: &str) -> Failure {
    Failure::new(
        Class::Conflict,
        "acme_challenge_not_offered",
        "The order does not offer the challenge.",
        format!("{url} is none of its challenges."),
    )
}

fn too_many(count: usize) -> Failure {
    Failure::new(
        Class::Blocked,
        "acme_too_many_authorizations",
        "The CA wants more than any certificate needs.",
        format!("The order has {count} authorizations."),
    )
}
