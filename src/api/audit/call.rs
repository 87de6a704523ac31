//! Requests as the audit log tells of them.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, MatchedPath, Request};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderValue, Method, Uri, header};
use uuid::Uuid;

use crate::api::headers::{REQUEST_ID, X_FORWARDED_FOR};
use crate::domain::audit::Call;
use crate::domain::forwarded::{NotedIn, TrustedProxies};

/// Endpoints that are no collection: what they change says which collection it is of.
const OF_EVERY_COLLECTION: [&str; 2] = ["apply", "import"];

/// What the head of a request says of it.
#[derive(Debug)]
pub(super) struct Head {
    from: Option<IpAddr>,
    method: Method,
    route: Option<MatchedPath>,
    uri: Uri,
    request_id: Option<HeaderValue>,
}

impl Head {
    pub(super) fn of(request: &Request) -> Self {
        Self {
            from: address_in(request.extensions()),
            method: request.method().clone(),
            route: request.extensions().get::<MatchedPath>().cloned(),
            uri: request.uri().clone(),
            request_id: request.headers().get(&REQUEST_ID).cloned(),
        }
    }

    pub(super) fn call(&self) -> Call {
        let route = self.route.as_ref().map_or("", MatchedPath::as_str);
        let (collection, verb) = action(&self.method, route);
        let id = self.uri.path().split('/').nth(2).and_then(|part| part.parse::<Uuid>().ok());
        let resource = id.map(|id| format!("{collection}/{id}")).unwrap_or_default();
        let request_id = self.request_id.as_ref().and_then(|id| id.to_str().ok());
        let request_id = request_id.unwrap_or_default().to_owned();
        Call { from: self.from, collection, verb, resource, request_id }
    }

    pub(super) fn is_safe(&self) -> bool {
        self.method.is_safe()
    }
}

/// Puts the client's address in the place of the proxy's.
pub(crate) fn from_client(proxies: &TrustedProxies, request: &mut Request) {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| *peer);
    let Some(peer) = peer.filter(|_| !proxies.is_empty()) else { return };
    let name = match proxies.noted_in() {
        NotedIn::XForwardedFor => X_FORWARDED_FOR,
        NotedIn::Forwarded => header::FORWARDED,
    };
    let lines = request.headers().get_all(name).iter().map(HeaderValue::as_bytes);
    let address = SocketAddr::new(proxies.client(peer.ip(), lines), peer.port());
    request.extensions_mut().insert(ConnectInfo(address));
}

/// The client's address.
pub(crate) fn address(parts: &Parts) -> Option<IpAddr> {
    address_in(&parts.extensions)
}

fn address_in(extensions: &Extensions) -> Option<IpAddr> {
    let ConnectInfo(peer) = extensions.get::<ConnectInfo<SocketAddr>>()?;
    Some(peer.ip().to_canonical())
}

/// Collection and verb of a method on one of our routes.
fn action(method: &Method, route: &str) -> (String, String) {
    let mut parts = route.split('/').filter(|part| !part.is_empty());
    let first = parts.next().unwrap_or_default();
    if OF_EVERY_COLLECTION.contains(&first) {
        return (String::new(), first.to_owned());
    }
    let last = parts.next_back().filter(|part| !part.starts_with('{'));
    let verb = match (method, last) {
        // Several are created like one each.
        (&Method::POST, Some("batch") | None) => "create".to_owned(),
        (&Method::POST, Some(word)) => camel(word),
        (&Method::PUT, Some(word)) => camel(&format!("replace-{word}")),
        (&Method::PATCH, _) => "change".to_owned(),
        (&Method::PUT, None) => "replace".to_owned(),
        (&Method::DELETE, _) => "delete".to_owned(),
        _ => "read".to_owned(),
    };
    (camel(first), verb)
}

/// `rotateAccountKey` for `rotate-account-key`.
fn camel(word: &str) -> String {
    let mut parts = word.split('-');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut letters = part.chars();
        text.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        text.push_str(letters.as_str());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_the_collection_and_what_is_done_there() {
        for (method, route, collection, verb) in [
            (Method::POST, "/certificates", "certificates", "create"),
            (Method::POST, "/certificates/batch", "certificates", "create"),
            (Method::PATCH, "/certificates/{id}", "certificates", "change"),
            (Method::DELETE, "/certificates/{id}", "certificates", "delete"),
            (Method::GET, "/certificates/{id}/privkey.pem", "certificates", "read"),
            (Method::PUT, "/certificates/{id}/csr", "certificates", "replaceCsr"),
            (Method::POST, "/issuers/{id}/rotate-account-key", "issuers", "rotateAccountKey"),
            (
                Method::POST,
                "/webhooks/{id}/deliveries/{delivery}/redeliver",
                "webhooks",
                "redeliver",
            ),
            (Method::POST, "/requests/{id}/approve", "requests", "approve"),
            (Method::PUT, "/policies/{id}", "policies", "replace"),
            (Method::POST, "/api-keys/{id}/rotate", "apiKeys", "rotate"),
            (Method::POST, "/apply", "", "apply"),
            (Method::POST, "/import", "", "import"),
        ] {
            let expected = (collection.to_owned(), verb.to_owned());
            assert_eq!(action(&method, route), expected, "{method} {route}");
        }
    }
}
