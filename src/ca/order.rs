//! An order at a CA: from the authorizations to the certificate, one question at a time.
//!
//! instant-acme signs and sends; what is known already it is told instead of being made to ask for
//! it again. So a handle is nothing but a URL and what the CA last said.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use instant_acme::Error;
use moka::sync::Cache;
use serde_json::json;
use time::OffsetDateTime;

use super::account::Account;
use super::ask::{ask, fetch, unreadable};
use super::classify::{Asked, Call};
use super::state::{
    Authorization, AuthorizationStatus, ChallengeStatus, Offered, OrderState, OrderStatus,
};
use super::tape::{self, Exchange};
use crate::clock::Clock;
use crate::domain::failure::{Class, Failure};

/// More than any CA puts into one certificate.
const MOST_AUTHORIZATIONS: usize = 1_000;
/// Authorizations of one order that are read at the same time.
const SIDE_BY_SIDE: usize = 4;
/// A challenge whose answer gets lost is sent so often, the authorization being read in between.
const ACCEPT_ROUNDS: usize = 3;
/// Authorizations are remembered up to this size, all in all.
const REMEMBERED_BYTES: u64 = 16 << 20;
/// And for so long: an order that has to wait for its proofs is taken up again within minutes.
const REMEMBERED_FOR: std::time::Duration = std::time::Duration::from_mins(10);

const NOT_THERE: Error = Error::Str("the order has no such part");

/// A live handle; costs nothing to keep, nothing is lost when dropped.
pub struct Order {
    account: instant_acme::Account,
    clock: Arc<dyn Clock>,
    account_seen: OffsetDateTime,
    url: String,
    /// When the CA handed out its URL, and with it those of its authorizations.
    born: OffsetDateTime,
    state: OrderState,
    remembered: Remembered,
}

/// An issued certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Download {
    /// The certificate and its issuers, in PEM, as the CA sent them.
    pub chain_pem: String,
    /// URLs of other chains for the same certificate; see [`Order::alternate`].
    pub alternates: Vec<String>,
}

/// Authorizations that were read lately, by account and URL: when one of a hundred cannot be read,
/// the others need not be read again. Losing them costs requests and nothing else.
#[derive(Clone)]
pub(super) struct Remembered(Cache<(String, String), Arc<Known>>);

/// An authorization, and the body that it was read from.
#[derive(Debug)]
struct Known {
    authorization: Authorization,
    body: Bytes,
}

impl Remembered {
    pub(super) fn new() -> Self {
        let weight = |(account, url): &(String, String), known: &Arc<Known>| {
            u32::try_from(account.len() + url.len() + 2 * known.body.len()).unwrap_or(u32::MAX)
        };
        let cache = Cache::builder().weigher(weight).max_capacity(REMEMBERED_BYTES);
        Self(cache.time_to_live(REMEMBERED_FOR).build())
    }
}

impl Order {
    pub(super) fn new(
        account: &Account,
        url: String,
        born: OffsetDateTime,
        state: OrderState,
    ) -> Self {
        Self {
            account: account.inner.clone(),
            clock: account.clock.clone(),
            account_seen: account.seen,
            url,
            born,
            state,
            remembered: account.remembered.clone(),
        }
    }

    /// Its URL: its name towards the CA, and all that is needed to take it up again.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What the CA last said.
    pub fn state(&self) -> &OrderState {
        &self.state
    }

    /// Asks the CA where the order stands.
    pub async fn refresh(&mut self) -> Result<(), Failure> {
        let asked = self.asked(Call::GetOrder);
        let read = |exchange: Exchange| OrderState::read(asked, &exchange);
        self.state = fetch(&self.account, asked, &self.url, read).await?;
        Ok(())
    }

    /// The order's authorizations, for their challenges. Those that were read within the last
    /// minutes are not asked for again, so that where they stand may be out of date.
    ///
    /// One that the CA cannot find does not keep the others from being read: the next call asks for
    /// that one only.
    pub async fn authorizations(&self) -> Result<Vec<Authorization>, Failure> {
        let known = self.read_all(|_| true).await?;
        Ok(known.iter().map(|known| known.authorization.clone()).collect())
    }

