//! How the API is reached: over TLS, or without it.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

use super::access_rules::{self, RuleTable};
use super::{ConfigError, Values};
use crate::domain::access_rule::Rule;
use crate::domain::client_certificate::CLAIMS;

/// The API over TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Https {
    pub listen: SocketAddr,
    pub certificate: CertificateSource,
    /// Client certificates as a way in, where they are one.
    pub client_auth: Option<ClientAuth>,
}

/// Whose client certificates are taken, and what for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientAuth {
    /// PEM.
    pub ca_file: PathBuf,
    pub rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct ClientRules {
    rules: Vec<RuleTable>,
}

/// Where its certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateSource {
    /// PEM.
    Files { chain: PathBuf, key: PathBuf },
    /// A certificate of this service.
    Issued { namespace: String, name: String },
}

/// The address of the API over plain HTTP, where keys and certificates' keys would cross in clear.
pub(super) fn plain_address(values: &Values) -> Result<SocketAddr, ConfigError> {
    let address = values.address("http.listen")?;
    if address.ip().is_loopback() || values.switch("http.allow_plain")? {
        return Ok(address);
    }
    Err(values.bad(
        "http.listen",
        "API keys and private keys would be sent without TLS beyond this machine. Listen on 127.0.0.1 and let \
         `https.listen` serve others; or, behind a proxy that ends TLS, set `http.allow_plain = true`",
    ))
}

impl Https {
    pub(super) fn parse(values: &Values) -> Result<Option<Self>, ConfigError> {
        let [chain, key, issued] =
            ["https.certificate_file", "https.key_file", "https.certificate"]
                .map(|key| values.given(key));
        let certificate = match (chain, key, issued) {
            (None, None, None) => None,
            (Some(chain), Some(key), None) => {
                Some(CertificateSource::Files { chain: chain.into(), key: key.into() })
            }
            (None, None, Some(_)) => Some(CertificateSource::issued(values)?),
            (_, _, Some(_)) => {
                return Err(values.bad(
                    "https.certificate",
                    "`https.certificate_file` or `https.key_file` is given too; which one counts?",
                ));
            }
            (Some(_), None, None) => {
                return Err(values
                    .bad("https.certificate_file", "its key is missing: set `https.key_file`"));
            }
            (None, Some(_), None) => {
                return Err(values.bad(
                    "https.key_file",
                    "its certificate is missing: set `https.certificate_file`",
                ));
            }
        };
        let client_auth = ClientAuth::parse(values)?;
        if values.given("https.listen").is_none() {
            return Ok(None);
        }
        let listen = values.address("https.listen")?;
        let Some(certificate) = certificate else {
            return Err(values.bad(
                "https.listen",
                "which certificate? Set `https.certificate_file` and `https.key_file`, or `https.certificate` to the \
                 NAMESPACE/NAME of one that this service issues",
            ));
        };
        Ok(Some(Self { listen, certificate, client_auth }))
    }
}

impl ClientAuth {
    fn parse(values: &Values) -> Result<Option<Self>, ConfigError> {
        const RULES: &str = "https.client_rules";
        let (ca_file, rules) = match (values.given("https.client_ca_file"), values.given(RULES)) {
            (None, None) => return Ok(None),
            (Some(ca_file), Some(rules)) => (ca_file, rules),
            (Some(_), None) => {
                let problem = "its certificates would let nobody in: add `[[https.client_rules]]`, which say what their names are worth";
                return Err(values.bad("https.client_ca_file", problem));
            }
            (None, Some(_)) => {
                let problem =
                    "whose certificates? Set `https.client_ca_file` to the CAs that sign them";
                return Err(values.bad(RULES, problem));
            }
        };
        let read = || {
            let ClientRules { rules } = toml::from_str(&format!("rules = {rules}"))
                .map_err(|error| format!("cannot be read: {}", error.message()))?;
            let rules = access_rules::check(rules, "cn")?;
            if rules.is_empty() {
                return Err("expected at least one rule".to_owned());
            }
            let unknown =
                rules.iter().flat_map(Rule::claim_names).find(|name| !CLAIMS.contains(name));
            if let Some(name) = unknown {
                let known = CLAIMS.map(|name| format!("`{name}`")).join(", ");
                return Err(format!("a certificate has no `{name}`; rules may name {known}"));
            }
            Ok(rules)
        };
        let rules = read().map_err(|problem| values.bad(RULES, problem))?;
        Ok(Some(Self { ca_file: ca_file.into(), rules }))
    }
}

