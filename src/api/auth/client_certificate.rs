//! Client certificates as credentials, which the TLS listener has verified.

use axum::http::header::{HOST, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Uri};
use time::OffsetDateTime;

use super::{Grant, Principal, Subject, refused};
use crate::api::AppState;
use crate::api::audit::Caller;
use crate::api::problem::{ApiError, Code};
use crate::domain::access_rule;
use crate::domain::id::PrincipalId;
use crate::domain::role::Role;
use crate::pki;
use crate::server::PeerCertificate;
use crate::storage::Scope;

/// A certificate that was recognised. What it grants follows from its names, and holds until it ends.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(super) id: PrincipalId,
    pub(super) expires_at: OffsetDateTime,
    pub(super) role: Role,
    pub(super) scope: Scope,
    peer: PeerCertificate,
}

/// The principal behind a client certificate, which a request has when nothing else says who sends it.
pub(super) fn authenticate(
    peer: &PeerCertificate,
    parts: &Parts,
    app: &AppState,
) -> Result<Principal, ApiError> {
    if is_of_another_site(&parts.headers, &parts.uri) {
        return Err(ApiError::Because(Code::PermissionDenied, OF_ANOTHER_SITE.to_owned()));
    }
    let certificate = pki::client_certificate(peer.der()).map_err(|_| refused(UNREADABLE))?;
    let (id, name) = certificate.principal().ok_or_else(|| refused(NAMELESS))?;
    if !peer.is_trusted() {
        return Err(refused(OUTDATED));
    }
    if certificate.not_after <= app.now() {
        return Err(refused(&format!(
            "The client certificate of `{name}` has expired. Connect with a new one."
        )));
    }
    let granted = access_rule::grant(&app.client_rules, &certificate.claims());
    let (role, scope) = granted.ok_or_else(|| {
        let detail = format!(
            "The client certificate of `{name}` is valid, but no rule matches its names (the setting `https.client_rules`)."
        );
        ApiError::Because(Code::PermissionDenied, detail)
    })?;
    let known = Known { id, expires_at: certificate.not_after, role, scope, peer: peer.clone() };
    let Grant { permissions, scope } = known.granted(app);
    // Of the principal, not of the certificate: the next one may repeat a request.
    let pepper = app.sealer.mac(&format!("requests of {id}"));
    Ok(Principal {
        subject: Subject::ClientCertificate(known),
        name: name.to_owned(),
        permissions,
        scope,
        pepper,
        caller: Caller::default(),
    })
}

const OF_ANOTHER_SITE: &str = "A browser sent this with its client certificate for a page of another site. Send an API key or a token (`Authorization: Bearer …`).";

const UNREADABLE: &str =
    "The names in the client certificate cannot be read. Have it issued anew, or use an API key.";

const NAMELESS: &str = "The client certificate has no name of 1 to 255 printable characters: a URI, an e-mail address or a DNS name in `subjectAltName`, or a common name. Have it issued with one.";

const OUTDATED: &str =
    "The CAs of client certificates have changed since this connection was made. Connect again.";

impl Known {
    pub(super) fn grant(&self, app: &AppState) -> Option<Grant> {
        let counts = self.peer.is_trusted() && app.now() < self.expires_at;
        counts.then(|| self.granted(app))
    }

    fn granted(&self, app: &AppState) -> Grant {
        Grant::new(app, Some(self.role), &[], self.scope.clone())
    }
}

/// Whether a browser sends a request for a page that is not ours. It adds the certificate whoever asks for it, unlike a
/// key, so that a page of somebody else could act as its user (cross-site request forgery).
fn is_of_another_site(headers: &HeaderMap, uri: &Uri) -> bool {
    let is_foreign_fetch =
        headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none");
    let host = headers.get(HOST).map(HeaderValue::as_bytes);
    let host = host.or_else(|| uri.authority().map(|authority| authority.as_str().as_bytes()));
    let is_foreign_origin = headers.get(ORIGIN).is_some_and(|origin| {
        let origin = origin.as_bytes().strip_prefix(b"https://");
        origin.is_none() || origin != host
    });
    is_foreign_fetch || is_foreign_origin
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_acts_for_pages_of_this_service_only() {
        for (headers, expected) in [
            (&[][..], false),
            (&[("sec-fetch-site", "none")], false),
            (&[("sec-fetch-site", "same-origin"), ("origin", "https://api.example:8443")], false),
            (&[("sec-fetch-site", "same-site")], true),
            (&[("sec-fetch-site", "cross-site")], true),
            (&[("origin", "https://api.example:8443")], false),
            (&[("origin", "http://api.example:8443")], true),
            (&[("origin", "https://api.example")], true),
            (&[("origin", "https://evil.example")], true),
            (&[("origin", "null")], true),
            (&[("sec-fetch-site", "none"), ("origin", "https://evil.example")], true),
        ] {
            let mut found = HeaderMap::new();
            for (name, value) in headers {
                found.insert(*name, value.parse().unwrap());
            }
            // HTTP/2 has no `Host`.
            let absolute = Uri::from_static("https://api.example:8443/whoami");
            assert_eq!(is_of_another_site(&found, &absolute), expected, "{headers:?}");
            found.insert(HOST, "api.example:8443".parse().unwrap());
            let relative = Uri::from_static("/whoami");
            assert_eq!(is_of_another_site(&found, &relative), expected, "{headers:?}");
        }
    }
}
