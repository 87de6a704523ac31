//! `oidc.issuers`: whose tokens are taken, and what for.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Deserialize;
use url::{Host, Url};

use super::access_rules::{self, RuleTable};
use super::{ConfigError, Values};
use crate::domain::token_issuer::TokenIssuer;

const KEY: &str = "oidc.issuers";

#[derive(Deserialize)]
struct Tables {
    issuers: Vec<IssuerTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IssuerTable {
    issuer: String,
    audience: String,
    cli_client_id: Option<String>,
    ca_file: Option<PathBuf>,
    #[serde(default)]
    rules: Vec<RuleTable>,
}

/// The issuers that are configured.
pub(super) fn issuers(values: &Values) -> Result<Vec<TokenIssuer>, ConfigError> {
    let Some(text) = values.given(KEY) else { return Ok(Vec::new()) };
    let read = || {
        let tables: Tables = toml::from_str(&format!("issuers = {text}"))
            .map_err(|error| format!("cannot be read: {}", error.message()))?;
        let mut seen = BTreeSet::new();
        let all = tables.issuers.into_iter().map(|table| {
            if !seen.insert(table.issuer.clone()) {
                return Err(format!(
                    "the issuer {} stands there twice; give it all rules at once",
                    table.issuer
                ));
            }
            let issuer = table.issuer.clone();
            table.check().map_err(|problem| format!("the issuer {issuer}: {problem}"))
        });
        all.collect::<Result<Vec<_>, String>>()
    };
    read().map_err(|problem| values.bad(KEY, problem))
}

impl IssuerTable {
    fn check(self) -> Result<TokenIssuer, String> {
        if !is_identifier(&self.issuer) {
            return Err(
                "expected `https://HOST/PATH`, exactly as in the `iss` of its tokens".to_owned()
            );
        }
        if self.audience.is_empty() {
            return Err(
                "`audience` is empty; it is what the `aud` of its tokens has to be".to_owned()
            );
        }
        if self.rules.is_empty() {
            return Err(
                "expected at least one of `[[oidc.issuers.rules]]`, or its tokens let nobody in"
                    .to_owned(),
            );
        }
        let ca_bundle = self.ca_file.map(|file| {
            std::fs::read(&file)
                .map_err(|error| format!("`ca_file` {} cannot be read: {error}", file.display()))
        });
        Ok(TokenIssuer {
            issuer: self.issuer,
            audience: self.audience,
            cli_client_id: self.cli_client_id,
            ca_bundle: ca_bundle.transpose()?,
            rules: access_rules::check(self.rules, "sub")?,
        })
    }
}

/// Whether a text can be an issuer's identifier (OpenID Connect Discovery 1.0, section 3). Plain HTTP is for one on
/// this machine.
fn is_identifier(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| {
        let is_here = match url.host() {
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            Some(Host::Domain(name)) => name == "localhost",
            None => false,
        };
        let is_private = url.scheme() == "https" || (url.scheme() == "http" && is_here);
        is_private
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, read, toml};
    use crate::domain::access_rule::Namespaces;
    use crate::domain::role::Role;

    const GITHUB: &str = r#"
        [[oidc.issuers]]
        issuer = "https://token.actions.githubusercontent.com"
        audience = "https://certwright.example.com"
        [[oidc.issuers.rules]]
        match = {repository_owner = "org", ref = "refs/heads/*"}
        role = "requester"
        namespaces = ["web"]
        [[oidc.issuers.rules]]
        match = {sub = "repo:org/*"}
        role = "reader"
        namespaces = ["*"]
        [[oidc.issuers]]
        issuer = "http://localhost:8081/realms/a"
        audience = "certwright"
        cli_client_id = "certwright-cli"
        rules = [{match = {"/kubernetes.io/namespace" = "*"}, role = "requester", namespace_claim = "/kubernetes.io/namespace"}]
    "#;

    fn parse(text: &str) -> Result<Vec<TokenIssuer>, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let values = read(Some(file.path()), [], &[]).map_err(|error| error.to_string())?;
        let config = Config::parse(&values).map_err(|error| error.to_string())?;
        // What is shown says the same.
        let shown = toml(&values);
        let again = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(again.path(), shown).unwrap();
        let values = read(Some(again.path()), [], &[]).unwrap();
        assert_eq!(Config::parse(&values).unwrap().oidc_issuers, config.oidc_issuers);
        Ok(config.oidc_issuers)
    }

    #[test]
    fn issuers_and_their_rules_are_read_from_tables() {
        let found = parse(GITHUB).unwrap();

        let [github, own] = &found[..] else { panic!("{found:?}") };
        assert_eq!(github.rules[0].claims.len(), 2);
        assert_eq!(github.rules[0].namespaces, Namespaces::These(vec!["web".into()]));
        assert_eq!(
            (github.rules[1].role, &github.rules[1].namespaces),
            (Role::Reader, &Namespaces::All)
        );
        assert_eq!(own.cli_client_id.as_deref(), Some("certwright-cli"));
        assert_eq!(own.rules[0].namespaces, Namespaces::Claim("/kubernetes.io/namespace".into()));
        assert_eq!(parse("").unwrap(), []);
    }

    #[test]
    fn what_would_let_in_others_than_was_meant_stops_the_start() {
        for (from, to, expected) in [
            ("https://token", "http://token", "the issuer http://token"),
            ("usercontent.com\"", "usercontent.com?x=y\"", "expected `https://"),
            ("audience = \"certwright\"", "audience = \"\"", "`audience` is empty"),
            ("match = {sub = \"repo:org/*\"}", "match = {}", "rule 2: `match` names no claim"),
            ("namespaces = [\"web\"]", "", "rule 1: expected either `namespaces`"),
            ("namespaces = [\"web\"]", "namespaces = [\"web\", \"*\"]", "rule 1: `namespaces`"),
            ("namespaces = [\"web\"]", "namespaces = []", "rule 1: `namespaces`"),
            (
                "namespaces = [\"web\"]",
                "namespaces = [\"web\"]\nnamespace_claim = \"a\"",
                "rule 1: expected either",
            ),
            ("\"repo:org/*\"", "\"repo:{namespace}/*\"", "rule 2: expected either"),
            ("\"repo:org/*\"", "\"*:{namespace}\"", "rule 2: `sub`: no `*` may stand before"),
            ("role = \"reader\"", "role = \"root\"", "unknown variant `root`"),
            ("role = \"reader\"", "rolle = \"reader\"", "unknown field `rolle`"),
            (
                "http://localhost:8081/realms/a",
                "https://token.actions.githubusercontent.com",
                "stands there twice",
            ),
            (
                "audience = \"certwright\"",
                "audience = \"certwright\"\nca_file = \"/none\"",
                "`ca_file` /none cannot be read",
            ),
        ] {
            let text = GITHUB.replacen(from, to, 1);
            assert_ne!(text, GITHUB, "{from}");
            let refused = parse(&text).unwrap_err();
            assert!(refused.contains("oidc.issuers") && refused.contains(expected), "{refused}");
        }
        let none = parse("[oidc]\nissuers = \"x\"").unwrap_err();
        assert!(none.contains("expected tables"), "{none}");
    }
}