    /// The same for an order that is over: what was still open when it was read is read again.
    pub async fn settled_authorizations(&self) -> Result<Vec<Authorization>, Failure> {
        let settled = |known: &Authorization| known.status != AuthorizationStatus::Pending;
        let known = self.read_all(settled).await?;
        Ok(known.iter().map(|known| known.authorization.clone()).collect())
    }

    /// Tells the CA that the proofs for these challenges can be seen. Challenges that are not
    /// pending any more are left alone.
    pub async fn accept(&self, challenge_urls: &[String]) -> Result<(), Failure> {
        let all = self.read_all(|_| true).await?;
        let offered = all.iter().flat_map(|known| &known.authorization.challenges);
        let is_offered = |url: &String| offered.clone().any(|offered| offered.url == *url);
        if let Some(foreign) = challenge_urls.iter().find(|url| !is_offered(url)) {
            return Err(not_offered(foreign));
        }
        for known in &all {
            for offered in &known.authorization.challenges {
                if waits_for_us(known, &offered.url) && challenge_urls.contains(&offered.url) {
                    self.accept_one(known, offered).await?;
                }
            }
        }
        Ok(())
    }

    /// Hands in the CSR. The order is `processing` or `valid` afterwards.
    pub async fn finalize(&mut self, csr_der: &[u8]) -> Result<(), Failure> {
        let asked = self.asked(Call::Finalize);
        let known = json!({
            "status": "ready", "authorizations": [], "finalize": self.state.finalize,
        });
        let known = vec![(self.url.clone(), known.to_string().into())];
        let ((), exchange) = ask!(asked, known: known, async {
            self.account.order(self.url.clone()).await?.finalize_csr(csr_der).await
        })?;
        let exchange = exchange.ok_or_else(|| unreadable(asked, "no answer"))?;
        self.state = OrderState::read(asked, &exchange)?;
        Ok(())
    }

    /// The certificate; `None` while the CA does not call the order valid.
    pub async fn certificate(&mut self) -> Result<Option<Download>, Failure> {
        if self.state.status != OrderStatus::Valid {
            self.refresh().await?;
        }
        match self.state.status {
            OrderStatus::Valid => {}
            OrderStatus::Invalid => return Err(self.no_certificate()),
            // Also one that was valid before: a replica may lag behind.
            OrderStatus::Processing | OrderStatus::Ready | OrderStatus::Pending => return Ok(None),
        }
        match &self.state.certificate {
            Some(url) => self.download(url).await.map(Some),
            None => Err(unreadable(
                self.asked(Call::Certificate),
                "The order is valid and names no certificate",
            )),
        }
    }

    /// Another chain for the same certificate, from one of [`Download::alternates`].
    pub async fn alternate(&self, url: &str) -> Result<String, Failure> {
        Ok(self.download(url).await?.chain_pem)
    }

    async fn download(&self, url: &str) -> Result<Download, Failure> {
        // How long the certificate has existed is not known, and it does exist: a CA that cannot
        // find it is lagging behind.
        let asked = Asked { age: None, ..self.asked(Call::Certificate) };
        fetch(&self.account, asked, url, |exchange| download(asked, exchange)).await
    }

    /// Every authorization: as remembered where that is `good` enough, else as the CA says now.
    async fn read_all(
        &self,
        good: impl Fn(&Authorization) -> bool,
    ) -> Result<Vec<Arc<Known>>, Failure> {
        let urls = &self.state.authorizations;
        if urls.len() > MOST_AUTHORIZATIONS {
            return Err(too_many(urls.len()));
        }
        let mut found = vec![None; urls.len()];
        for (place, url) in found.iter_mut().zip(urls) {
            *place = self.remembered.0.get(&self.name(url));
            *place = place.take().filter(|known| good(&known.authorization));
        }
        let missing: Vec<usize> = (0..urls.len()).filter(|place| found[*place].is_none()).collect();
        let mut absent = None;
        for places in missing.chunks(SIDE_BY_SIDE) {
            let reads = places.iter().map(|place| self.read_one(&urls[*place]));
            let mut any = false;
            for (place, read) in places.iter().zip(join_all(reads).await) {
                match read {
                    Ok(known) => {
                        any = true;
                        found[*place] = Some(known);
                    }
                    Err(failure) if failure.class == Class::Consistency => absent = Some(failure),
                    Err(failure) => return Err(failure),
                }
            }
            if !any {
                // All of the CA seems to lag: no need to hear that a hundred times.
                break;
            }
        }
        match absent {
            Some(failure) => Err(failure),
            None => Ok(found.into_iter().flatten().collect()),
        }
    }

