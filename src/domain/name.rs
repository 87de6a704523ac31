//! DNS names that a certificate can be for: parsed once, in one canonical form.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use thiserror::Error;

/// A name in canonical form: A-labels, lower case, no final dot, perhaps with a leading `*.`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DnsName(String);

/// Why a text is not a name that a certificate can be for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{name}` {problem}")]
pub struct InvalidName {
    /// Cut to a printable length.
    pub name: String,
    /// The problem, as the rest of a sentence.
    pub problem: &'static str,
}

impl DnsName {
    /// Parses a name as people write it: any case, U-labels, a final dot, a leading `*.`.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let refuse = |problem| InvalidName { name: shown(text), problem };
        if text.trim().is_empty() {
            return Err(refuse("is empty"));
        }
        if text.len() > 1_000 {
            return Err(refuse("is far too long: a DNS name has at most 253 characters"));
        }
        let (wildcard, rest) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        if rest.contains('*') {
            return Err(refuse("has a `*` that is not the whole first label"));
        }
        let address = "is an IP address, not a DNS name";
        if rest.contains(':') {
            return Err(refuse(address));
        }
        let ascii = idna::domain_to_ascii_cow(rest.as_bytes(), idna::AsciiDenyList::STD3).map_err(
            |_| refuse("is not a DNS name: letters, digits and hyphens, joined by dots"),
        )?;
        // Only now: there are other digits and other dots, which are mapped to these.
        let ascii = ascii.strip_suffix('.').unwrap_or(&ascii);
        if looks_like_an_address(ascii) {
            return Err(refuse(address));
        }
        check_labels(ascii).map_err(refuse)?;
        check_suffix(ascii, wildcard).map_err(refuse)?;
        let name = if wildcard { format!("*.{ascii}") } else { ascii.to_owned() };
        match name.len() {
            ..=253 => Ok(Self(name)),
            _ => Err(refuse("is longer than 253 characters")),
        }
    }

    /// The canonical text, with `*.` where it is a wildcard.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it stands for every name one label below [`DnsName::base`].
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with("*.")
    }

    /// The name without `*.`: what an authorization is for.
    pub fn base(&self) -> &str {
        self.0.strip_prefix("*.").unwrap_or(&self.0)
    }
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a name is in a zone, label by label from the right: `badexample.com` is not in `example.com`.
pub fn is_in_zone(name: &str, zone: &str) -> bool {
    let (zone, name) = (comparable(zone), comparable(name));
    let name = name.strip_prefix("*.").unwrap_or(&name);
    !zone.is_empty()
        && (name == zone || name.strip_suffix(&zone).is_some_and(|rest| rest.ends_with('.')))
}

/// A name as somebody else writes it, in the form that names are compared in: A-labels, lower case,
/// no final dot. What is no name is compared as it is, but for its case.
pub fn comparable(text: &str) -> String {
    let text = text.trim();
    // First of all: there are other digits, dots and spaces, which are mapped to these. By label: beside one that is
    // written from right to left, `*` and `_acme-challenge` are no labels for IDNA.
    let labels = text.split('.').map(|label| {
        let mapped = idna::domain_to_ascii_cow(label.as_bytes(), idna::AsciiDenyList::EMPTY);
        mapped.map_or_else(|_| label.to_lowercase(), std::borrow::Cow::into_owned)
    });
    let mapped = labels.collect::<Vec<_>>().join(".");
    let text = mapped.trim();
    // One final dot; what ends otherwise is no name.
    let ends_well = |rest: &&str| !rest.ends_with(|c: char| c == '.' || c.is_whitespace());
    let text = text.strip_suffix('.').filter(ends_well).unwrap_or(text);
    match text.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(address) => address.to_string(),
        Err(_) => text.to_owned(),
    }
}

/// The U-label form of a name; `None` if it has none that reads back as the same name.
pub fn with_u_labels(name: &str) -> Option<String> {
    let (shown, valid) = idna::domain_to_unicode(name);
    (valid.is_ok() && !shown.is_ascii() && comparable(&shown) == name).then_some(shown)
}

fn check_labels(ascii: &str) -> Result<(), &'static str> {
    for label in ascii.split('.') {
        match label.len() {
            0 => return Err("has an empty label"),
            64.. => return Err("has a label that is longer than 63 characters"),
            _ => {}
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err("has a label that begins or ends with a hyphen");
        }
        if !label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Err("is not a DNS name: letters, digits and hyphens, joined by dots");
        }
    }
    Ok(())
}

