//! A CA's directory: fetched once for everybody, refreshed now and then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use time::{Duration, OffsetDateTime};
use tokio::sync::Mutex;
use url::Url;

use super::ask::ask;
use super::call::{Asked, Call, Request};
use super::classify::unreadable;
use super::exchange::{Exchange, absolute};
use super::http::CaClient;
use crate::acme::json::{self, each, lenient, or_default, outline};
use crate::clock::Clock;
use crate::domain::failure::Failure;

/// After this long the directory is asked for again.
const FRESH_FOR: Duration = Duration::hours(1);
/// Pause after a failed refresh; the known directory serves meanwhile.
const RETRY_AFTER: Duration = Duration::minutes(1);

/// RFC 8555, section 7.1.1, as far as it is used here.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Directory {
    pub(super) new_nonce: String,
    pub(super) new_account: String,
    pub(super) new_order: String,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) revoke_cert: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) key_change: Option<String>,
    /// The endpoint for renewal information (RFC 9773).
    #[serde(default, deserialize_with = "lenient")]
    pub(super) renewal_info: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    meta: Meta,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    #[serde(default, deserialize_with = "profiles")]
    profiles: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "each")]
    caa_identities: Vec<String>,
}

/// A profile that is not described is one all the same.
fn profiles<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    let offered: BTreeMap<String, Value> = or_default(from)?;
    let described = |text: Value| text.as_str().unwrap_or_default().to_owned();
    Ok(offered.into_iter().map(|(name, text)| (name, described(text))).collect())
}

impl Directory {
    /// Reads what is at `url`; what it names may be relative to that.
    pub(super) fn read(url: &str, body: &[u8]) -> Result<Self, String> {
        let mut read: Self = json::read(body).map_err(|error| outline(&error))?;
        let required = [&mut read.new_nonce, &mut read.new_account, &mut read.new_order];
        let offered = [&mut read.revoke_cert, &mut read.key_change, &mut read.renewal_info];
        for named in required.into_iter().chain(offered.into_iter().flatten()) {
            *named = absolute(url, named)
                .ok_or_else(|| "it names something else as a URL".to_owned())?;
        }
        read.usable().ok_or_else(|| "it names endpoints that are no URLs".to_owned())
    }

    /// The CA's names for itself in CAA records.
    pub(super) fn caa_identities(&self) -> &[String] {
        &self.meta.caa_identities
    }

    /// The directory without what is offered at no URL; `None` where nothing could be ordered.
    fn usable(mut self) -> Option<Self> {
        let is_url = |text: &str| Url::parse(text).is_ok();
        let always = [&self.new_nonce, &self.new_account, &self.new_order];
        if !always.into_iter().all(|text| is_url(text)) {
            return None;
        }
        for perhaps in [&mut self.revoke_cert, &mut self.key_change, &mut self.renewal_info] {
            *perhaps = perhaps.take().filter(|text| is_url(text));
        }
        Some(self)
    }

    /// All endpoints.
    pub(super) fn endpoints(&self) -> impl Iterator<Item = &str> {
        let always = [&*self.new_nonce, &*self.new_account, &*self.new_order];
        let perhaps = [&self.revoke_cert, &self.key_change, &self.renewal_info];
        always.into_iter().chain(perhaps.into_iter().filter_map(|url| url.as_deref()))
    }

    /// The profiles that the CA offers, with their descriptions.
    pub(super) fn profiles(&self) -> &BTreeMap<String, String> {
        &self.meta.profiles
    }
}

/// One CA as one issuer reaches it: the HTTP client and the directory.
pub(super) struct Endpoint {
    pub server: String,
    client: CaClient,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// The directory as it was fetched last. Whoever asks for it does not wait for a fetch, which holds `state`.
    latest: RwLock<Option<Arc<Directory>>>,
    /// Counts the fetches; callers that waited for one share its answer.
    rounds: AtomicU64,
}

#[derive(Default)]
struct State {
    known: Option<Known>,
    failure: Option<Failure>,
}

struct Known {
    directory: Arc<Directory>,
    fetched: OffsetDateTime,
    fresh_until: OffsetDateTime,
}

impl Endpoint {
    pub(super) fn new(server: &str, client: CaClient, clock: Arc<dyn Clock>) -> Self {
        let (state, latest) = (Mutex::default(), RwLock::default());
        let (server, rounds) = (server.to_owned(), AtomicU64::new(0));
        Self { server, client, clock, state, latest, rounds }
    }