    async fn read_one(&self, url: &str) -> Result<Arc<Known>, Failure> {
        let asked = self.asked(Call::GetAuthorization);
        let read = |exchange: Exchange| {
            let authorization = Authorization::read(url.to_owned(), asked, &exchange)?;
            Ok(Arc::new(Known { authorization, body: exchange.body }))
        };
        let known = fetch(&self.account, asked, url, read).await?;
        self.remembered.0.insert(self.name(url), known.clone());
        Ok(known)
    }

    /// An answer that was lost, and a refusal, may both mean that the challenge was accepted before:
    /// the authorization tells, and is asked before the challenge is sent again.
    async fn accept_one(&self, known: &Arc<Known>, offered: &Offered) -> Result<(), Failure> {
        let authorization_url = &known.authorization.url;
        let mut known = Arc::clone(known);
        let mut left = ACCEPT_ROUNDS;
        loop {
            left -= 1;
            let told = self.set_ready(&known, offered).await;
            self.remembered.0.invalidate(&self.name(authorization_url));
            let Err(failure) = told else { return Ok(()) };
            let refused = matches!(
                failure.code.as_str(),
                "acme_malformed" | "acme_conflict" | "acme_refused"
            );
            if !refused && (failure.class != Class::Transient || failure.retry_at.is_some()) {
                return Err(failure);
            }
            known = self.read_one(authorization_url).await?;
            if !waits_for_us(&known, &offered.url) {
                return Ok(());
            }
            if refused {
                // The CA says both that it waits and that it does not: one of its replicas lags.
                return Err(Failure { class: Class::Consistency, ..failure });
            }
            if left == 0 {
                return Err(failure);
            }
        }
    }

    async fn set_ready(&self, known: &Known, offered: &Offered) -> Result<(), Failure> {
        let url = known.authorization.url.clone();
        let order = json!({"status": "pending", "authorizations": [url], "finalize": ""});
        let answers = vec![(self.url.clone(), order.to_string().into()), (url, known.body.clone())];
        ask!(self.asked(Call::Challenge), known: answers, async {
            let mut order = self.account.order(self.url.clone()).await?;
            let mut all = order.authorizations();
            let mut authorization = all.next().await.ok_or(NOT_THERE)??;
            let same = authorization.challenges.iter().find(|one| one.url == offered.url);
            let kind = same.ok_or(NOT_THERE)?.r#type.clone();
            let mut challenge = authorization.challenge(kind).ok_or(NOT_THERE)?;
            match challenge.set_ready().await {
                // The challenge carries an error, which the authorization will tell; the CA has accepted.
                Err(_) if tape::succeeded() => Ok(()),
                result => result,
            }
        })
        .map(drop)
    }

    fn name(&self, authorization_url: &str) -> (String, String) {
        (self.account.id().to_owned(), authorization_url.to_owned())
    }

    fn asked(&self, call: Call) -> Asked {
        let now = self.clock.now();
        Asked { call, age: Some(now - self.born), account_age: Some(now - self.account_seen) }
    }

    fn no_certificate(&self) -> Failure {
        self.state.error.clone().unwrap_or_else(|| {
            Failure::new(
                Class::Conflict,
                "acme_order_not_valid",
                "The order has no certificate.",
                "It is invalid at the CA.",
            )
        })
    }
}

/// Whether the CA has not been told yet that the challenge's proof can be seen.
fn waits_for_us(known: &Known, challenge_url: &str) -> bool {
    known.authorization.status == AuthorizationStatus::Pending
        && known.authorization.challenges.iter().any(|offered| {
            offered.url == challenge_url && offered.status == ChallengeStatus::Pending
        })
}

fn download(asked: Asked, exchange: Exchange) -> Result<Download, Failure> {
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
