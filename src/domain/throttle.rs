//! Throttles: the scope of a CA's "later", and the names of its buckets.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use url::Url;
use utoipa::ToSchema;

use super::failure::Failure;
use super::id::ThrottleId;

/// The longest "later" of a CA that is believed. Let's Encrypt counts in windows of up to 168 hours; one day more leaves
/// room for what a CA rounds up. Nobody is held for ever by a value that makes no sense.
pub const LONGEST_WAIT: Duration = Duration::days(8);

/// What a CA's limit counts, and so whose requests wait for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", content = "of", rename_all = "camelCase")]
pub enum Scope {
    /// Every request to the CA.
    Endpoint,
    /// New orders of the account.
    Account,
    /// New orders for names below this registered domain.
    RegisteredDomain(String),
    /// New orders for exactly these names.
    ExactSet,
    /// New orders of the account for this name.
    Name(String),
}

impl Scope {
    /// The word that the database uses.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Endpoint => "endpoint",
            Self::Account => "account",
            Self::RegisteredDomain(_) => "domain",
            Self::ExactSet => "set",
            Self::Name(_) => "name",
        }
    }
}

/// A CA's "later", for everybody who shares a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Throttle {
    pub id: ThrottleId,
    /// The bucket's name ([`Asker::key`]).
    pub key: String,
    pub until: OffsetDateTime,
    /// What the CA said, to whoever asked first.
    pub why: Failure,
}

impl Throttle {
    /// The CA, as `host:port`, or the account's URL: whoever counts.
    pub fn counted_by(&self) -> &str {
        self.key.split(' ').nth(1).unwrap_or_default()
    }

    /// The same in our words.
    #[must_use]
    pub fn told_to_others(self) -> Self {
        Self { why: told_to_others(self.why, self.until), ..self }
    }

    /// Whether orders of this asker may wait for it.
    pub fn concerns(&self, asker: Asker<'_>) -> bool {
        asker.pools().iter().any(|pool| {
            let rest = self.key.strip_prefix(pool);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
        })
    }
}

/// Tells another order for how long and why a CA has refused one, in our words. The CA's own words may be about names,
/// and pages, of another tenant.
pub fn told_to_others(why: Failure, until: OffsetDateTime) -> Failure {
    let whom = match why.scope {
        Some(Scope::Endpoint) | None => "everybody who asks it",
        Some(Scope::Account) => "the account",
        Some(Scope::RegisteredDomain(_)) => "all names below the registered domain",
        Some(Scope::ExactSet) => "these names together",
        Some(Scope::Name(_)) => "the name",
    };
    let detail = format!("It has said so to another order, and means {whom}.");
    Failure {
        detail,
        http_status: None,
        subproblems: Vec::new(),
        instance: None,
        retry_at: Some(until),
        ..why
    }
}

/// The parts of a bucket's name.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    pub server: &'a str,
    /// URL of the account; empty while there is none.
    pub account: &'a str,
    /// The names that are ordered, wildcards with `*.`.
    pub names: &'a [String],
}

impl Asker<'_> {
    /// The bucket's name, the same for everybody who shares it, whichever replica they are on.
    pub fn key(&self, scope: &Scope) -> String {
        let word = scope.as_str();
        match scope {
            Scope::Endpoint | Scope::Account => self.pool(scope),
            Scope::RegisteredDomain(name) => format!("{word} {} {name}", authority(self.server)),
            Scope::ExactSet => format!("{word} {} {}", authority(self.server), set(self.names)),
            Scope::Name(name) => format!("{word} {} {name}", self.account),
        }
    }

    /// Names all buckets of one kind that this asker could meet: those of the CA, or of the account.
    pub fn pool(&self, scope: &Scope) -> String {
        let word = scope.as_str();
        match scope {
            Scope::Account | Scope::Name(_) => format!("{word} {}", self.account),
            Scope::Endpoint | Scope::RegisteredDomain(_) | Scope::ExactSet => {
                format!("{word} {}", authority(self.server))
            }
        }
    }

    /// Names the buckets of every kind that this asker could meet.
    pub fn pools(&self) -> [String; 5] {
        let (domain, name) = (Scope::RegisteredDomain(String::new()), Scope::Name(String::new()));
        [Scope::Endpoint, Scope::Account, Scope::ExactSet, domain, name]
            .map(|scope| self.pool(&scope))
    }

    /// Every bucket that a new order is counted in.
    pub fn scopes(&self) -> Vec<Scope> {
        let mut scopes = vec![Scope::Endpoint, Scope::Account, Scope::ExactSet];
        scopes.extend(self.domains().into_iter().map(Scope::RegisteredDomain));
        scopes.extend(self.bases().into_iter().map(Scope::Name));
        scopes
    }

    /// The registered domains of the names, each once.
    pub fn domains(&self) -> Vec<String> {
        let mut domains: Vec<_> = self.names.iter().map(|name| registered_domain(name)).collect();
        domains.sort_unstable();
        domains.dedup();
        domains
    }

    /// The names without `*.`, each once: what is validated.
    pub fn bases(&self) -> Vec<String> {
        let mut bases: Vec<_> = self.names.iter().map(|name| base(name).to_owned()).collect();
        bases.sort_unstable();
        bases.dedup();
        bases
    }
}

