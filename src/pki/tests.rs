//! Keys, and what a CA may send and what becomes of it.

use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PublicKeyData as _, SanType,
};
use time::macros::datetime;
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::X509CertificationRequest;

use super::chain::{Chain, parse};
use super::signature::{Kind, kind};
use super::*;

const NOW: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);
const NAMES: [&str; 2] = ["a.example.com", "*.a.example.com"];

/// A CA of the tests' own.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn root(name: &str) -> Self {
        let (params, key) = (ca(name), KeyPair::generate().unwrap());
        let pem = lines(&params.self_signed(&key).unwrap().pem());
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn below(&self, name: &str) -> Self {
        let (params, key) = (ca(name), KeyPair::generate().unwrap());
        let pem = lines(&params.signed_by(&key, &self.issuer).unwrap().pem());
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn issue(&self, key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> String {
        let mut params = server(&NAMES);
        change(&mut params);
        lines(&params.signed_by(key, &self.issuer).unwrap().pem())
    }
}

fn ca(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

fn server(names: &[&str]) -> CertificateParams {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, "leaf");
    params.not_before = NOW - Duration::hours(1);
    params.not_after = NOW + Duration::days(90);
    params
}

fn lines(pem: &str) -> String {
    pem.replace("\r\n", "\n")
}

fn asked(key: &KeyPair) -> Vec<u8> {
    make_csr(&Secret::new(key.serialize_der()), &NAMES.map(str::to_owned), None).unwrap()
}

/// Root, intermediate, a key, and the key's certificate.
fn issued() -> (Authority, Authority, KeyPair, String) {
    let root = Authority::root("root");
    let (middle, key) = (root.below("middle"), KeyPair::generate().unwrap());
    let leaf = middle.issue(&key, |_| {});
    (root, middle, key, leaf)
}

#[test]
fn every_kind_of_key_makes_a_csr_and_is_recognised_again() {
    let kinds = [KeyKind::P256, KeyKind::P384, KeyKind::Rsa2048, KeyKind::Rsa3072];
    for kind in kinds {
        let key = generate_key(kind).unwrap();
        let csr = make_csr(&key, &NAMES.map(str::to_owned), Some("a.example.com")).unwrap();

        let (_, parsed) = X509CertificationRequest::from_der(&csr).unwrap();
        parsed.verify_signature().unwrap();
        assert_eq!(kinds.map(|other| fits(&key, other)), kinds.map(|other| other == kind));
    }
}

#[test]
fn an_account_key_comes_in_either_form_and_no_other_kind() {
    let key = generate_key(KeyKind::P256).unwrap();
    let pem = key_pair(&key).unwrap().serialize_pem();
    assert_eq!(import_account_key(&pem).unwrap().expose(), key.expose());
    // openssl ecparam -name prime256v1 -genkey -noout
    let sec1 = "-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIFz/EFiltzgTBCrBFVAbPDKupRyf+NIDghmZp7hVt2O5oAoGCCqGSM49
AwEHoUQDQgAExpEvJPXJDjt2E17MI2dpzt9EbzPIlh2jm6hCysesnn4wnj+58XER
LLC0GT7kSnbEVHAOuT8zorHoawifeHSjaQ==
-----END EC PRIVATE KEY-----
";
    import_account_key(sec1).unwrap();

    for (kind, why) in [(KeyKind::P384, "P-256"), (KeyKind::Rsa2048, "RSA")] {
        let pem = key_pair(&generate_key(kind).unwrap()).unwrap().serialize_pem();
        assert!(import_account_key(&pem).unwrap_err().contains(why));
    }
    assert!(import_account_key("secret").is_err());
}

#[test]
fn a_chain_has_one_form_however_it_was_wrapped() {
    let (root, middle, key, leaf) = issued();
    let csr = asked(&key);
    let plain = [&*leaf, &*middle.pem, &*root.pem].concat();

    for text in [
        plain.clone(),
        plain.replace('\n', "\r\n"),
        plain.trim_end().to_owned(),
        [&*leaf, "\n\n", &*middle.pem, " \n", &*root.pem].concat(),
        plain.replace("BEGIN CERT", "BEGIN X509 CERT").replace("END CERT", "END X509 CERT"),
    ] {
        let read = check_chain(&text, &csr, NOW).unwrap();
        assert_eq!((read.chain.as_str(), read.sorted), (plain.as_str(), false));
        assert_eq!(read.leaf.not_after, NOW + Duration::days(90));
        assert_eq!((read.leaf.fingerprint.len(), read.extra), (64, vec![]));
    }
    assert_eq!(check_chain(&leaf, &csr, NOW).unwrap().chain, leaf, "without its issuer");
}

#[test]
fn what_comes_out_of_order_or_twice_is_put_in_order() {
    let (root, middle, key, leaf) = issued();
    let csr = asked(&key);
    let plain = [&*leaf, &*middle.pem, &*root.pem].concat();

    for pems in [
        vec![&root.pem, &middle.pem, &leaf],
        vec![&middle.pem, &root.pem, &leaf],
        vec![&leaf, &root.pem, &middle.pem],
        vec![&leaf, &leaf, &middle.pem, &root.pem],
        vec![&leaf, &middle.pem, &root.pem, &leaf],
    ] {
        let text: String = pems.into_iter().map(String::as_str).collect();
        let read = check_chain(&text, &csr, NOW).unwrap();
        assert_eq!((read.chain.as_str(), read.sorted), (plain.as_str(), true));
    }
}

#[test]
fn each_kind_of_mismatch_has_its_own_answer() {
    let (root, middle, key, leaf) = issued();
    let (csr, other) = (asked(&key), Authority::root("stranger"));
    let chain = |leaf: &str| [leaf, &middle.pem].concat();
    let dated = |from: OffsetDateTime, until: OffsetDateTime| {
        chain(&middle.issue(&key, |params| {
            (params.not_before, params.not_after) = (from, until);
        }))
    };
    let secret = lines(&key.serialize_pem());
    let stranger = KeyPair::generate().unwrap();
    let no_ca = root.issue(&stranger, |_| {});
    let by_no_ca = {
        let issuer = Issuer::new(server(&NAMES), stranger);
        lines(&server(&NAMES).signed_by(&key, &issuer).unwrap().pem())
    };
    let nonsense = to_pem("CERTIFICATE", b"nonsense");
    let long = [leaf.clone(), middle.pem.repeat(10)].concat();

    for (text, code) in [
        ([&*leaf, &*middle.pem, &*secret].concat(), "private key"),
        ([&*secret, &*leaf, &*middle.pem].concat(), "private key"),
        (format!("{leaf}<html>busy</html>\n{}", middle.pem), "outside"),
        (format!("subject=CN=a\n{leaf}"), "outside"),
        (format!("{leaf}{}", to_pem("X509 CRL", b"crl")), "another kind"),
        (format!("{leaf}{nonsense}"), "no X.509 certificate, at place 2"),
        (nonsense, "no X.509 certificate, at place 1"),
        (leaf.replace('M', "!"), "not base64"),
        (leaf.replace("-----END CERTIFICATE-----", ""), "without an end"),
        (String::new(), "no certificate"),
        (long, "more than 10"),
        (" ".repeat(200_000), "longer than 128 KiB"),
        ([&*leaf, &*other.pem].concat(), "`CN=stranger` did not sign `CN=leaf`"),
        ([&*leaf, &*root.pem].concat(), "`CN=root` did not sign `CN=leaf`"),
        ([&*leaf, &*middle.pem, &*other.pem].concat(), "`CN=stranger` did not sign `CN=middle`"),
        ([&*by_no_ca, &*no_ca].concat(), "is no CA"),
        (chain(&middle.issue(&KeyPair::generate().unwrap(), |_| {})), "another key"),
        (other.pem.clone(), "another key"),
        (
            chain(&middle.issue(&key, |params| *params = server(&NAMES[..1]))),
            "lacks *.a.example.com",
        ),
        (chain(&middle.issue(&key, |params| *params = server(&[]))), "it is for no name"),
        (
            chain(&middle.issue(&key, |params| {
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            })),
            "of a CA",
        ),
        (dated(NOW - Duration::days(9), NOW - Duration::days(1)), "ended at"),
        (dated(NOW + Duration::days(2), NOW + Duration::days(9)), "begins only at"),
        (dated(NOW, datetime!(9999-12-31 23:59:59 UTC)), "longer than ten years"),
        (dated(NOW - Duration::days(4_000), NOW + Duration::days(9)), "longer than ten years"),
    ] {
        let refused = check_chain(&text, &csr, NOW).unwrap_err().to_string();
        assert!(refused.contains(code), "{code}: {refused}");
    }
}

#[test]
fn names_that_a_ca_adds_are_told_and_not_refused() {
    let (_, middle, key, _) = issued();
    let generous = middle.issue(&key, |params| {
        params.subject_alt_names.push(SanType::DnsName("www.example.com".try_into().unwrap()));
        params.subject_alt_names.push(SanType::IpAddress("192.0.2.1".parse().unwrap()));
    });

    let read = check_chain(&[&*generous, &*middle.pem].concat(), &asked(&key), NOW).unwrap();

    assert_eq!(read.extra, ["www.example.com", "192.0.2.1"]);
}

#[test]
fn what_a_ca_calls_itself_is_shown_clean_and_short() {
    let (_, _, key, leaf) = issued();
    let odd = format!("\u{1b}[31m\u{202e}{}", "evil".repeat(500));
    let refused = check_chain(&[&*leaf, &*Authority::root(&odd).pem].concat(), &asked(&key), NOW);

    let words = refused.unwrap_err().to_string();
    assert!(words.contains("evil") && words.len() < 300, "{words}");
    assert!(!words.contains(['\u{1b}', '\u{202e}']), "{words}");
    let many: Vec<_> = (0..500).map(|n| format!("{n}.example.com")).collect();
    assert!(list(&many).ends_with("9.example.com and 490 more"));
}

#[test]
fn what_is_imported_goes_by_the_same_checks() {
    let (_, middle, key, leaf) = issued();
    let (secret, chain) = (key.serialize_pem(), [&*leaf, &*middle.pem].concat());

    let adopted = adopt(&[&*middle.pem, &*leaf].concat().replace('\n', "\r\n"), &secret, NOW);
    assert_eq!(adopted.unwrap().chain, chain);
    for (text, why) in [
        (format!("{chain}{secret}"), "private key"),
        (format!("{chain}<html>"), "outside"),
        ([&*leaf, &*Authority::root("stranger").pem].concat(), "did not sign"),
        (
            chain.replace(&*leaf, &middle.issue(&key, |params| params.is_ca = ca("").is_ca)),
            "of a CA",
        ),
        (
            middle.issue(&key, |params| {
                params.subject_alt_names.push(SanType::URI("spiffe://a".try_into().unwrap()));
            }),
            "other things",
        ),
    ] {
        let refused = adopt(&text, &secret, NOW).unwrap_err().to_string();
        assert!(refused.contains(why), "{why}: {refused}");
    }
}

/// What may happen to a text on its way.
#[derive(Debug, Clone)]
enum Damage {
    Replace(prop::sample::Index, char),
    Insert(prop::sample::Index, String),
    Remove(prop::sample::Index),
    CutAfter(prop::sample::Index),
    RepeatLine(prop::sample::Index),
    SwapLines(prop::sample::Index, prop::sample::Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    use prop::sample::Index;
    let some = any::<Index>;
    let text = prop_oneof![
        "[\r\n\t ]{1,3}",
        "[A-Za-z0-9+/=-]{1,3}",
        "\\PC{1,3}",
        Just("-----BEGIN CERTIFICATE-----\n".to_owned()),
        Just("-----END CERTIFICATE-----\n".to_owned()),
    ];
    prop_oneof![
        (some(), prop_oneof!["[A-Za-z0-9+/=-]", "[ \n\r]", "\\PC"])
            .prop_map(|(at, text)| Damage::Replace(at, text.chars().next().unwrap_or('x'))),
        (some(), text).prop_map(|(at, text)| Damage::Insert(at, text)),
        some().prop_map(Damage::Remove),
        some().prop_map(Damage::CutAfter),
        some().prop_map(Damage::RepeatLine),
        (some(), some()).prop_map(|(one, other)| Damage::SwapLines(one, other)),
    ]
}

fn damaged(text: &str, how: &Damage) -> String {
    if text.is_empty() {
        return String::new();
    }
    let mut chars: Vec<char> = text.chars().collect();
    let length = chars.len();
    let mut by_line: Vec<&str> = text.split_inclusive('\n').collect();
    match how {
        Damage::Replace(at, with) => chars[at.index(length)] = *with,
        Damage::Insert(at, more) => {
            let at = at.index(length);
            chars.splice(at..at, more.chars());
        }
        Damage::Remove(at) => drop(chars.remove(at.index(length))),
        Damage::CutAfter(at) => chars.truncate(at.index(length)),
        Damage::RepeatLine(at) => {
            let at = at.index(by_line.len());
            by_line.insert(at, by_line[at]);
            return by_line.concat();
        }
        Damage::SwapLines(one, other) => {
            let (one, other) = (one.index(by_line.len()), other.index(by_line.len()));
            by_line.swap(one, other);
            return by_line.concat();
        }
    }
    chars.into_iter().collect()
}

fn is_of_a_known_kind(certificate: &[u8]) -> bool {
    !matches!(kind(parse(certificate).unwrap().public_key()), Kind::OtherCurve | Kind::Other)
}

/// What stands beside the signature is signed by nobody, and a parser that takes another tag there would keep it.
#[test]
fn an_algorithm_beside_the_signature_that_is_not_the_signed_one_is_refused() {
    const ECDSA_WITH_SHA256: [u8; 12] = [48, 10, 6, 8, 42, 134, 72, 206, 61, 4, 3, 2];
    let (_, middle, key, leaf) = issued();
    let mut der = certificates(&leaf).unwrap().remove(0);
    let found = der.windows(ECDSA_WITH_SHA256.len()).rposition(|at| at == ECDSA_WITH_SHA256);
    der[found.unwrap() + 2] = 7;

    let chain = [&*to_pem("CERTIFICATE", &der), &*middle.pem].concat();

    assert!(Chain::read(&chain, &key.subject_public_key_info()).is_err());
}

/// Either it is refused, or it is the same, or a beginning of it. Only what nobody in the chain has signed,
/// its topmost certificate, may have changed, but for its key; and that only to one of a kind that is not
/// known here, and by which nothing can be checked.
#[test]
fn a_damaged_chain_is_refused_or_the_same() {
    let (root, middle, key, leaf) = issued();
    let spki = key.subject_public_key_info();
    let plain = [&*leaf, &*middle.pem, &*root.pem].concat();
    let original = Chain::read(&plain, &spki).unwrap().ders;

    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(3_000) };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let result = runner.run(&prop::collection::vec(damage(), 1..3), |all| {
        let text = all.iter().fold(plain.clone(), |text, how| damaged(&text, how));
        if let Ok(read) = Chain::read(&text, &spki) {
            let top = read.ders.len() - 1;
            prop_assert_eq!(&read.ders[..top], &original[..top]);
            let key = |der: &[u8]| public_key_of_certificate(der).unwrap();
            if is_of_a_known_kind(&read.ders[top]) {
                prop_assert_eq!(key(&read.ders[top]), key(&original[top]));
            }
            let again = Chain::read(&read.pem(), &spki).unwrap();
            prop_assert_eq!((again.pem(), again.sorted), (read.pem(), false));
        }
        Ok(())
    });
    result.unwrap();
}
