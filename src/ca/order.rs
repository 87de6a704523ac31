//! An order at a CA: from the authorizations to the certificate, one question at a time.
//!
//! A handle is a URL and the CA's last answer, so that nothing is asked twice.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::join_all;
use serde_json::json;
use time::OffsetDateTime;

use super::account::Account;
use super::authorization_cache::Known;
use super::call::{Asked, Call};
use super::classify::unreadable;
use super::exchange::Exchange;
use super::state::{Authorization, AuthorizationStatus, ChallengeStatus, OrderState, OrderStatus};
use crate::domain::failure::{Class, Failure, code};

/// Upper bound for authorizations; no CA puts as many names into a certificate.
const MOST_AUTHORIZATIONS: usize = 1_000;
/// Authorizations of one order that are read, and challenges that are accepted, at the same time.
const SIDE_BY_SIDE: usize = 25;
/// Of an order that was taken up again a few are read first: a CA that cannot find them, or refuses, need
/// not say so by the dozen.
const FIRST_FEW: usize = 4;
/// A challenge whose answer gets lost is sent so often, the authorization being read in between.
const ACCEPT_ROUNDS: usize = 3;

/// A live handle; costs nothing to keep, nothing is lost when dropped.
pub struct Order {
    account: Account,
    url: String,
    /// The time at which the CA handed out its URL and those of its authorizations.
    born: OffsetDateTime,
    state: OrderState,
    is_read: bool,
    /// Authorizations that are read before any others.
    first_few: usize,
}

/// An issued certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Download {
    /// The certificate and its issuers, in PEM, as the CA sent them.
    pub chain_pem: String,
    /// URLs of other chains for the same certificate; see [`Order::alternate`].
    pub alternates: Vec<String>,
}

/// The state of a challenge from the client's point of view.
enum Stand {
    /// The CA has not been told yet that its proof can be seen.
    Waits,
    /// The CA has been told, or needs not be.
    Accepted,
    /// It will never be met.
    Over(Failure),
}

impl Order {
    /// An order that the CA has just taken. `state` is what it said of it, where that could be read.
    pub(super) fn placed(
        account: &Account,
        url: String,
        now: OffsetDateTime,
        state: Option<OrderState>,
    ) -> Self {
        let is_read = state.is_some();
        let state = state.unwrap_or_else(|| OrderState::unread(OrderStatus::Pending));
        let account = account.clone();
        Self { account, url, born: now, state, is_read, first_few: SIDE_BY_SIDE }
    }

    /// An order of before, as the CA says it is now.
    pub(super) fn taken_up(
        account: &Account,
        url: String,
        born: OffsetDateTime,
        state: OrderState,
    ) -> Self {
        let account = account.clone();
        Self { account, url, born, state, is_read: true, first_few: FIRST_FEW }
    }

    /// An order of before, of which nothing is asked yet.
    pub(super) fn unread(
        account: &Account,
        url: String,
        born: OffsetDateTime,
        authorizations: Vec<String>,
    ) -> Self {
        let state = OrderState { authorizations, ..OrderState::unread(OrderStatus::Pending) };
        Self { is_read: false, ..Self::taken_up(account, url, born, state) }
    }

    /// Whether the CA's answer to the new order could be read; else where it stands has to be asked.
    pub fn is_read(&self) -> bool {
        self.is_read
    }

    /// Its URL: its name towards the CA, and all that is needed to take it up again.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The state in the CA's last answer.
    pub fn state(&self) -> &OrderState {
        &self.state
    }