    /// The directory; one question at most, however many ask at once, and one failure for all of
    /// them; none before the time that the CA named. A known directory outlives the CA's inability
    /// to give it again.
    pub(super) async fn directory(&self) -> Result<Arc<Directory>, Failure> {
        let round = self.rounds.load(Ordering::Acquire);
        let mut state = self.state.lock().await;
        let now = self.clock.now();
        if let Some(known) = &state.known
            && now < known.fresh_until
        {
            return Ok(known.directory.clone());
        }
        let asked_meanwhile = self.rounds.load(Ordering::Acquire) != round;
        if let Some(failure) = &state.failure
            && (asked_meanwhile || failure.retry_at.is_some_and(|at| now < at))
        {
            return Err(failure.clone());
        }
        let answer = self.fetch().await;
        self.rounds.fetch_add(1, Ordering::Release);
        let directory = state.take(answer, self.clock.now())?;
        *self.latest.write() = Some(directory.clone());
        Ok(directory)
    }

    /// The directory as it is known, while it is being fetched again too.
    pub(super) fn known_directory(&self) -> Option<Arc<Directory>> {
        self.latest.read().clone()
    }

    /// The directory, fetched again unless that was done within the last minute.
    pub(super) async fn newer_directory(&self) -> Result<Arc<Directory>, Failure> {
        self.expire().await;
        self.directory().await
    }

    /// Lets the next caller fetch the directory again: an answer has made it doubtful.
    pub(super) async fn expire(&self) {
        let now = self.clock.now();
        if let Some(known) = &mut self.state.lock().await.known
            && now - known.fetched >= RETRY_AFTER
        {
            known.fresh_until = now;
        }
    }

    pub(super) fn client(&self) -> &CaClient {
        &self.client
    }

    async fn fetch(&self) -> Result<Directory, Failure> {
        let asked = Asked::of(Call::Directory);
        let read = |exchange: Exchange| {
            let url = &exchange.url;
            Directory::read(url, &exchange.body).map_err(|error| {
                unreadable(asked, format!("{url} answered something else: {error}"))
            })
        };
        let directory = ask(&self.client, asked, Request::Get(&self.server), read).await?;
        self.client.learn(directory.endpoints());
        Ok(directory)
    }
}

impl State {
    fn take(
        &mut self,
        answer: Result<Directory, Failure>,
        now: OffsetDateTime,
    ) -> Result<Arc<Directory>, Failure> {
        match (answer, &mut self.known) {
            (Ok(directory), known) => {
                // The same content stays the same `Arc`, so that accounts built on it live on.
                let directory = match known {
                    Some(known) if *known.directory == directory => known.directory.clone(),
                    _ => Arc::new(directory),
                };
                let fresh_until = now + FRESH_FOR;
                *known = Some(Known { directory: directory.clone(), fetched: now, fresh_until });
                self.failure = None;
                Ok(directory)
            }
            (Err(failure), Some(known)) => {
                tracing::warn!(%failure, "the CA's directory cannot be refreshed; the known one is used");
                known.fresh_until = now + RETRY_AFTER;
                Ok(known.directory.clone())
            }
            (Err(failure), None) => {
                self.failure = Some(failure.clone());
                Err(failure)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const URL: &str = "https://ca.example/acme/directory";

    #[test]
    fn odd_members_that_nobody_needs_do_not_cost_the_directory() {
        let good = json!({
            "newNonce": "https://ca.example/n", "newAccount": "https://ca.example/a",
            "newOrder": "https://ca.example/o",
        });
        let odd = [json!(null), json!(5), json!("text"), json!([]), json!({}), json!(true)];
        for (member, value) in
            ["meta", "revokeCert", "keyChange", "renewalInfo", "newAuthz", "rdQ7x"]
                .iter()
                .flat_map(|member| odd.iter().map(move |value| (*member, value)))
        {
            let mut body = good.clone();
            body[member] = value.clone();

            let read = Directory::read(URL, body.to_string().as_bytes());

            assert_eq!(read.unwrap().new_order, "https://ca.example/o", "{body}");
        }
        for (member, value) in ["profiles", "caaIdentities", "website", "externalAccountRequired"]
            .iter()
            .flat_map(|member| odd.iter().map(move |value| (*member, value)))
        {
            let mut body = good.clone();
            body["meta"][member] = value.clone();

            let read = Directory::read(URL, body.to_string().as_bytes()).unwrap();

            assert!(read.profiles().is_empty() && read.caa_identities().is_empty(), "{body}");
        }
        for member in ["newNonce", "newAccount", "newOrder"] {
            let mut body = good.clone();
            body[member] = json!(null);
            assert!(Directory::read(URL, body.to_string().as_bytes()).is_err(), "{member} is used");
        }
    }

    #[test]
    fn a_profile_without_a_description_is_one() {
        let body = json!({
            "newNonce": "/n", "newAccount": "/a", "newOrder": "/o",
            "meta": {"profiles": {"classic": "usual", "tlsserver": null, "short": {"en": "x"}}},
        });

        let read = Directory::read(URL, body.to_string().as_bytes()).unwrap();

        let names: Vec<_> = read.profiles().keys().map(String::as_str).collect();
        assert_eq!(names, ["classic", "short", "tlsserver"]);
        assert_eq!(read.new_nonce, "https://ca.example/n", "relative to the directory");
    }
}
