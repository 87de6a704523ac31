//! Keys and signatures as openssl and keytool make them.

use std::path::Path;
use std::process::Command;

use certwright::pki::{self, Unusable};

use crate::support::process::output;

/// Each usual key, as `openssl genpkey` is asked for it.
const CURVES: [&str; 3] = ["P-256", "P-384", "P-521"];
const DIGESTS: [&str; 3] = ["sha256", "sha384", "sha512"];
const PSS: [&str; 4] = ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"];

#[test]
fn a_csr_is_checked_whatever_key_and_digest_it_has() {
    let folder = tempfile::tempdir().unwrap();
    for (key, extra) in keys_and_ways() {
        make_key(folder.path(), "key.pem", &key);
        for digest in digests(&key) {
            let csr = csr(folder.path(), &[&digest[..], &extra].concat());

            let read =
                pki::read_csr(&csr).unwrap_or_else(|why| panic!("{key:?} {digest:?}: it {why}"));
            assert_eq!(read.dns_names, ["a.example.com"]);
            let refused = pki::read_csr(&forged(&csr, &read.der)).unwrap_err();
            assert!(refused.contains("own key"), "{key:?} {digest:?}: {refused}");
        }
    }
}

#[test]
fn a_key_in_compressed_form_is_checked_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    make_key(folder.path(), "key.pem", &ec("P-256"));
    openssl(
        folder.path(),
        &["ec", "-in", "key.pem", "-conv_form", "compressed", "-out", "key.pem"],
    );
    let csr = csr(folder.path(), &[]);

    let read = pki::read_csr(&csr).unwrap();

    assert!(pki::read_csr(&forged(&csr, &read.der)).unwrap_err().contains("own key"));
}

#[test]
fn a_chain_is_checked_whatever_keys_and_digests_it_has() {
    let folder = tempfile::tempdir().unwrap();
    make_key(folder.path(), "key.pem", &ec("P-256"));
    let csr = pki::read_csr(&csr(folder.path(), &[])).unwrap().der;
    for (key, extra) in keys_and_ways() {
        make_key(folder.path(), "ca.key", &key);
        for digest in digests(&key) {
            let chain = |ca: &str| {
                root(folder.path(), ca);
                let leaf = sign(folder.path(), ca, &[&digest[..], &extra].concat());
                [
                    leaf,
                    std::fs::read_to_string(folder.path().join(ca).with_extension("pem")).unwrap(),
                ]
            };
            let [leaf, ca] = chain("ca.key");
            let now = certwright::clock::Clock::now(&certwright::clock::SystemClock);
            let issued = pki::check_chain(&[&*leaf, &*ca].concat(), &csr, now);
            assert_eq!(issued.unwrap().chain, [&*leaf, &*ca].concat(), "{key:?} {digest:?}");

            // Another CA of the same name and kind.
            make_key(folder.path(), "other.key", &key);
            root(folder.path(), "other.key");
            let other = std::fs::read_to_string(folder.path().join("other.pem")).unwrap();
            let refused = pki::check_chain(&[leaf, other].concat(), &csr, now).unwrap_err();
            assert!(matches!(refused, Unusable::Unsigned { .. }), "{key:?} {digest:?}: {refused}");
        }
    }
}

#[test]
fn what_no_ca_takes_is_refused_at_once_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let rsa = |bits: &str| words(&["RSA", "-pkeyopt", &format!("rsa_keygen_bits:{bits}")]);
    let exponent =
        words(&["RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-pkeyopt", "rsa_keygen_pubexp:3"]);
    for (key, how, why) in [
        (ec("P-256"), vec!["-sha1"], "SHA-1 or MD5"),
        (rsa("2048"), vec!["-sha1"], "SHA-1 or MD5"),
        (rsa("2048"), vec!["-md5"], "SHA-1 or MD5"),
        (rsa("1024"), vec!["-sha256"], "1024 bits"),
        (rsa("2047"), vec!["-sha256"], "2047 bits"),
        (exponent, vec!["-sha256"], "exponent"),
        (ec("secp256k1"), vec!["-sha256"], "another curve"),
        (ec("brainpoolP256r1"), vec!["-sha256"], "another curve"),
        (words(&["ED448"]), vec![], "kind that CAs do not take"),
        (
            words(&["RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048"]),
            vec![],
            "kind that CAs do not take",
        ),
    ] {
        make_key(folder.path(), "key.pem", &key);
        let how: Vec<_> = how.into_iter().map(str::to_owned).collect();
        let refused = pki::read_csr(&csr(folder.path(), &how)).unwrap_err();
        assert!(refused.contains(why), "{key:?}: {refused}");
    }
}