    /// Asks the CA where the order stands.
    pub async fn refresh(&mut self) -> Result<(), Failure> {
        let asked = self.asked(Call::GetOrder);
        let read = |exchange: Exchange| OrderState::read(asked, &exchange);
        self.state = self.account.fetch(asked, &self.url, read).await?;
        self.is_read = true;
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

    /// Like [`Order::authorizations`], for an order that is over: pending ones are read again.
    pub async fn settled_authorizations(&self) -> Result<Vec<Authorization>, Failure> {
        let settled = |known: &Authorization| known.status != AuthorizationStatus::Pending;
        let known = self.read_all(settled).await?;
        Ok(known.iter().map(|known| known.authorization.clone()).collect())
    }

    /// Tells the CA that the proofs for these challenges can be seen, side by side. Those that it is
    /// looking at, or has found proved, are left alone; one that can never be met is an error.
    pub async fn accept(&self, challenge_urls: &[String]) -> Result<(), Failure> {
        let all = self.read_all(|_| true).await?;
        let is_open = |known: &Arc<Known>| known.authorization.status != AuthorizationStatus::Valid;
        let mut chosen = Vec::new();
        for url in challenge_urls {
            match all.iter().find(|known| known.authorization.offered(url).is_some()) {
                Some(known) => chosen.push((known, url)),
                None if all.iter().any(is_open) => return Err(not_offered(url)),
                // All is proved: what was not needed for it need not be listed any more.
                None => {}
            }
        }
        let mut waiting = Vec::new();
        for (known, url) in chosen {
            match stand(&known.authorization, url) {
                Stand::Waits => waiting.push((&*known.authorization.url, &**url)),
                Stand::Accepted => {}
                Stand::Over(failure) => return Err(failure),
            }
        }
        for together in waiting.chunks(SIDE_BY_SIDE) {
            let accepted = join_all(together.iter().map(|(of, url)| self.accept_one(of, url)));
            if let Some(failure) = latest(accepted.await.into_iter().filter_map(Result::err)) {
                return Err(failure);
            }
        }
        Ok(())
    }

    /// Hands in the CSR. The order is `processing` or `valid` afterwards.
    pub async fn finalize(&mut self, csr_der: &[u8]) -> Result<(), Failure> {
        let asked = self.asked(Call::Finalize);
        if self.state.finalize.is_none() {
            self.refresh().await?;
        }
        let Some(url) = self.state.finalize.clone() else {
            return Err(unreadable(asked, "The order does not say where the CSR goes"));
        };
        let csr = json!({"csr": URL_SAFE_NO_PAD.encode(csr_der)});
        let exchange = self.account.post(asked, &url, &csr).await?;
        // It was taken, whatever the answer looks like.
        self.state = OrderState::read(asked, &exchange).unwrap_or_else(|failure| {
            tracing::warn!(%failure, order = self.url, "the answer to a CSR cannot be read");
            OrderState { finalize: Some(url), ..OrderState::unread(OrderStatus::Processing) }
        });
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
        self.account.fetch(asked, url, |exchange| download(asked, exchange)).await
    }

    /// Every authorization: as remembered where that is `good` enough, else as the CA says now.
    async fn read_all(
        &self,
        good: impl Fn(&Authorization) -> bool,
    ) -> Result<Vec<Arc<Known>>, Failure> {
        let urls = &self.state.authorizations;
        if urls.is_empty() && self.state.status == OrderStatus::Pending {
            let asked = self.asked(Call::GetOrder);
            return Err(unreadable(asked, "The order is pending and names no authorizations"));
        }
        if urls.len() > MOST_AUTHORIZATIONS {
            return Err(too_many(urls.len()));
        }
        let mut found = vec![None; urls.len()];
        for (place, url) in found.iter_mut().zip(urls) {
            *place = self.account.authorizations.get(self.account.url(), url);
            *place = place.take().filter(|known| good(&known.authorization));
        }
        let missing: Vec<usize> = (0..urls.len()).filter(|place| found[*place].is_none()).collect();
        let mut absent = None;
        let (few, rest) = missing.split_at(self.first_few.min(missing.len()));
        for places in [few].into_iter().chain(rest.chunks(SIDE_BY_SIDE)) {
            let reads = places.iter().map(|place| self.read_one(&urls[*place]));
            let (mut any, mut failures) = (false, Vec::new());
            for (place, read) in places.iter().zip(join_all(reads).await) {
                match read {
                    Ok(known) => {
                        any = true;
                        found[*place] = Some(known);
                    }
                    Err(failure) if failure.class == Class::Consistency => absent = Some(failure),
                    Err(failure) => failures.push(failure),
                }
            }
            if let Some(failure) = latest(failures) {
                return Err(failure);
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
            Ok(Arc::new(Known { authorization, size: exchange.body.len() }))
        };
        let known = self.account.fetch(asked, url, read).await?;
        self.account.authorizations.insert(self.account.url(), url, known.clone());
        Ok(known)
    }

    /// An answer that was lost, and a refusal, may both mean that the challenge was accepted before:
    /// the authorization tells, and is asked before the challenge is sent again.
    async fn accept_one(&self, authorization_url: &str, url: &str) -> Result<(), Failure> {
        let mut left = ACCEPT_ROUNDS;
        loop {
            left -= 1;
            // The body does not count, even if it has an error: the authorization tells.
            let told = self.account.post(self.asked(Call::Challenge), url, &json!({})).await;
            let told = match told {
                // Turned away at the door: what is known of the authorization is as true as before.
                Err(failure) if failure.class == Class::Throttle => return Err(failure),
                told => told,
            };
            self.account.authorizations.invalidate(self.account.url(), authorization_url);
            let Err(failure) = told else { return Ok(()) };
            let refused = matches!(
                failure.known_code(),
                Some(code::ACME_MALFORMED | code::ACME_CONFLICT | code::ACME_REFUSED)
            );
            if !refused && (failure.class != Class::Transient || failure.retry_at.is_some()) {
                return Err(failure);
            }
            let known = self.read_one(authorization_url).await?;
            match stand(&known.authorization, url) {
                Stand::Waits => {}
                Stand::Accepted => return Ok(()),
                Stand::Over(failure) => return Err(failure),
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

    fn asked(&self, call: Call) -> Asked {
        self.account.asked(call, Some(self.account.clock.now() - self.born))
    }

    fn no_certificate(&self) -> Failure {
        self.state
            .error
            .clone()
            .unwrap_or_else(|| Failure::of(code::ACME_ORDER_NOT_VALID, "It is invalid at the CA."))
    }
}

/// The failure that speaks for several: the one that wants the longest pause, else the first.
fn latest(failures: impl IntoIterator<Item = Failure>) -> Option<Failure> {
    failures.into_iter().reduce(|one, next| if next.retry_at > one.retry_at { next } else { one })
}

fn stand(authorization: &Authorization, challenge_url: &str) -> Stand {
    match (authorization.status, authorization.offered(challenge_url)) {
        (AuthorizationStatus::Valid, _) => Stand::Accepted,
        (AuthorizationStatus::Pending, Some(offered)) => match offered.status {
            ChallengeStatus::Pending => Stand::Waits,
            ChallengeStatus::Processing | ChallengeStatus::Valid => Stand::Accepted,
            ChallengeStatus::Invalid => {
                Stand::Over(offered.error.clone().unwrap_or_else(|| failed(authorization)))
            }
        },
        (AuthorizationStatus::Pending, None) => Stand::Over(not_offered(challenge_url)),
        _ => Stand::Over(authorization.unusable()),
    }
}

pub(super) fn download(asked: Asked, exchange: Exchange) -> Result<Download, Failure> {
    let chain_pem = String::from_utf8(exchange.body.to_vec())
        .ok()
        .filter(|text| text.contains("-----BEGIN CERTIFICATE-----"))
        .ok_or_else(|| unreadable(asked, "The download is no certificate in PEM"))?;
    let alternates = exchange.links.into_iter().filter(|link| link.relation == "alternate");
    Ok(Download { chain_pem, alternates: alternates.map(|link| link.url).collect() })
}

fn failed(authorization: &Authorization) -> Failure {
    Failure::of(
        code::ACME_VALIDATION_FAILED,
        format!(
            "The challenge for {} has failed, and the CA gives no reason.",
            authorization.domain
        ),
    )
}

/// Another order may offer it.
fn not_offered(url: &str) -> Failure {
    Failure::of(code::ACME_CHALLENGE_NOT_OFFERED, format!("{url} is none of its challenges."))
}

fn too_many(count: usize) -> Failure {
    Failure::of(
        code::ACME_TOO_MANY_AUTHORIZATIONS,
        format!("The order has {count} authorizations."),
    )
}