impl CertificateSource {
    fn issued(values: &Values) -> Result<Self, ConfigError> {
        let text = values.text("https.certificate");
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
                Ok(Self::Issued { namespace: namespace.to_owned(), name: name.to_owned() })
            }
            _ => Err(values
                .bad("https.certificate", "expected NAMESPACE/NAME, such as default/certwright")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, read};
    use crate::domain::access_rule::Namespaces;

    fn parse(settings: &[(&str, &str)]) -> Result<Config, String> {
        let flags: Vec<_> =
            settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Config::parse(&read(None, [], &flags).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn plain_http_stays_on_this_machine_unless_it_is_allowed() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            assert!(parse(&[("http.listen", address)]).is_ok(), "{address}");
        }
        for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
            let refused = parse(&[("http.listen", address)]).unwrap_err();
            assert!(refused.contains("`http.allow_plain = true`"), "{refused}");
            let allowed = [("http.listen", address), ("http.allow_plain", "true")];
            assert!(parse(&allowed).is_ok(), "{address}");
        }
    }

    #[test]
    fn the_certificate_of_https_has_one_source() {
        let listen = ("https.listen", "0.0.0.0:0");
        let chain = ("https.certificate_file", "chain.pem");
        let key = ("https.key_file", "key.pem");
        let issued = ("https.certificate", "default/certwright");
        assert_eq!(parse(&[]).unwrap().https, None);
        assert_eq!(parse(&[chain, key]).unwrap().https, None, "nobody listens");
        let files = parse(&[listen, chain, key]).unwrap().https.unwrap();
        assert!(matches!(files.certificate, CertificateSource::Files { .. }));
        let ours = parse(&[listen, issued]).unwrap().https.unwrap();
        assert!(
            matches!(&ours.certificate, CertificateSource::Issued { name, .. } if name == "certwright")
        );
        for (settings, expected) in [
            (&[listen][..], "which certificate?"),
            (&[listen, chain], "set `https.key_file`"),
            (&[listen, key], "set `https.certificate_file`"),
            (&[listen, chain, key, issued], "which one counts?"),
            (&[listen, ("https.certificate", "certwright")], "NAMESPACE/NAME"),
        ] {
            let refused = parse(settings).unwrap_err();
            assert!(refused.contains(expected), "{refused}");
        }
    }

    #[test]
    fn client_certificates_take_their_cas_and_rules_for_their_names() {
        let ca = ("https.client_ca_file", "clients.pem");
        let with = |rules: &str| {
            let https = [("https.listen", "0.0.0.0:0"), ("https.certificate", "default/api")];
            parse(&[&https[..], &[ca, ("https.client_rules", rules)]].concat())
        };
        let rules = r#"[
            {match = {uri = "spiffe://example.org/ns/{namespace}/sa/*"}, role = "requester"},
            {match = {o = "Example", ou = "Operations"}, role = "operator", namespaces = ["*"]},
            {match = {dns = "*.example.org"}, role = "reader", namespace_claim = "ou"},
        ]"#;
        let client_auth = with(rules).unwrap().https.unwrap().client_auth.unwrap();
        assert_eq!(client_auth.ca_file, PathBuf::from("clients.pem"));
        let namespaces: Vec<_> = client_auth.rules.iter().map(|rule| &rule.namespaces).collect();
        let expected =
            [Namespaces::Part("uri".into()), Namespaces::All, Namespaces::Claim("ou".into())];
        assert_eq!(namespaces, expected.iter().collect::<Vec<_>>());

        for (rules, expected) in [
            ("[]", "expected at least one rule"),
            ("x", "cannot be read"),
            (r#"[{match = {}, role = "admin", namespaces = ["*"]}]"#, "{cn = \"*\"}"),
            (
                r#"[{match = {san = "a"}, role = "admin", namespaces = ["*"]}]"#,
                "no `san`; rules may name `cn`, ",
            ),
            (
                r#"[{match = {cn = "a"}, role = "reader", namespace_claim = "groups"}]"#,
                "no `groups`",
            ),
            (r#"[{match = {cn = "a"}, role = "reader"}]"#, "rule 1: expected either"),
            (r#"[{match = {uri = "*/{namespace}"}, role = "reader"}]"#, "rule 1: `uri`: no `*`"),
        ] {
            let refused = with(rules).unwrap_err();
            assert!(
                refused.contains("https.client_rules") && refused.contains(expected),
                "{refused}"
            );
        }
        let refused = parse(&[ca]).unwrap_err();
        assert!(refused.contains("add `[[https.client_rules]]`"), "{refused}");
        let refused = parse(&[("https.client_rules", rules)]).unwrap_err();
        assert!(refused.contains("Set `https.client_ca_file`"), "{refused}");
    }
}
