//! Key and chain in every form that servers want, opened by the programs that will open them.

use std::process::Command;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};

use super::{assert_key_signs_for, assert_ready, download};
use crate::support::nginx::Nginx;
use crate::support::process::{output, output_with};
use crate::support::site::{Site, on_each_site};

const PASSWORD: &str = "correct horse";

on_each_site! {
    async fn every_form_is_opened_by_the_programs_that_use_it(site: Site) {
        for (name, key) in [
            ("ec.example.com", json!({"algorithm": "ECDSA", "size": 384})),
            ("rsa.example.com", json!({"algorithm": "RSA", "size": 2048})),
        ] {
            let more = json!({"privateKey": key});
            let issued = site.ask_for("dns", &[name], &more, 60).await.expect_status(202);
            assert_ready(&issued);

            let leaf = download(&site, &issued, "cert.pem").await;
            let der = bytes(&site, &issued, "cert.der", None).await;
            assert_eq!(CertificateDer::from_pem_slice(leaf.as_bytes()).unwrap().as_ref(), der);
            openssl(&["x509", "-inform", "DER", "-noout", "-subject"], &der);
            let combined = download(&site, &issued, "combined.pem").await;
            assert_key_signs_for(&combined, &combined);
            for profile in ["modern", "legacy"] {
                opens_as_pkcs12(&site, &issued, profile).await;
            }
            opens_as_jks(&site, &issued).await;
        }
    }

    async fn what_holds_a_key_is_recorded_and_kept_by_no_cache(site: Site) {
        let issued = site.issue("dns", &["audit.example.com"]).await;
        for (file, password) in
            [("combined.pem", None), ("keystore.p12", Some(PASSWORD)), ("keystore.jks", Some(PASSWORD))]
        {
            let answer = site.file(&path(&issued, file), password).await;
            assert_eq!((answer.status().as_u16(), &answer.headers()["cache-control"]), (200, &"no-store".parse().unwrap()));
        }
        let events = site.get("/events?limit=500").await.body;
        let exported: Vec<_> = events["items"].as_array().unwrap().iter()
            .filter(|event| event["reason"] == "PrivateKeyExported")
            .map(|event| event["message"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(exported.len(), 3, "{exported:?}");
        for what in ["private key and chain", "PKCS #12", "Java keystore"] {
            assert!(exported.iter().any(|message| message.contains(what)), "{what}: {exported:?}");
        }
        assert!(!events.to_string().contains(PASSWORD));
    }

    async fn a_keystore_without_a_usable_password_is_refused(site: Site) {
        let issued = site.issue("dns", &["word.example.com"]).await;
        for password in [None, Some(""), Some("short")] {
            for file in ["keystore.p12", "keystore.jks"] {
                let answer = site.file(&path(&issued, file), password).await;
                assert_eq!(answer.status().as_u16(), 400, "{file} {password:?}");
                assert!(answer.text().await.unwrap().contains("X-Keystore-Password"));
            }
        }
        let odd = site.file(&path(&issued, "keystore.p12?profile=odd"), Some(PASSWORD)).await;
        assert_eq!(odd.status().as_u16(), 400);
    }

    async fn a_parameter_of_another_form_is_refused(site: Site) {
        let issued = site.issue("dns", &["profile.example.com"]).await;
        for file in ["keystore.jks", "combined.pem", "privkey.pem", "fullchain.pem", "cert.der"] {
            let file = format!("{file}?profile=modern");
            let answer = site.file(&path(&issued, &file), Some(PASSWORD)).await;
            assert_eq!(answer.status().as_u16(), 400, "{file}");
            assert!(answer.text().await.unwrap().contains("profile"), "{file}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_web_server_serves_what_was_downloaded() {
    let (_folder, url) = crate::support::databases::sqlite_url();
    let site = Site::on(&url).await;
    let issued = site.issue("dns", &["served.example.com"]).await;
    let nginx = Nginx::with_certificate(&download(&site, &issued, "combined.pem").await).await;

    let root = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(root.path(), site.pebble.root_pem().await).unwrap();
    let port = nginx.address().port();
    let seen = output(
        Command::new("curl")
            .args(["-sS", "-o", "/dev/null", "-w", "%{http_code} %{ssl_verify_result}", "--cacert"])
            .arg(root.path())
            .args(["--resolve", &format!("served.example.com:{port}:127.0.0.1")])
            .arg(format!("https://served.example.com:{port}/")),
    );

    let said = String::from_utf8_lossy(&seen.stderr).into_owned();
    assert_eq!(String::from_utf8_lossy(&seen.stdout), "404 0", "{said}");
}

async fn opens_as_pkcs12(site: &Site, issued: &Value, profile: &str) {
    let file = format!("keystore.p12?profile={profile}");
    let store = bytes(site, issued, &file, Some(PASSWORD)).await;
    let pass = format!("pass:{PASSWORD}");
    let legacy: &[&str] = if profile == "legacy" { &["-legacy"] } else { &[] };
    let about = [&["pkcs12", "-info", "-nokeys", "-nocerts", "-passin", &pass], legacy].concat();
    let about = String::from_utf8(openssl(&about, &store)).unwrap();
    let cipher =
        if profile == "legacy" { "pbeWithSHA1And3-KeyTripleDES-CBC" } else { "AES-256-CBC" };
    assert!(about.contains(cipher), "{profile}: {about}");
    let all = [&["pkcs12", "-nodes", "-passin", &pass], legacy].concat();
    let opened = String::from_utf8(openssl(&all, &store)).unwrap();
    assert_key_signs_for(&opened, &opened);
    assert!(opened.matches("BEGIN CERTIFICATE").count() >= 2, "with its chain");

    let listed = keytool(&store, "PKCS12");
    let name = issued["name"].as_str().unwrap();
    assert!(listed.contains(&format!("Alias name: {name}")), "{listed}");
    assert!(listed.contains("PrivateKeyEntry") && listed.contains("chain length: 2"), "{listed}");
}

async fn opens_as_jks(site: &Site, issued: &Value) {
    let store = bytes(site, issued, "keystore.jks", Some(PASSWORD)).await;
    let listed = keytool(&store, "JKS");
    let name = issued["name"].as_str().unwrap();
    assert!(listed.contains(&format!("Alias name: {name}")), "{listed}");
    assert!(listed.contains("PrivateKeyEntry") && listed.contains("chain length: 2"), "{listed}");

    // The key itself: Java takes it over into a format that openssl opens.
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from.jks"), folder.path().join("to.p12"));
    std::fs::write(&from, &store).unwrap();
    let done = output(
        Command::new("keytool")
            .args([
                "-importkeystore",
                "-noprompt",
                "-srcstoretype",
                "JKS",
                "-deststoretype",
                "PKCS12",
            ])
            .args(["-srcstorepass", PASSWORD, "-deststorepass", PASSWORD, "-srckeystore"])
            .arg(&from)
            .arg("-destkeystore")
            .arg(&to),
    );
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
    let pass = format!("pass:{PASSWORD}");
    let opened = openssl(&["pkcs12", "-nodes", "-passin", &pass], &std::fs::read(to).unwrap());
    let opened = String::from_utf8(opened).unwrap();
    assert_key_signs_for(&opened, &opened);
}

fn path(certificate: &Value, file: &str) -> String {
    format!("/certificates/{}/{file}", certificate["id"].as_str().unwrap())
}

async fn bytes(site: &Site, certificate: &Value, file: &str, password: Option<&str>) -> Vec<u8> {
    let answer = site.file(&path(certificate, file), password).await;
    assert_eq!(answer.status().as_u16(), 200, "{file}");
    answer.bytes().await.unwrap().to_vec()
}

/// What openssl says about `input`; both of its outputs, since `-info` uses the other.
fn openssl(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let output = output_with(Command::new("openssl").args(arguments), input);
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&said));
    said
}

fn keytool(store: &[u8], kind: &str) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), store).unwrap();
    let listed = output(
        Command::new("keytool")
            .args([
                "-J-Duser.language=en",
                "-list",
                "-v",
                "-storetype",
                kind,
                "-storepass",
                PASSWORD,
            ])
            .arg("-keystore")
            .arg(file.path()),
    );
    let text =
        String::from_utf8_lossy(&listed.stdout).replace("Certificate chain length", "chain length");
    assert!(listed.status.success(), "{text}");
    text
}
