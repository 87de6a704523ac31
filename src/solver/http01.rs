//! HTTP-01: a file that our own responder serves from the database (RFC 8555, section 8.3).
//!
//! There is nothing to write. What is here is the look from outside, as a CA would do it, so that a
//! proxy that does not forward yet costs no failed validation.

use std::net::Ipv6Addr;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::Method;
use reqwest::redirect::{Attempt, Policy};
use url::{Host, Url};

use super::{Readiness, Solver};
use crate::domain::challenge::{Observation, Proof, Record};
use crate::domain::failure::Failure;
use crate::outbound::{AddressError, Client, Guard, innermost, is_global};

const TIMEOUT: Duration = Duration::from_secs(10);
const MAX_REDIRECTS: usize = 10;
const MAX_BODY: usize = 1024;

/// Of an answer that is not the proof, so much goes into the debug log.
const MAX_SHOWN: usize = 80;

/// An answer, and the beginning of its body.
struct Found {
    status: u16,
    body: Vec<u8>,
}

impl Found {
    /// Describes an answer without quoting it: the client that chose the name may not be meant to read it.
    fn outline(&self) -> String {
        match self.body.len() {
            0 => format!("answered {} with an empty body", self.status),
            more if more >= MAX_BODY => {
                format!(
                    "answered {} with {MAX_BODY} bytes or more that are not the proof",
                    self.status
                )
            }
            some => format!("answered {} with {some} bytes that are not the proof", self.status),
        }
    }
}

/// Proves by files below `/.well-known/acme-challenge/`.
pub struct Http01 {
    http: Client,
    guard: Guard,
    port: u16,
}

impl Http01 {
    /// Looks through `guard`, at `port`: 80 but in tests.
    pub fn new(guard: &Guard, port: u16) -> Result<Self, reqwest::Error> {
        // A CA takes the address that it can reach: one that is of no use must not hide the others.
        let guard = guard.partial();
        let builder = reqwest::Client::builder()
            .user_agent(concat!("certwright/", env!("CARGO_PKG_VERSION")))
            .timeout(TIMEOUT)
            // A proxy may have been reloaded since the last look.
            .pool_max_idle_per_host(0)
            // CAs do not verify either: the name may not have a certificate yet.
            .tls_danger_accept_invalid_certs(true)
            .redirect(Policy::custom(move |attempt| follow(attempt, port)));
        let http = Client::guarded(builder, guard.clone())?;
        Ok(Self { http, guard, port })
    }

    /// The answer, or the reason why there is none.
    async fn look(&self, url: &Url) -> Result<Found, String> {
        let host = url.host_str().unwrap_or_default().to_owned();
        let request = self.http.request(Method::GET, url).map_err(|refused| refused.to_string())?;
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Err(self.why(error, &host).await),
        };
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(in_words)? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_BODY {
                body.truncate(MAX_BODY);
                break;
            }
        }
        Ok(Found { status: response.status().as_u16(), body })
    }

    async fn why(&self, error: reqwest::Error, host: &str) -> String {
        if let Some(refused) = AddressError::behind(&error) {
            return refused.to_string();
        }
        let connecting = error.is_connect() || error.is_timeout();
        let reason = in_words(error);
        if !connecting {
            return reason;
        }
        match self.guard.addresses(host).await {
            Ok(addresses) => {
                // Where names of the inside lead, only the operator may know.
                let public = addresses.iter().filter(|address| is_global(**address));
                let public: Vec<String> = public.map(ToString::to_string).collect();
                match public.as_slice() {
                    [] => format!("{reason} ({host}, port {})", self.port),
                    some => {
                        format!("{reason} ({host} is at {}, port {})", some.join(", "), self.port)
                    }
                }
            }
            Err(refused) => refused.to_string(),
        }
    }
}

#[async_trait]
impl Solver for Http01 {
    async fn present(&self, _proof: &Proof) -> Result<Option<Record>, Failure> {
        Ok(None)
    }

    async fn is_ready(&self, proof: &Proof, _: Option<&Record>) -> Result<Readiness, Failure> {
        let Ok(url) = challenge_url(proof, self.port) else {
            return Ok(Readiness::unknown(format!("{} makes no URL", proof.domain)));
        };
        let observed = match self.look(&url).await {
            // Whitespace at the end is ignored by section 8.3.
            Ok(Found { status: 200, body })
                if body.trim_ascii_end() == proof.key_authorization.as_bytes() =>
            {
                return Ok(Readiness::Ready);
            }
            Ok(found) => {
                let (status, said) = (found.status, shown(&found.body));
                tracing::debug!(%url, status, said, "the self-check found something else");
                found.outline()
            }
            Err(reason) => format!("cannot be asked: {reason}"),
        };
        Ok(Readiness::NotYet { observed: vec![Observation::missing(url, observed)] })
    }

    async fn clean_up(&self, _proof: &Proof, _record: Option<&Record>) -> Result<(), Failure> {
        Ok(())
    }
}

fn challenge_url(proof: &Proof, port: u16) -> Result<Url, url::ParseError> {
    let port = if port == 80 { String::new() } else { format!(":{port}") };
    let host = match proof.domain.parse::<Ipv6Addr>() {
        Ok(address) => format!("[{address}]"),
        Err(_) => proof.domain.clone(),
    };
    Url::parse(&format!("http://{host}{port}/.well-known/acme-challenge/{}", proof.token))
}

/// CAs follow only to names, and only to the ports of the web.
fn follow(attempt: Attempt<'_>, self_check_port: u16) -> reqwest::redirect::Action {
    if attempt.previous().len() > MAX_REDIRECTS {
        return attempt.error("more than 10 redirects");
    }
    let url = attempt.url();
    let port = url.port_or_known_default();
    let fits = match url.scheme() {
        "http" => port == Some(80) || port == Some(self_check_port),
        "https" => port == Some(443),
        _ => false,
    };
    if fits && matches!(url.host(), Some(Host::Domain(_))) {
        return attempt.follow();
    }
    let refusal =
        format!("redirect to {}, where no CA would follow", url.origin().ascii_serialization());
    attempt.error(refusal)
}

fn in_words(error: reqwest::Error) -> String {
    let error = error.without_url();
    if error.is_timeout() {
        return format!("no answer within {} seconds", TIMEOUT.as_secs());
    }
    innermost(&error)
}

/// The beginning of a stranger's text, harmless to show.
fn shown(text: &[u8]) -> String {
    let head = &text[..text.len().min(MAX_SHOWN)];
    let words: String = String::from_utf8_lossy(head)
        .chars()
        .map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '.' })
        .collect();
    match words.is_empty() {
        true => "an empty body".to_owned(),
        false if text.len() > MAX_SHOWN => format!("\"{words}…\""),
        false => format!("\"{words}\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strangers_text_is_cut_and_made_harmless() {
        assert_eq!(shown(b""), "an empty body");
        assert_eq!(shown(b"<h1>\x1b[31m\n"), "\"<h1>.[31m.\"");
        assert_eq!(shown(&[b'a'; 500]).chars().count(), MAX_SHOWN + 3);
    }
}
