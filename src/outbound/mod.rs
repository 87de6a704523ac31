//! Guarded connections to hosts that tenants name.
//!
//! Names of certificates, URLs of webhooks, and the CAs, name servers and `baseURL`s of Issuers come
//! from clients. [`Guard`] resolves them itself and hands out only addresses of the public Internet,
//! and those that the operator allows by name or network, so that nobody reaches the inside through
//! us; what was checked is what is connected to, so that a second look-up cannot change it. A literal
//! address in a URL never meets a resolver: [`Client`], through which every guarded request goes,
//! looks at it as well. [`Sender`] does all of that for URLs that are posted to.
//!
//! Calls to third parties have rate limits that no caller can bypass: [`Rates`] for providers and
//! receivers, one turnstile for all questions to name servers.
//!
//! Hosts that only administrators name are not guarded: the CA and `baseURL` of a `ClusterIssuer` may
//! well be inside.

mod address;
mod client;
mod guard;
mod rate;
mod resolver;
mod sender;
mod turnstile;

pub use address::{Allow, InvalidAllow, is_global};
pub use client::Client;
pub use guard::{AddressError, Guard};
pub use rate::{Rate, Rates};
pub use resolver::{
    Resolver, answers, answers_unvalidated, in_words, resolver, system_nameservers,
};
pub use sender::{
    RECEIVER_PER_MINUTE, Reply, RetryAfter, SendError, Sender, SenderSettings, UrlError,
};
pub use turnstile::{NAME_SERVER_AT_ONCE, NAME_SERVER_PER_SECOND};

/// An error and everything below it, outermost first.
pub fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

/// What an error comes down to.
pub fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    causes(error).last().map(ToString::to_string).unwrap_or_default()
}
