//! The hosts that an issuer may name, and who may name them.

use std::net::SocketAddr;

use url::Url;

use crate::api::problem::{Faults, FieldCode};
use crate::domain::issuer::{Acme, Kind};
use crate::outbound::Guard;

/// Upper bound; more hosts than any CA has.
const MOST_ORIGINS: usize = 20;

/// The rules for the hosts that an issuer names.
pub(super) struct Outside<'a> {
    pub(super) guard: &'a Guard,
    pub(super) kind: Kind,
    /// Whether the principal may say where a token is sent: then it may read it.
    pub(super) may_set_base: bool,
}

impl Outside<'_> {
    /// Refuses what is wrong without a DNS lookup. Addresses behind a name are checked when it is used.
    pub(super) fn check(&self, acme: &Acme, faults: &mut Faults) {
        self.origins(&acme.allowed_origins, faults);
        if self.kind == Kind::Issuer
            && let Ok(server) = Url::parse(&acme.server)
            && let Err(refused) = self.guard.check(&server)
        {
            faults.invalid("/acme/server", refused.to_string());
        }
        for (place, solver) in acme.solvers.iter().enumerate() {
            let Some(dns01) = &solver.dns01 else { continue };
            let within = format!("/acme/solvers/{place}/dns01");
            if let Some(provider) = dns01.provider()
                && let Some(base) = provider.base_url()
            {
                self.base(base, &format!("{within}/{}/baseURL", provider.fields().0), faults);
            }
            for (place, server) in dns01.nameservers.iter().enumerate() {
                self.name_server(server, &format!("{within}/nameservers/{place}"), faults);
            }
        }
    }

    fn origins(&self, origins: &[String], faults: &mut Faults) {
        let pointer = "/acme/allowedOrigins";
        if self.kind == Kind::Issuer && !origins.is_empty() {
            let detail = "only a ClusterIssuer lists further hosts of its CA";
            faults.add(pointer, FieldCode::Unsupported, detail);
        }
        if origins.len() > MOST_ORIGINS {
            faults.invalid(pointer, format!("there are at most {MOST_ORIGINS}"));
            return;
        }
        for (place, text) in origins.iter().enumerate() {
            if !is_origin(text) {
                let detail = "is written `https://HOST` or `https://HOST:PORT`";
                faults.invalid(format!("{pointer}/{place}"), detail);
            }
        }
    }

    /// The token is sent to this URL, so only principals that may read all secrets may choose it.
    fn base(&self, base: &str, pointer: &str, faults: &mut Faults) {
        if !self.may_set_base {
            let detail = "the token is sent there, so that only who is bound to no namespace and has the permission `secrets:write` may set it; leave it out";
            faults.deny(pointer, FieldCode::Unsupported, detail);
            return;
        }
        let Ok(url) = Url::parse(base) else { return };
        if !self.guard.keeps_secrets(&url) {
            let detail = "the token would be sent in clear: use `https`, or list the host in the setting `outbound.allow`";
            faults.invalid(pointer, detail);
        } else if self.kind == Kind::Issuer && self.guard.listed_only().check(&url).is_err() {
            let detail =
                "an Issuer's token goes to hosts only that the setting `outbound.allow` lists";
            faults.invalid(pointer, detail);
        }
    }

    fn name_server(&self, text: &str, pointer: &str, faults: &mut Faults) {
        if self.kind == Kind::Issuer
            && let Ok(address) = text.parse::<SocketAddr>()
            && let Err(refused) = self.guard.check_address(&address.ip().to_string(), address.ip())
        {
            faults.invalid(pointer, refused.to_string());
        }
    }
}

fn is_origin(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| {
        let is_host = |host: &str| {
            !host.contains(|c: char| !c.is_ascii_alphanumeric() && !"-.:[]".contains(c))
        };
        url.scheme() == "https"
            && url.host_str().is_some_and(is_host)
            && url.username().is_empty()
            && url.password().is_none()
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port_of_https() {
        for good in ["https://a.example", "https://a.example/", "https://a.example:8443"] {
            assert!(is_origin(good), "{good}");
        }
        for bad in [
            "a.example",
            "*",
            "https://*",
            "http://a.example",
            "https://a.example/x",
            "https://a.example/?x",
            "https://a.example/#x",
            "https://u@a.example",
            "https://u:p@a.example",
            "",
        ] {
            assert!(!is_origin(bad), "{bad}");
        }
    }
}