/// The part of a name under which a registry hands out names, such as `io` of `mine.github.io`: what a
/// company lists for its customers (`github.io`) does not count. `None` where there is no registry.
pub fn public_suffix(name: &str) -> Option<&str> {
    let mut rest = name;
    loop {
        let suffix = psl::suffix_str(rest)?;
        match psl::suffix(suffix.as_bytes())?.typ()? {
            psl::Type::Icann => return Some(suffix),
            psl::Type::Private => rest = suffix.split_once('.')?.1,
        }
    }
}

/// Refuses a registry's own suffix: no CA issues for it. The issuer's CA judges everything else: the
/// suffixes that companies list for their customers (`github.io`) have owners, and a private CA has names
/// of its own (`nas`, `db.internal`, and `home.arpa`, which has no registry).
fn check_suffix(ascii: &str, wildcard: bool) -> Result<(), &'static str> {
    let bare = public_suffix(ascii) == Some(ascii) && ascii.strip_suffix(".arpa").is_none();
    match (bare, wildcard) {
        (true, true) => Err("is a wildcard over a public suffix, under which anybody can register"),
        (true, false) => Err("is a public suffix, under which anybody can register"),
        (false, _) => Ok(()),
    }
}

/// IPv4 in every spelling that a URL parser would take for an address.
fn looks_like_an_address(text: &str) -> bool {
    let last = text.rsplit('.').next().unwrap_or_default();
    text.parse::<Ipv4Addr>().is_ok()
        || (!last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()))
        || (last.len() > 2
            && last.starts_with("0x")
            && last[2..].bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_brought_into_one_form() {
        for (written, canonical) in [
            ("App.Example.COM", "app.example.com"),
            ("app.example.com.", "app.example.com"),
            ("*.App.example.com", "*.app.example.com"),
            ("bücher.example.de", "xn--bcher-kva.example.de"),
            ("faß.de", "xn--fa-hia.de"),
            ("a.b.c.d.example.co.uk", "a.b.c.d.example.co.uk"),
        ] {
            assert_eq!(DnsName::parse(written).unwrap().as_str(), canonical);
        }
    }

    #[test]
    fn what_only_some_cas_issue_for_is_left_to_them() {
        for name in [
            "githubusercontent.com",
            "raw.githubusercontent.com",
            "duckdns.org",
            "pages.dev",
            "*.github.io",
            "*.mine.github.io",
            "nas",
            "*.nas",
            "localhost",
            "host.internal",
            "printer.local",
            "db.corp",
            "*.home.arpa",
            "r3---sn-apo3qvuoxuxbt-j5pe.googlevideo.com",
            "ab--cd.example.com",
            "xn--ls8h.la",
        ] {
            assert_eq!(DnsName::parse(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn names_of_others_are_compared_in_one_form() {
        for (written, compared) in [
            ("bücher.example", "xn--bcher-kva.example"),
            ("BÜCHER.Example.", "xn--bcher-kva.example"),
            ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
            ("_acme-challenge.Bücher.example", "_acme-challenge.xn--bcher-kva.example"),
            ("*.bücher.example", "*.xn--bcher-kva.example"),
            ("a_b.example.com.", "a_b.example.com"),
            ("", ""),
            (".", ""),
            ("example..", "example.."),
            ("Example。com。", "example.com"),
            ("\u{3000}example.com\u{3000}", "example.com"),
            ("2001:db8:0:0::１", "2001:db8::1"),
            ("[2001:db8::1].", "2001:db8::1"),
            ("*.192.0.2.1", "*.192.0.2.1"),
            ("xn--\u{ff}.Example", "xn--\u{ff}.example"),
        ] {
            assert_eq!(comparable(written), compared);
            assert_eq!(comparable(&comparable(written)), compared, "once is enough");
        }
    }

    #[test]
    fn names_that_mean_the_same_compare_alike() {
        for (written, canonical) in [
            ("App.Example.COM", "app.example.com"),
            ("app.example.com.", "app.example.com"),
            ("*.App.example.com.", "*.app.example.com"),
            ("bücher.example.de", "xn--bcher-kva.example.de"),
            ("XN--BCHER-KVA.example.de", "xn--bcher-kva.example.de"),
            ("_dmarc.Example.com", "_dmarc.example.com"),
            ("2001:DB8:0::1", "2001:db8::1"),
            ("192.0.2.1", "192.0.2.1"),
            ("NAS", "nas"),
            ("A B", "a b"),
            ("*.م.cc", "*.xn--hhb.cc"),
            ("_acme-challenge.م.cc", "_acme-challenge.xn--hhb.cc"),
        ] {
            assert_eq!(comparable(written), canonical);
        }
    }

    #[test]
    fn a_registry_is_found_above_what_companies_list() {
        for (name, suffix) in [
            ("raw.githubusercontent.com", Some("com")),
            ("mine.github.io", Some("io")),
            ("a.b.example.co.uk", Some("co.uk")),
            ("co.uk", Some("co.uk")),
            ("s3.dualstack.eu-west-1.amazonaws.com", Some("com")),
            ("host.internal", None),
            ("nas", None),
        ] {
            assert_eq!(public_suffix(name), suffix, "{name}");
        }
    }

    #[test]
    fn a_name_has_up_to_253_characters_and_a_final_dot() {
        let label = "a".repeat(63);
        let longest = [label.as_str(), &label, &label, &label[..61]].join(".");

        assert_eq!(longest.len(), 253);
        assert_eq!(DnsName::parse(&format!("{longest}.")).unwrap().as_str(), longest);
        assert!(DnsName::parse(&format!("{longest}a")).is_err());
        assert!(DnsName::parse(&format!("*.{longest}")).is_err());
        assert!(DnsName::parse(&format!("*.{}", &longest[2..])).is_ok());
    }

    #[test]
    fn only_what_has_u_labels_is_shown_otherwise() {
        let shown = with_u_labels("_acme-challenge.xn--bcher-kva.example");
        assert_eq!(shown.as_deref(), Some("_acme-challenge.bücher.example"));
        assert_eq!(with_u_labels("plain.example"), None);
        assert_eq!(with_u_labels("xn--a.example"), None, "no valid A-label");
        let encoded_twice = "xn--xn--b----brdk";
        assert_eq!(with_u_labels(encoded_twice), None, "its U-label is another name's A-label");
    }

    #[test]
    fn what_no_certificate_can_be_for_is_refused_with_the_reason() {
        for (written, reason) in [
            ("", "empty"),
            ("   ", "empty"),
            ("a..example.com", "is not a DNS name"),
            ("-a.example.com", "is not a DNS name"),
            ("a_b.example.com", "letters, digits"),
            ("a b.example.com", "letters, digits"),
            ("a.*.example.com", "`*`"),
            ("*a.example.com", "`*`"),
            ("**.example.com", "`*`"),
            ("*", "`*`"),
            ("192.0.2.1", "IP address"),
            ("192.0.2.1.", "IP address"),
            ("2130706433", "IP address"),
            ("0x7f.0x1", "IP address"),
            ("[2001:db8::1]", "IP address"),
            ("2001:db8::1", "IP address"),
            ("com", "public suffix"),
            ("COM.", "public suffix"),
            ("*.com", "public suffix"),
            ("*.co.uk", "public suffix"),
            ("xn--p1ai", "public suffix"),
            ("рф", "public suffix"),
            ("*.foo.ck", "public suffix"),
            ("１９２.０.２.１", "IP address"),
            ("192。0。2。1", "IP address"),
            ("app.example.com..", "empty label"),
            ("xn--a.example.com", "is not a DNS name"),
            ("co.uk", "public suffix"),
            ("*.co.uk", "public suffix"),
            ("https://example.com", "IP address"),
            ("example.com/path", "letters, digits"),
        ] {
            let refused = DnsName::parse(written).unwrap_err().to_string();
            let fits = refused.contains(reason)
                || (reason == "is not a DNS name" && refused.contains("label"));
            assert!(fits, "{written:?} → {refused}");
        }
        let long_label = format!("{}.example.com", "a".repeat(64));
        assert!(DnsName::parse(&long_label).is_err());
        let long_name = format!("{}example.com", "abcdefgh.".repeat(30));
        assert!(DnsName::parse(&long_name).is_err());
    }
}
