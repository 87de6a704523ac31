//! Client certificates as credentials: whom they name.

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::access_rule::Claims;
use super::id::PrincipalId;
use super::text::{Lines, refuse};

/// The names of a client certificate, and when it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The subject, DER.
    pub subject: Vec<u8>,
    pub common_names: Vec<String>,
    pub organizations: Vec<String>,
    pub organizational_units: Vec<String>,
    /// In lower case.
    pub dns_names: Vec<String>,
    /// Such as a SPIFFE ID.
    pub uris: Vec<String>,
    pub emails: Vec<String>,
    pub not_after: OffsetDateTime,
}

/// The claims that rules may name: three of the subject (RFC 4519), three of the alternative names (RFC 5280).
pub const CLAIMS: [&str; 6] = ["cn", "o", "ou", "dns", "uri", "email"];

const LONGEST_NAME: usize = 255;

impl ClientCertificate {
    /// Its names, for rules.
    pub fn claims(&self) -> Claims {
        let lists = [
            &self.common_names,
            &self.organizations,
            &self.organizational_units,
            &self.dns_names,
            &self.uris,
            &self.emails,
        ];
        let claim = |(name, list): (&str, &Vec<String>)| (name.to_owned(), json!(list));
        CLAIMS.into_iter().zip(lists).map(claim).collect::<serde_json::Map<String, Value>>()
    }

    /// The principal that it stands for, with its name: a URI, else an e-mail address, else a DNS name, else the subject.
    /// It is the same with the next certificate, so that a renewal makes nobody somebody else. `None` if nothing in it
    /// can be shown as a name.
    pub fn principal(&self) -> Option<(PrincipalId, &str)> {
        let alternative = [("uri", &self.uris), ("email", &self.emails), ("dns", &self.dns_names)];
        // The order of the names is the CA's affair.
        let found =
            alternative.into_iter().find_map(|(kind, list)| Some((kind, list.iter().min()?)));
        let (id, name) = if let Some((kind, name)) = found {
            (PrincipalId::of_client_certificate(kind, name.as_bytes()), name)
        } else {
            let id = PrincipalId::of_client_certificate("subject", &self.subject);
            (id, self.common_names.first()?)
        };
        let is_shown = (1..=LONGEST_NAME).contains(&name.len()) && refuse(name, Lines::One).is_ok();
        is_shown.then_some((id, name))
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn certificate(change: impl FnOnce(&mut ClientCertificate)) -> ClientCertificate {
        let mut certificate = ClientCertificate {
            subject: b"CN=deploy".to_vec(),
            common_names: vec!["deploy".into()],
            organizations: Vec::new(),
            organizational_units: Vec::new(),
            dns_names: vec!["b.example.org".into(), "a.example.org".into()],
            uris: vec!["spiffe://example.org/b".into(), "spiffe://example.org/a".into()],
            emails: vec!["ann@example.org".into()],
            not_after: datetime!(2026-11-24 12:00 UTC),
        };
        change(&mut certificate);
        certificate
    }

    #[test]
    fn a_certificate_stands_for_its_uri_else_its_address_else_its_dns_name_else_its_subject() {
        let name = |change: fn(&mut ClientCertificate)| {
            certificate(change).principal().map(|(_, name)| name.to_owned())
        };
        assert_eq!(name(|_| {}).as_deref(), Some("spiffe://example.org/a"));
        assert_eq!(name(|it| it.uris.clear()).as_deref(), Some("ann@example.org"));
        let dns = name(|it| {
            it.uris.clear();
            it.emails.clear();
        });
        assert_eq!(dns.as_deref(), Some("a.example.org"));
        assert_eq!(name(without_alternatives).as_deref(), Some("deploy"));
        let nameless = name(|it| {
            without_alternatives(it);
            it.common_names.clear();
        });
        assert_eq!(nameless, None);
        for strange in ["", "a\u{1b}[31m", "a\nb", &"a".repeat(256)] {
            let certificate = certificate(|it| it.uris = vec![strange.to_owned()]);
            assert_eq!(certificate.principal(), None, "{strange:?}");
        }
    }

    fn without_alternatives(certificate: &mut ClientCertificate) {
        certificate.uris.clear();
        certificate.emails.clear();
        certificate.dns_names.clear();
    }

    #[test]
    fn a_renewed_certificate_stands_for_the_same_and_another_name_for_another() {
        let id = |change: fn(&mut ClientCertificate)| certificate(change).principal().unwrap().0;
        let first = id(|_| {});

        assert_eq!(id(|it| it.uris.reverse()), first);
        assert_eq!(id(|it| it.not_after += time::Duration::days(1)), first);
        assert_eq!(id(|it| it.subject = b"CN=deploy,OU=2027".to_vec()), first);
        assert_ne!(id(|it| it.uris = vec!["spiffe://example.org/c".into()]), first);
        // The same text as a name of another kind is somebody else.
        let as_dns = id(|it| {
            without_alternatives(it);
            it.dns_names = vec!["deploy".into()];
        });
        let as_subject = id(without_alternatives);
        let of_another_organization = id(|it| {
            without_alternatives(it);
            it.subject = b"CN=deploy,O=other".to_vec();
        });
        assert_ne!(as_dns, as_subject);
        assert_ne!(as_subject, of_another_organization);
        assert_ne!(as_dns, PrincipalId::of_token("dns", "deploy"));
    }
}
