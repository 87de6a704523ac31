//! The rules by which the claims of a credential become a role and namespaces. The claims of a client certificate are
//! its names ([`super::client_certificate`]).

use serde_json::{Map, Value};

use super::role::Role;
use super::scope::{Scope, is_namespace};

/// What a credential says about its bearer (RFC 7519, section 4).
pub type Claims = Map<String, Value>;

/// What the bearer of certain claims is granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Claims and globs: each claim has to match.
    pub claims: Vec<(String, String)>,
    pub role: Role,
    pub namespaces: Namespaces,
}

/// Where a rule grants its role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Namespaces {
    All,
    These(Vec<String>),
    /// Those that this claim names: one, or an array of them.
    Claim(String),
    /// Those that stand in this claim, one of the rule's, in the place of [`PLACEHOLDER`].
    Part(String),
}

/// Stands for the name of a namespace in a glob.
pub const PLACEHOLDER: &str = "{namespace}";

/// Namespaces that are taken from one claim at most.
const MOST_NAMESPACES: usize = 100;

/// What the rules grant; `None` if none of them matches.
///
/// The first rule that matches chooses the role, so that nobody gets one that was meant for another namespace;
/// further rules of the same role add namespaces.
pub fn grant(rules: &[Rule], claims: &Claims) -> Option<(Role, Scope)> {
    let mut matching = rules.iter().filter_map(|rule| Some((rule.role, rule.scope(claims)?)));
    let (role, mut scope) = matching.next()?;
    for (_, more) in matching.filter(|(other, _)| *other == role) {
        scope = match (scope, more) {
            (Scope::Namespaces(mut names), Scope::Namespaces(more)) => {
                names.extend(more);
                Scope::Namespaces(names)
            }
            _ => Scope::Everything,
        };
    }
    if let Scope::Namespaces(names) = &mut scope {
        names.sort_unstable();
        names.dedup();
    }
    Some((role, scope))
}

impl Rule {
    /// The claims that it looks at.
    pub fn claim_names(&self) -> impl Iterator<Item = &str> {
        let named = match &self.namespaces {
            Namespaces::Claim(claim) | Namespaces::Part(claim) => Some(claim.as_str()),
            Namespaces::All | Namespaces::These(_) => None,
        };
        self.claims.iter().map(|(name, _)| name.as_str()).chain(named)
    }

    /// The namespaces that it grants; `None` if it does not match, or the claims name none.
    fn scope(&self, claims: &Claims) -> Option<Scope> {
        // A rule without claims would let everybody in.
        if self.claims.is_empty() || !self.claims.iter().all(|claim| is_met(claim, claims)) {
            return None;
        }
        let mut names: Vec<String> = match &self.namespaces {
            Namespaces::All => return Some(Scope::Everything),
            Namespaces::These(names) => return Some(Scope::Namespaces(names.clone())),
            Namespaces::Claim(claim) => texts(claims, claim),
            Namespaces::Part(claim) => self.parts(claim, claims),
        };
        names.retain(|name| is_namespace(name));
        names.truncate(MOST_NAMESPACES);
        (!names.is_empty()).then_some(Scope::Namespaces(names))
    }

    fn parts(&self, claim: &str, claims: &Claims) -> Vec<String> {
        let glob = self.claims.iter().find(|(name, _)| name == claim).map(|(_, glob)| glob);
        let part = |text: &String| part(glob?, text).map(str::to_owned);
        texts(claims, claim).iter().filter_map(part).collect()
    }
}

fn is_met((name, glob): &(String, String), claims: &Claims) -> bool {
    let has_part = glob.contains(PLACEHOLDER);
    texts(claims, name)
        .iter()
        .any(|text| if has_part { part(glob, text).is_some() } else { matches(glob, text) })
}

/// The namespace that stands in a text in the place of the placeholder.
fn part<'t>(glob: &str, text: &'t str) -> Option<&'t str> {
    let (before, after) = glob.split_once(PLACEHOLDER)?;
    let rest = text.strip_prefix(before)?;
    // What follows it in the glob is no character of a namespace, so that there is one way only to read the text.
    let (namespace, rest) = rest.split_at(rest.find(is_not_in_namespaces).unwrap_or(rest.len()));
    (is_namespace(namespace) && matches(after, rest)).then_some(namespace)
}

/// Why a glob with a placeholder could be read in two ways, or none; `Ok` where it cannot.
pub fn check_placeholder(glob: &str) -> Result<(), &'static str> {
    let Some((before, after)) = glob.split_once(PLACEHOLDER) else { return Ok(()) };
    if after.contains(PLACEHOLDER) {
        return Err("`{namespace}` stands there twice");
    }
    if before.contains('*') {
        return Err(
            "no `*` may stand before `{namespace}`: whoever chooses what it stands for would choose the namespace",
        );
    }
    if after.chars().next().is_some_and(|next| next == '*' || !is_not_in_namespaces(next)) {
        return Err(
            "`{namespace}` has to be followed by the end or a character that no namespace has, such as `/`, `:` or `.`",
        );
    }
    Ok(())
}