#[test]
fn what_cannot_be_checked_here_is_not_called_wrong() {
    let folder = tempfile::tempdir().unwrap();
    make_key(folder.path(), "key.pem", &words(&["RSA", "-pkeyopt", "rsa_keygen_bits:2048"]));
    for how in [
        &["-sha224"][..],
        &["-sha3-256"],
        &["-sha256", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:max"],
        &["-sha256", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:20"],
    ] {
        pki::read_csr(&csr(folder.path(), &words(how)))
            .unwrap_or_else(|why| panic!("{how:?}: {why}"));
    }
}

#[test]
fn a_csr_of_keytool_is_taken_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store.p12").display().to_string();
    let common = ["-storepass", "changeit", "-keystore", &store, "-alias", "web"];
    for (kind, length) in [("EC", ["-groupname", "secp384r1"]), ("RSA", ["-keysize", "3072"])] {
        let name = ["-genkeypair", "-dname", "CN=a.example.com", "-keyalg", kind];
        keytool(&[&name[..], &length, &common].concat());
        let text = keytool(&[&["-certreq", "-ext", "san=dns:a.example.com"], &common[..]].concat());
        assert!(text.starts_with("-----BEGIN NEW CERTIFICATE REQUEST-----"), "{text}");

        let read = pki::read_csr(&text).unwrap();

        assert!(read.pem.starts_with("-----BEGIN CERTIFICATE REQUEST-----\n"), "{}", read.pem);
        assert_eq!(read.common_name.as_deref(), Some("a.example.com"));
        keytool(&[&["-delete"], &common[..]].concat());
    }
}

/// Kinds of keys, each with the ways in which it signs.
fn keys_and_ways() -> Vec<(Vec<String>, Vec<String>)> {
    let rsa = words(&["RSA", "-pkeyopt", "rsa_keygen_bits:2048"]);
    let mut all: Vec<_> = CURVES.iter().map(|curve| (ec(curve), vec![])).collect();
    all.extend([(rsa.clone(), vec![]), (rsa, words(&PSS)), (words(&["ED25519"]), vec![])]);
    all
}

fn digests(key: &[String]) -> Vec<Vec<String>> {
    // Ed25519 brings its own.
    if key[0] == "ED25519" {
        return vec![vec![]];
    }
    DIGESTS.iter().map(|digest| vec![format!("-{digest}")]).collect()
}

fn ec(curve: &str) -> Vec<String> {
    words(&[
        "EC",
        "-pkeyopt",
        &format!("ec_paramgen_curve:{curve}"),
        "-pkeyopt",
        "ec_param_enc:named_curve",
    ])
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn make_key(folder: &Path, file: &str, kind: &[String]) {
    let kind: Vec<_> = kind.iter().map(String::as_str).collect();
    openssl(folder, &[&["genpkey", "-out", file, "-algorithm"], &kind[..]].concat());
}

/// A CSR for `a.example.com` by `key.pem`.
fn csr(folder: &Path, how: &[String]) -> String {
    let how: Vec<_> = how.iter().map(String::as_str).collect();
    let asked = ["req", "-new", "-key", "key.pem", "-subj", "/CN=a.example.com"];
    let names = ["-addext", "subjectAltName=DNS:a.example.com"];
    openssl(folder, &[&asked[..], &names, &how].concat())
}

/// A root by a key; its certificate stands beside it.
fn root(folder: &Path, key: &str) {
    let out = Path::new(key).with_extension("pem").display().to_string();
    openssl(folder, &["req", "-x509", "-new", "-key", key, "-subj", "/CN=root", "-out", &out]);
}

/// A certificate for `a.example.com` and `key.pem`, by a root's key.
fn sign(folder: &Path, ca: &str, how: &[String]) -> String {
    let certificate = Path::new(ca).with_extension("pem").display().to_string();
    openssl(
        folder,
        &["req", "-new", "-key", "key.pem", "-subj", "/CN=a.example.com", "-out", "leaf.csr"],
    );
    std::fs::write(folder.join("names"), "subjectAltName=DNS:a.example.com").unwrap();
    let how: Vec<_> = how.iter().map(String::as_str).collect();
    let by = ["x509", "-req", "-in", "leaf.csr", "-CA", &certificate, "-CAkey", ca, "-days", "90"];
    openssl(folder, &[&by[..], &["-extfile", "names"], &how].concat())
}

/// The same with names that were not signed.
fn forged(csr: &str, der: &[u8]) -> String {
    let place = der.windows(13).rposition(|bytes| bytes == b"a.example.com").unwrap();
    let mut der = der.to_vec();
    der[place] = b'b';
    let label = csr.lines().next().unwrap().trim_matches('-').replacen("BEGIN ", "", 1);
    pki::to_pem(&label, &der)
}

fn openssl(folder: &Path, arguments: &[&str]) -> String {
    said(Command::new("openssl").args(arguments).current_dir(folder))
}

fn keytool(arguments: &[&str]) -> String {
    said(Command::new("keytool").args(arguments))
}

fn said(command: &mut Command) -> String {
    let output = output(command);
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
