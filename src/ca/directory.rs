//! A CA's directory: fetched once for everybody, refreshed now and then.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{Method, Request, Response, Uri};
use http_body_util::Full;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use time::{Duration, OffsetDateTime};
use tokio::sync::Mutex;
use url::Url;

use super::ask::ask;
use super::classify::{Asked, Call};
use super::http::CaClient;
use super::json::{self, each, lenient, or_default};
use super::problem::outline;
use super::recorder;
use super::recorder::absolute;
use crate::clock::Clock;
use crate::domain::failure::Failure;

/// After this long the directory is asked for again.
const FRESH_FOR: Duration = Duration::hours(1);
/// When the CA did not give it, the known one serves for so long before the next question.
const RETRY_AFTER: Duration = Duration::minutes(1);

/// So many redirects lead to a directory at most.
const MOST_REDIRECTS: usize = 3;

/// RFC 8555, section 7.1.1, as far as it is used here.
#[derive(Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Directory {
    new_nonce: String,
    new_account: String,
    new_order: String,
    #[serde(default, deserialize_with = "lenient")]
    revoke_cert: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    key_change: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    renewal_info: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    meta: Meta,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
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
    fn read(url: &str, body: &[u8]) -> Result<Self, String> {
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

    pub(super) fn new_nonce(&self) -> &str {
        &self.new_nonce
    }

    pub(super) fn new_account(&self) -> &str {
        &self.new_account
    }

    pub(super) fn new_order(&self) -> &str {
        &self.new_order
    }

    pub(super) fn revoke_cert(&self) -> Option<&str> {
        self.revoke_cert.as_deref()
    }

    pub(super) fn key_change(&self) -> Option<&str> {
        self.key_change.as_deref()
    }

    /// Where renewal information is asked for, where the CA gives it (RFC 9773).
    pub(super) fn renewal_info(&self) -> Option<&str> {
        self.renewal_info.as_deref()
    }

    /// The directory without what is offered at no URL; `None` where nothing could be ordered.
    /// instant-acme takes it for granted that these are URLs.
    fn usable(mut self) -> Option<Self> {
        let is_url = |text: &str| Url::parse(text).is_ok() && text.parse::<Uri>().is_ok();
        let always = [&self.new_nonce, &self.new_account, &self.new_order];
        if !always.into_iter().all(|text| is_url(text)) {
            return None;
        }
        for perhaps in [&mut self.revoke_cert, &mut self.key_change, &mut self.renewal_info] {
            *perhaps = perhaps.take().filter(|text| is_url(text));
        }
        Some(self)
    }

    /// All URLs that it names.
    fn endpoints(&self) -> impl Iterator<Item = &str> {
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
    /// How often the CA was asked; tells who waited for the same answer.
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
        let state = Mutex::default();
        Self { server: server.to_owned(), client, clock, state, rounds: AtomicU64::new(0) }
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
        state.take(answer, self.clock.now())
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

    /// The HTTP client for requests of our own.
    pub(super) fn client(&self) -> &CaClient {
        &self.client
    }

    /// The HTTP client for instant-acme, which finds the directory in memory.
    pub(super) fn http(&self, directory: &Directory) -> Box<dyn HttpClient> {
        let body = serde_json::to_vec(directory).unwrap_or_default().into();
        Box::new(WithDirectory { client: self.client.clone(), body })
    }

    async fn fetch(&self) -> Result<Directory, Failure> {
        let asked = Asked::of(Call::Directory);
        let (directory, _) = ask!(asked, async {
            let (url, body) = self.find().await?;
            Directory::read(&url, &body).map_err(|error| {
                Error::Other(format!("{url} answered something else: {error}").into())
            })
        })?;
        self.client.learn(Directory::endpoints(&directory));
        Ok(directory)
    }

    /// The document at the issuer's URL, or where that leads within the same origin, and its URL.
    ///
    /// Nothing is signed for it, and what it names is checked for itself. Elsewhere no redirect is
    /// followed: a signed request is for one URL.
    async fn find(&self) -> Result<(String, Bytes), Error> {
        let mut url = self.server.clone();
        for _ in 0..MOST_REDIRECTS {
            let answer = self.client.get(&url).await;
            let leads_to = recorder::redirect().filter(|target| same_origin(&url, target));
            match leads_to {
                Some(target) => url = target,
                None => return answer.map(|body| (url, body)),
            }
        }
        self.client.get(&url).await.map(|body| (url, body))
    }
}

fn same_origin(one: &str, other: &str) -> bool {
    let origin = |url: &str| Url::parse(url).ok().map(|url| url.origin());
    origin(one).is_some_and(|one| one.is_tuple() && Some(one) == origin(other))
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

/// Answers instant-acme's question for the directory, which it puts once per account object.
struct WithDirectory {
    client: CaClient,
    body: Bytes,
}

impl HttpClient for WithDirectory {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        // It is the only GET of those calls that are used here.
        if request.method() == Method::GET {
            let body = self.body.clone();
            return Box::pin(async move { Ok(Response::new(Full::new(body)).into()) });
        }
        self.client.request(request)
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

            assert_eq!(read.unwrap().new_order(), "https://ca.example/o", "{body}");
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
        assert_eq!(read.new_nonce(), "https://ca.example/n", "relative to the directory");
    }

    #[test]
    fn a_directory_is_looked_for_within_one_origin() {
        for (one, other, same) in [
            ("https://ca.example/d", "https://ca.example:443/e", true),
            ("https://ca.example/d", "https://CA.example/d/", true),
            ("https://ca.example/d", "http://ca.example/d", false),
            ("https://ca.example/d", "https://ca.example:8443/d", false),
            ("https://ca.example/d", "https://evil.example/d", false),
            ("https://ca.example/d", "data:text/plain,x", false),
        ] {
            assert_eq!(same_origin(one, other), same, "{one} {other}");
        }
    }
}
