//! Certificates at the command line: issued, looked at, downloaded, revoked.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::databases;
use crate::support::person::Person;
use crate::support::process::output;
use crate::support::site::Site;

/// The command for two certificates, with files at the end.
const ISSUE: &[&str] = &[
    "issue",
    "a.example.com",
    "b.example.com",
    "--issuer",
    "dns",
    "--wait",
    "--timeout",
    "60s",
    "--out",
    "tls",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_issued_is_written_into_files() {
    let (_folder, url) = databases::sqlite_url();
    let site = Site::on(&url).await;
    let person = Person::of(&site);

    let issued = person.run(ISSUE).succeeded();

    issued.says_all(&["certificate/a.example.com created", "certificate/b.example.com ready"]);
    assert!(!issued.err.contains('\u{1b}'), "no spinner where there is no terminal: {issued:?}");
    let file = |name: &str| person.path("tls").join("a.example.com").join(name);
    let (chain, key) = (
        fs::read_to_string(file("fullchain.pem")).unwrap(),
        fs::read_to_string(file("privkey.pem")).unwrap(),
    );
    crate::issuance::assert_key_signs_for(&key, &chain);
    assert_eq!(fs::metadata(file("privkey.pem")).unwrap().permissions().mode() & 0o777, 0o600);
    person.run(ISSUE).succeeded().says_all(&["certificate/a.example.com unchanged"]);
    let downloaded = person.run(&["download", "a.example.com", "--format", "cert"]).succeeded();
    assert!(chain.starts_with(&downloaded.out) && !downloaded.out.is_empty(), "{downloaded:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_in_files_and_of_servers_are_inspected() {
    let (_folder, url) = databases::sqlite_url();
    let site = Site::on(&url).await;
    let person = Person::of(&site);
    person.run(ISSUE).succeeded();

    person.run(&["inspect", "tls/a.example.com/fullchain.pem"]).succeeded().says_all(&[
        "Certificate:\n",
        "Names:",
        "a.example.com",
        "ECDSA P-256",
        "days left",
        "SHA-256:",
        "\nChain:\n",
    ]);
    let pebble = site.pebble.directory_url();
    let shown = person.run(&["inspect", &pebble, "--server-name", "localhost"]).succeeded();
    shown.says_all(&["localhost, 127.0.0.1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_and_events_are_read_in_every_form() {
    let (_folder, url) = databases::sqlite_url();
    let site = Site::on(&url).await;
    let person = Person::of(&site);
    for name in ["a.example.com", "b.example.com"] {
        site.issue("dns", &[name]).await;
    }

    let listed: Value =
        serde_json::from_str(&person.run(&["get", "certs", "-o", "json"]).succeeded().out).unwrap();
    assert_eq!((&listed["kind"], listed["items"].as_array().unwrap().len()), (&json!("List"), 2));
    let names = person.run(&["get", "certificates", "-o", "name"]).succeeded().out;
    assert_eq!(
        names,
        "certificate.cert-manager.io/a.example.com\ncertificate.cert-manager.io/b.example.com\n"
    );
    let yaml = person.run(&["get", "cert", "a.example.com", "-o", "yaml"]).succeeded();
    yaml.says_all(&["  dnsNames:\n  - a.example.com\n"]);
    let logged = person.run(&["logs", "cert/a.example.com"]).succeeded();
    logged.says_all(&["The certificate has been successfully issued"]);
    let events = person.run(&["get", "events"]).succeeded();
    assert!(events.out.starts_with("LAST SEEN   TYPE     REASON"), "{events:?}");
    let nothing = person.run(&["get", "issuers", "-n", "elsewhere"]).succeeded();
    assert_eq!(
        (&*nothing.out, &*nothing.err),
        ("", "No resources found in elsewhere namespace.\n")
    );
    let deleted = person.run(&["delete", "cert/b.example.com"]).succeeded();
    assert_eq!(deleted.out, "certificate.cert-manager.io \"b.example.com\" deleted\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_in_files_are_imported_and_not_issued_anew() {
    let (_folder, url) = databases::sqlite_url();
    let site = Site::on(&url).await;
    let person = Person::of(&site);
    person.run(ISSUE).succeeded();
    let chain = fs::read_to_string(person.path("tls/a.example.com/fullchain.pem")).unwrap();
    let orders = site.pebble.orders_created();

    let imported = person.run(&["import", "tls", "--issuer", "dns", "-n", "moved"]).succeeded();

    imported.says_all(&["certificate.cert-manager.io/a.example.com created"]);
    let listed = person.run(&["get", "certs", "-n", "moved", "--no-headers"]).succeeded();
    assert_eq!(listed.out.matches(" True ").count(), 2, "{listed:?}");
    assert_eq!(person.run(&["download", "a.example.com", "-n", "moved"]).succeeded().out, chain);
    assert_eq!(site.pebble.orders_created(), orders);
    let status = person.run(&["status", "certificate", "a.example.com", "-n", "moved"]);
    status.succeeded().says_all(&["Name: a.example.com-1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_issued_is_downloaded_in_every_form_and_revoked() {
    let (_folder, url) = databases::sqlite_url();
    let site = Site::on(&url).await;
    let person = Person::of(&site);
    let issued = site.issue("dns", &["kept.example.com"]).await;
    let serial = issued["status"]["serialNumber"].as_str().unwrap().to_lowercase();

    person
        .run(&["download", "kept.example.com", "--format", "combined", "-o", "all.pem"])
        .succeeded();
    let all = fs::read_to_string(person.path("all.pem")).unwrap();
    let (key, chain) = all.split_at(all.find("-----BEGIN CERTIFICATE").unwrap());
    crate::issuance::assert_key_signs_for(key, chain);
    let mode = |file: &str| fs::metadata(person.path(file)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("all.pem"), 0o600);
    person.run(&["download", "kept.example.com", "--format", "der", "-o", "cert.der"]).succeeded();
    assert_eq!(fs::read(person.path("cert.der")).unwrap()[0], 0x30);

    let keystore = ["download", "kept.example.com", "--format", "p12", "-o", "all.p12"];
    let refused = person.run(&keystore);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.err.contains("--password-file"), "{refused:?}");
    fs::write(person.path("password"), "correct horse\n").unwrap();
    person.run(&[&keystore[..], &["--password-file", "password"]].concat()).succeeded();
    assert_eq!(mode("all.p12"), 0o600);
    let opened = output(
        Command::new("openssl")
            .args(["pkcs12", "-nodes", "-passin", "pass:correct horse", "-in"])
            .arg(person.path("all.p12")),
    );
    let opened = String::from_utf8(opened.stdout).unwrap();
    assert!(opened.contains("PRIVATE KEY") && opened.contains("kept.example.com"), "{opened}");

    let revoked = person
        .run(&["revoke", "kept.example.com", "--reason", "superseded", "--revision", "1"])
        .succeeded();
    assert_eq!(revoked.out, "certificate/kept.example.com is being revoked\n");
    site.until("/certificates?name=kept.example.com", |found| {
        let status = &found["items"][0]["status"];
        status["revocation"]["revokedAt"].is_string() && status["revision"] == 2
    })
    .await;
    assert_eq!(site.pebble.status_of(&serial).await["Status"], "Revoked");
    assert!(person.run(&["logs", "cert/kept.example.com"]).succeeded().out.contains("  Revoked  "));
}
