//! CSRs, certificate chains and private keys that somebody sends, as PEM or as the DER that PEM would wrap.

use time::OffsetDateTime;
use time::macros::datetime;

use super::chain::Chain;
use super::{
    adopt, certificates, chain_pem, import_account_key, import_key, is_account_key, look, make_csr,
    public_key, public_key_of_certificate, read_csr, to_pem, topmost_issuer,
};
use crate::secret::Secret;

/// The moment at which certificates are judged.
const NOW: OffsetDateTime = datetime!(2026-12-01 0:00 UTC);

/// `subjectAltName` (2.5.29.17) in DER.
const SUBJECT_ALT_NAME: [u8; 5] = [0x06, 0x03, 0x55, 0x1d, 0x11];
const OCTET_STRING: u8 = 0x04;
const SEQUENCE: u8 = 0x30;

pub(crate) fn csr(bytes: &[u8]) {
    let csr = match read_csr(&text_of(bytes, "CERTIFICATE REQUEST")) {
        Ok(csr) => csr,
        Err(refusal) => return is_sentence(&refusal),
    };
    assert_eq!(read_csr(&csr.pem).as_ref(), Ok(&csr), "what is written anew reads back the same");
    let dns = csr.dns_names.iter().map(|name| (0x82, name.as_bytes().to_vec()));
    let ip = csr.ip_addresses.iter().map(|address| match address {
        std::net::IpAddr::V4(address) => (0x87, address.octets().to_vec()),
        std::net::IpAddr::V6(address) => (0x87, address.octets().to_vec()),
    });
    let mut expected: Vec<_> = dns.chain(ip).collect();
    expected.sort();
    let named = general_names(&csr.der);
    assert!(named.contains(&expected), "it names what it does not say: {expected:?} {named:?}");
    let key = &csr.public_key;
    assert!(csr.der.windows(key.len()).any(|part| part == key.as_slice()), "another key");
    if let Some(common) = &csr.common_name {
        let is_named = csr.dns_names.iter().any(|name| name.eq_ignore_ascii_case(common))
            || common.parse().is_ok_and(|address| csr.ip_addresses.contains(&address));
        assert!(is_named, "a common name beside the names: {common}");
    }
}

/// What stands in each `subjectAltName`, read without the library: tags with contents, sorted.
fn general_names(der: &[u8]) -> Vec<Vec<(u8, Vec<u8>)>> {
    let length = SUBJECT_ALT_NAME.len();
    let places = der.windows(length).enumerate().filter(|(_, part)| *part == SUBJECT_ALT_NAME);
    places.filter_map(|(place, _)| names_after(der.get(place + length..)?)).collect()
}

fn names_after(der: &[u8]) -> Option<Vec<(u8, Vec<u8>)>> {
    // Whether it is critical stands before it, or nothing does.
    let (first, rest) = element(der)?;
    let value = if first.0 == OCTET_STRING { first } else { element(rest)?.0 };
    let (list, after) = element(value.1)?;
    let mut rest = (list.0 == SEQUENCE && after.is_empty()).then_some(list.1)?;
    let mut names = Vec::new();
    while !rest.is_empty() {
        let ((tag, content), after) = element(rest)?;
        names.push((tag, content.to_vec()));
        rest = after;
    }
    names.sort();
    Some(names)
}

/// Tag and content.
type Element<'a> = (u8, &'a [u8]);

/// The first element, and what comes after it.
fn element(der: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match *first {
        short @ ..0x80 => (usize::from(short), rest),
        long => {
            let (digits, rest) = rest.split_at_checked(usize::from(long - 0x80).min(4))?;
            (digits.iter().fold(0, |length, digit| (length << 8) | usize::from(*digit)), rest)
        }
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some(((*tag, content), rest))
}

/// A chain, and after a NUL its key; or one text that is tried as both.
pub(crate) fn pem(bytes: &[u8]) {
    let place = bytes.iter().position(|byte| *byte == 0).filter(|_| bytes.starts_with(b"-----"));
    let (chain, key) = match place {
        Some(place) => (bytes.get(..place), bytes.get(place + 1..)),
        None => (Some(bytes), Some(bytes)),
    };
    let chain = text_of(chain.unwrap_or_default(), "CERTIFICATE");
    let key = text_of(key.unwrap_or_default(), "PRIVATE KEY");
    is_chain(&chain);
    is_key(&key);
    if let Ok(adopted) = adopt(&chain, &key, NOW) {
        let again = read_csr(&to_pem("CERTIFICATE REQUEST", &adopted.csr));
        if let Ok(again) = again {
            let addresses = again.ip_addresses.iter().map(ToString::to_string);
            let mut asked: Vec<String> = again.dns_names.into_iter().chain(addresses).collect();
            let mut names = adopted.names.clone();
            asked.sort();
            names.sort();
            assert_eq!(asked, names, "the renewal asks for the same names");
        }
        assert!(adopt(&adopted.chain, &key, NOW).is_ok_and(|again| again.leaf == adopted.leaf));
    }
}

fn is_chain(text: &str) {
    let Ok(ders) = certificates(text) else { return };
    let again = certificates(&chain_pem(&ders));
    assert!(again.is_ok_and(|again| again == ders), "what is written reads back the same");
    // For people, who may look at anything.
    for der in &ders {
        drop(look(der));
    }
    drop(topmost_issuer(text));
    for key in ders.iter().filter_map(|der| public_key_of_certificate(der).ok()) {
        match Chain::read(text, &key) {
            Ok(chain) => {
                assert!((1..=10).contains(&chain.ders.len()), "{}", chain.ders.len());
                let again = Chain::read(&chain.pem(), &key);
                assert!(again.is_ok_and(|again| again.ders == chain.ders && !again.sorted));
            }
            Err(refusal) => is_sentence(&refusal.to_string()),
        }
    }
}

fn is_key(text: &str) {
    let account_key = import_account_key(text);
    let Ok(key) = import_key(text) else {
        assert!(account_key.is_err(), "an account key is a key");
        return;
    };
    assert_eq!(account_key.is_ok(), is_account_key(&key));
    let again = import_key(&to_pem("PRIVATE KEY", key.expose()));
    assert!(again.is_ok_and(|again| again.expose() == key.expose()), "it reads back the same");
    has_one_public_key(&key);
}

fn has_one_public_key(key: &Secret<Vec<u8>>) {
    let Ok(csr) = make_csr(key, &["a.example.com".to_owned()], None) else { return };
    match read_csr(&to_pem("CERTIFICATE REQUEST", &csr)) {
        Ok(csr) => assert!(public_key(key).is_ok_and(|key| key == csr.public_key)),
        // Of a size that is not taken from clients.
        Err(refusal) => assert!(refusal.contains(" key"), "{refusal}"),
    }
}

fn text_of(bytes: &[u8], label: &str) -> String {
    if bytes.starts_with(b"-----") {
        String::from_utf8_lossy(bytes).into_owned()
    } else {
        to_pem(label, bytes)
    }
}

/// Short, and without what breaks a line or hides words.
fn is_sentence(words: &str) {
    assert!((1..5_000).contains(&words.chars().count()), "{words}");
    assert!(!words.contains(char::is_control), "{words:?}");
}