/// `example.com` of `*.www.example.com`; a public suffix stands for itself.
pub fn registered_domain(name: &str) -> String {
    let name = base(name);
    psl::domain_str(name).unwrap_or(name).to_owned()
}

fn base(name: &str) -> &str {
    name.strip_prefix("*.").unwrap_or(name)
}

/// `host:port`: CAs count by what they are, not by which of their directory's paths is asked.
fn authority(server: &str) -> String {
    match Url::parse(server) {
        Ok(url) => format!(
            "{}:{}",
            url.host_str().unwrap_or_default(),
            url.port_or_known_default().unwrap_or_default()
        ),
        Err(_) => server.to_owned(),
    }
}

/// Stands for a set of names, whatever their order.
fn set(names: &[String]) -> String {
    let mut names: Vec<_> = names.iter().map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    URL_SAFE_NO_PAD.encode(digest(&SHA256, names.join(",").as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_shares_a_limit_shares_a_key() {
        let (one, other) = (
            names(&["a.example.com", "b.example.com"]),
            names(&["b.example.com", "a.example.com"]),
        );
        let one = asker("https://ca.example/directory", "https://ca.example/acct/1", &one);
        let other = asker("https://ca.example/other", "https://ca.example/acct/2", &other);

        let same = |scope: Scope| one.key(&scope) == other.key(&scope);
        assert!(same(Scope::Endpoint) && same(Scope::ExactSet));
        assert!(same(Scope::RegisteredDomain("example.com".into())));
        assert!(!same(Scope::Account) && !same(Scope::Name("a.example.com".into())));
    }

    #[test]
    fn a_new_order_is_counted_in_each_of_its_domains_once() {
        let names =
            names(&["*.a.example.co.uk", "b.example.co.uk", "example.org", "*.example.org"]);
        let asker = asker("https://ca.example", "", &names);

        assert_eq!(asker.domains(), ["example.co.uk", "example.org"]);
        assert_eq!(asker.bases(), ["a.example.co.uk", "b.example.co.uk", "example.org"]);
        assert_eq!(registered_domain("github.io"), "github.io");
    }

    #[test]
    fn a_throttle_concerns_whoever_shares_its_ca_or_account() {
        let names = names(&["www.example.com"]);
        let [here, same_ca, elsewhere] = [
            ("https://ca.example/directory", "https://ca.example/acct/1"),
            ("https://ca.example/other", "https://ca.example/acct/12"),
            ("https://ca.example.org/directory", "https://ca.example.org/acct/1"),
        ]
        .map(|(server, account)| asker(server, account, &names));
        for scope in here.scopes() {
            let why = Failure::of(crate::domain::failure::code::ACME_RATE_LIMITED, "");
            let until = time::macros::datetime!(2026-11-27 12:00 UTC);
            let id = ThrottleId::generate(until);
            let throttle = Throttle { id, key: here.key(&scope), until, why };
            assert!(throttle.concerns(here) && !throttle.concerns(elsewhere), "{scope:?}");
            let is_the_cas = !matches!(scope, Scope::Account | Scope::Name(_));
            assert_eq!(throttle.concerns(same_ca), is_the_cas, "{scope:?}");
            let counted_by = if is_the_cas { "ca.example:443" } else { here.account };
            assert_eq!(throttle.counted_by(), counted_by);
        }
    }

    fn asker<'a>(server: &'a str, account: &'a str, names: &'a [String]) -> Asker<'a> {
        Asker { server, account, names }
    }

    fn names(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }
}
