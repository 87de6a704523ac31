//! HTTP clients: guarded ones, and those that go where an administrator has said.

use reqwest::{ClientBuilder, Method, RequestBuilder};
use url::Url;

use super::guard::{AddressError, Guard};

/// An HTTP client that cannot be made to ask without its guard. A cheap handle.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    guard: Option<Guard>,
}

impl Client {
    /// A client for what only administrators name: it goes anywhere, by the proxy that the
    /// environment names, where it names one.
    pub fn open(builder: ClientBuilder) -> Result<Self, reqwest::Error> {
        Ok(Self { http: builder.build()?, guard: None })
    }

    /// A client that connects to what `guard` permits, and to the very addresses that it has looked
    /// at. It asks no proxy: a proxy would look names up by itself.
    pub fn guarded(builder: ClientBuilder, guard: Guard) -> Result<Self, reqwest::Error> {
        let http = builder.no_proxy().referer(false).dns_resolver(guard.clone()).build()?;
        Ok(Self { http, guard: Some(guard) })
    }

    /// A request, unless its URL leads to where the guard lets nobody go.
    pub fn request(&self, method: Method, url: &Url) -> Result<RequestBuilder, AddressError> {
        // A literal address never meets a resolver.
        if let Some(guard) = &self.guard {
            guard.check(url)?;
        }
        Ok(self.http.request(method, url.clone()))
    }
}