fn is_not_in_namespaces(c: char) -> bool {
    !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

/// The values of a claim as texts: of an array each entry. A name that begins with `/` is a JSON pointer (RFC 6901)
/// into the claims.
fn texts(claims: &Claims, name: &str) -> Vec<String> {
    let found = match name.strip_prefix('/') {
        None => claims.get(name),
        Some(path) => {
            let (first, rest) = path.split_once('/').map_or((path, None), |(a, b)| (a, Some(b)));
            let outer = claims.get(&first.replace("~1", "/").replace("~0", "~"));
            match rest {
                None => outer,
                Some(rest) => outer.and_then(|outer| outer.pointer(&format!("/{rest}"))),
            }
        }
    };
    match found {
        Some(Value::Array(entries)) => entries.iter().filter_map(text).collect(),
        Some(value) => text(value).into_iter().collect(),
        None => Vec::new(),
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Whether a text matches a glob, in which `*` stands for any characters, or none.
fn matches(glob: &str, text: &str) -> bool {
    let mut parts = glob.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        // The earliest place leaves most for what comes after it.
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_star_stands_for_any_characters_and_nothing_else_is_special() {
        for (glob, text, expected) in [
            ("repo:org/*", "repo:org/web:ref:refs/heads/main", true),
            ("repo:org/*", "repo:org/", true),
            ("repo:org/*", "repo:organisation/web", false),
            ("repo:org/*", "xrepo:org/web", false),
            ("repo:org/*:ref:refs/heads/main", "repo:org/web:ref:refs/heads/main", true),
            ("repo:org/*:ref:refs/heads/main", "repo:org/web:ref:refs/heads/mainly", false),
            ("exact", "exact", true),
            ("exact", "exactly", false),
            ("", "", true),
            ("", "x", false),
            ("*", "", true),
            ("a*b*a", "aba", true),
            ("a*a", "a", false),
            ("a*bc*c", "abc", false),
            ("a*bc*c", "abcc", true),
            ("**", "x", true),
            ("a.c", "abc", false),
            ("[ab]", "a", false),
            ("a?", "ab", false),
            ("Exact", "exact", false),
        ] {
            assert_eq!(matches(glob, text), expected, "{glob} {text}");
        }
    }

    fn rule(claims: &[(&str, &str)], role: Role, namespaces: Namespaces) -> Rule {
        let own = |(name, glob): &(&str, &str)| ((*name).to_owned(), (*glob).to_owned());
        Rule { claims: claims.iter().map(own).collect(), role, namespaces }
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn granted(rules: &[Rule], claims: Value) -> Option<(Role, Scope)> {
        let Value::Object(claims) = claims else { panic!("claims are an object") };
        grant(rules, &claims)
    }

    #[test]
    fn every_claim_of_a_rule_has_to_match() {
        let rules = [rule(
            &[
                ("repository_owner", "org"),
                ("ref", "refs/heads/*"),
                ("groups", "team-*"),
                ("run", "7"),
                ("ok", "true"),
            ],
            Role::Requester,
            Namespaces::These(names(&["web"])),
        )];
        let all = json!({"repository_owner": "org", "ref": "refs/heads/main", "groups": ["x", "team-a"], "run": 7, "ok": true});
        let expected = (Role::Requester, Scope::Namespaces(names(&["web"])));
        assert_eq!(granted(&rules, all.clone()), Some(expected));

        for (claim, other) in [
            ("repository_owner", json!("other")),
            ("ref", json!("refs/tags/v1")),
            ("groups", json!(["teams"])),
            ("groups", json!([["team-a"]])),
            ("groups", json!({"team-a": "team-a"})),
            ("run", json!(null)),
            ("ok", json!("True")),
        ] {
            let mut claims = all.clone();
            claims[claim] = other.clone();
            assert_eq!(granted(&rules, claims.clone()), None, "{claim} {other}");
            claims.as_object_mut().unwrap().remove(claim);
            assert_eq!(granted(&rules, claims), None, "without {claim}");
        }
        assert_eq!(
            granted(&[rule(&[], Role::Admin, Namespaces::All)], all),
            None,
            "a rule without claims"
        );
    }

    #[test]
    fn a_namespace_is_taken_from_a_claim_and_only_if_it_can_be_one() {
        let rules = [rule(
            &[("sub", "*")],
            Role::Requester,
            Namespaces::Claim("/kubernetes.io/namespace".into()),
        )];
        let claims =
            |namespace: Value| json!({"sub": "a", "kubernetes.io": {"namespace": namespace}});

        for (named, expected) in [
            (json!("team-a"), Some(names(&["team-a"]))),
            (json!(["b", "a", "b", "*", "", "A", "x/y"]), Some(names(&["a", "b"]))),
            (json!("*"), None),
            (json!(""), None),
            (json!("../other"), None),
            (json!(null), None),
            (json!([]), None),
            (json!({"a": "b"}), None),
        ] {
            let expected = expected.map(|names| (Role::Requester, Scope::Namespaces(names)));
            assert_eq!(granted(&rules, claims(named.clone())), expected, "{named}");
        }
        assert_eq!(granted(&rules, json!({"sub": "a"})), None);
    }

    #[test]
    fn a_namespace_is_taken_from_a_part_of_a_claim_and_there_is_one_way_to_read_it() {
        const SPIFFE: &str = "spiffe://example.org/ns/{namespace}/sa/*";
        for (glob, text, expected) in [
            (SPIFFE, "spiffe://example.org/ns/a/sa/deploy", Some("a")),
            (SPIFFE, "spiffe://example.org/ns/team-a/sa/", Some("team-a")),
            (SPIFFE, "spiffe://example.org/ns//sa/deploy", None),
            (SPIFFE, "spiffe://example.org/ns/a/b/sa/deploy", None),
            (SPIFFE, "spiffe://example.org/ns/A/sa/deploy", None),
            (SPIFFE, "spiffe://example.org/ns/-a/sa/deploy", None),
            (SPIFFE, "spiffe://example.org/ns/*/sa/deploy", None),
            (SPIFFE, "spiffe://example.org/ns/a%2fb/sa/deploy", None),
            (SPIFFE, "spiffe://example.org/ns/{namespace}/sa/deploy", None),
            (SPIFFE, "spiffe://example.org.evil/ns/a/sa/deploy", None),
            (SPIFFE, "xspiffe://example.org/ns/a/sa/deploy", None),
            ("deploy.{namespace}.example.org", "deploy.a.example.org", Some("a")),
            ("deploy.{namespace}.example.org", "deploy.a.b.example.org", None),
            ("{namespace}", "a", Some("a")),
            ("{namespace}", "a.", None),
            ("{namespace}", "", None),
        ] {
            let rules = [rule(&[("uri", glob)], Role::Requester, Namespaces::Part("uri".into()))];
            let expected =
                expected.map(|name| (Role::Requester, Scope::Namespaces(names(&[name]))));
            assert_eq!(granted(&rules, json!({"uri": [text]})), expected, "{glob} {text}");
        }

        let rules = [rule(&[("uri", SPIFFE)], Role::Requester, Namespaces::Part("uri".into()))];
        let of = |name: &str| format!("spiffe://example.org/ns/{name}/sa/x");
        let several = json!({"uri": [of("b"), "spiffe://other/ns/c/sa/x", of("a"), of("B")]});
        let both = Scope::Namespaces(names(&["a", "b"]));
        assert_eq!(granted(&rules, several), Some((Role::Requester, both)));
    }

    #[test]
    fn a_glob_that_leaves_the_choice_of_the_namespace_to_others_is_refused() {
        for (glob, words) in [
            ("spiffe://*/ns/{namespace}/sa/x", "no `*` may stand before"),
            ("{namespace}-ci", "followed by"),
            ("{namespace}*", "followed by"),
            ("{namespace}{namespace}", "twice"),
            ("{namespace}/{namespace}", "twice"),
        ] {
            assert!(check_placeholder(glob).unwrap_err().contains(words), "{glob}");
        }
        for glob in [
            "*",
            "a*b",
            "{namespace}",
            "spiffe://a/ns/{namespace}/sa/*",
            "{namespace}_x",
            "{namespace}:*",
        ] {
            assert_eq!(check_placeholder(glob), Ok(()), "{glob}");
        }
    }

    #[test]
    fn the_first_rule_that_matches_chooses_the_role_and_others_of_that_role_add_namespaces() {
        let these = |all: &[&str]| Namespaces::These(names(all));
        let rules = [
            rule(&[("groups", "a")], Role::Requester, these(&["a"])),
            rule(&[("groups", "root")], Role::Admin, Namespaces::All),
            rule(&[("groups", "b")], Role::Requester, these(&["b", "a"])),
            rule(&[("groups", "everywhere")], Role::Requester, Namespaces::All),
        ];
        let of = |groups: &[&str]| granted(&rules, json!({"groups": groups}));

        let both = Scope::Namespaces(names(&["a", "b"]));
        assert_eq!(of(&["a", "b"]), Some((Role::Requester, both.clone())));
        assert_eq!(of(&["b", "root", "a"]), Some((Role::Requester, both)), "no admin of `a`");
        assert_eq!(of(&["root", "b"]), Some((Role::Admin, Scope::Everything)));
        assert_eq!(of(&["a", "everywhere"]), Some((Role::Requester, Scope::Everything)));
        assert_eq!(of(&["other"]), None);
    }

    #[test]
    fn names_of_claims_may_hold_dots_and_slashes() {
        let claims = json!({"https://example.com/groups": ["a"], "a/b": {"c~d": ["x"]}, "realm_access": {"roles": ["admin"]}});
        for (name, glob) in [
            ("https://example.com/groups", "a"),
            ("/a~1b/c~0d", "x"),
            ("/realm_access/roles", "admin"),
            ("/realm_access/roles/0", "admin"),
        ] {
            let rules = [rule(&[(name, glob)], Role::Reader, Namespaces::All)];
            assert!(granted(&rules, claims.clone()).is_some(), "{name}");
        }
    }
}
