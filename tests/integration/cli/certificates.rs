//! Certificates at the command line: issued, looked at, downloaded, revoked.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::databases;
use crate::support::person::Person;
use crate::support::process::output;
use crate::support::site::Site;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::too_many_lines, reason = "one story, on one installation")]
async fn a_person_gets_by_with_the_client_alone() {
    let (_folder, url) = databases::sqlite_url();
    let site = Site::on(&url).await;
    let person = Person::of(&site);

    // Issuing, with files at the end.
    let wanted = [
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
    let issued = person.run(&wanted).succeeded();
    assert!(
        issued.out.contains("certificate/a.example.com created")
            && issued.out.contains("certificate/b.example.com ready"),
        "{issued:?}"
    );
    assert!(!issued.err.contains('\u{1b}'), "no spinner where there is no terminal: {issued:?}");
    let file = |name: &str| person.path("tls").join("a.example.com").join(name);
    let (chain, key) = (
        fs::read_to_string(file("fullchain.pem")).unwrap(),
        fs::read_to_string(file("privkey.pem")).unwrap(),
    );
    crate::issuance::assert_key_signs_for(&key, &chain);
    assert_eq!(fs::metadata(file("privkey.pem")).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(person.run(&wanted).succeeded().out.contains("certificate/a.example.com unchanged"));
    let downloaded = person.run(&["download", "a.example.com", "--format", "cert"]).succeeded();
    assert!(chain.starts_with(&downloaded.out) && !downloaded.out.is_empty(), "{downloaded:?}");

    // Reading.
    let shown = person.run(&["inspect", file("fullchain.pem").to_str().unwrap()]).succeeded();
    for part in [
        "Certificate:\n",
        "Names:",
        "a.example.com",
        "ECDSA P-256",
        "days left",
        "SHA-256:",
        "\nChain:\n",
    ] {
        assert!(shown.out.contains(part), "{part}: {shown:?}");
    }
    let pebble = site.pebble.directory_url();
    let shown = person.run(&["inspect", &pebble, "--server-name", "localhost"]).succeeded();
    assert!(shown.out.contains("localhost, 127.0.0.1"), "{shown:?}");
    let listed: Value =
        serde_json::from_str(&person.run(&["get", "certs", "-o", "json"]).succeeded().out).unwrap();
    assert_eq!((&listed["kind"], listed["items"].as_array().unwrap().len()), (&json!("List"), 2));
    let names = person.run(&["get", "certificates", "-o", "name"]).succeeded().out;
    assert_eq!(
        names,
        "certificate.cert-manager.io/a.example.com\ncertificate.cert-manager.io/b.example.com\n"
    );
    assert!(
        person
            .run(&["get", "cert", "a.example.com", "-o", "yaml"])
            .succeeded()
            .out
            .contains("dnsNames:\n- a.example.com\n")
    );
    assert!(
        person
            .run(&["logs", "cert/a.example.com"])
            .succeeded()
            .out
            .contains("The certificate has been successfully issued")
    );
    assert!(
        person.run(&["get", "events"]).succeeded().out.starts_with("LAST SEEN   TYPE     REASON")
    );
    let nothing = person.run(&["get", "issuers", "-n", "elsewhere"]).succeeded();
    assert_eq!(
        (&*nothing.out, &*nothing.err),
        ("", "No resources found in elsewhere namespace.\n")
    );

    // Export and import into another installation: nothing is issued anew.
    let orders = site.pebble.orders_created();
    let imported = person.run(&["import", "tls", "--issuer", "dns", "-n", "moved"]).succeeded();
    assert!(
        imported.out.contains("certificate.cert-manager.io/a.example.com created"),
        "{imported:?}"
    );
    let listed = person.run(&["get", "certs", "-n", "moved", "--no-headers"]).succeeded();
    assert_eq!(listed.out.matches(" True ").count(), 2, "{listed:?}");
    assert_eq!(person.run(&["download", "a.example.com", "-n", "moved"]).succeeded().out, chain);
    assert_eq!(site.pebble.orders_created(), orders);
    assert!(
        person
            .run(&["status", "certificate", "a.example.com", "-n", "moved"])
            .succeeded()
            .out
            .contains("Name: a.example.com-1")
    );

    // Keys and secrets.
    let made = person
        .run(&[
            "keys",
            "create",
            "reader",
            "--permission",
            "certificates:read",
            "--in-namespace",
            "moved",
        ])
        .succeeded();
    let reader = Person { key: made.out.trim().to_owned(), ..Person::of(&site) };
    assert_eq!(
        reader.run(&["get", "certs", "-A", "-o", "name"]).succeeded().out.lines().count(),
        2
    );
    assert_eq!(reader.run(&["renew", "a.example.com", "-n", "moved"]).code, Some(5), "it may not");
    let more = reader.run(&["keys", "create", "more", "--permission", "*"]);
    assert_eq!(more.code, Some(5), "{more:?}");
    assert!(person.run(&["keys", "list"]).succeeded().out.contains("reader"));
    person.run(&["keys", "delete", "reader"]).succeeded();
    assert_eq!(reader.run(&["get", "certs"]).code, Some(5), "it is gone");
    fs::write(person.path("token"), "hunter2\n").unwrap();
    for word in ["created", "configured"] {
        let stored = person
            .run(&["secrets", "create", "mine", "--from-file", "api-token=token"])
            .succeeded();
        assert_eq!(stored.out, format!("secret/mine {word}\n"));
    }
    assert!(person.run(&["secrets", "list"]).succeeded().out.contains("api-token"));
    person.run(&["secrets", "delete", "mine"]).succeeded();
    let deleted = person.run(&["delete", "cert/b.example.com"]).succeeded();
    assert_eq!(deleted.out, "certificate.cert-manager.io \"b.example.com\" deleted\n");

    // Diagnosis.
    let looked = person.run_with(&["doctor"], &site.environment()).succeeded();
    for part in [
        "settings: can be used",
        "database: sqlite, schema version",
        "master key: opens",
        "ClusterIssuer dns: https://127.0.0.1",
        "its account is registered",
        "the token is valid and sees example.com",
    ] {
        assert!(looked.out.contains(part), "{part}: {looked:?}");
    }
    assert!(!looked.out.contains("fail"), "{looked:?}");
    let wrong = [("CERTWRIGHT_DATA_DIR".to_owned(), person.path("nothing").display().to_string())];
    let looked = person.run_with(&["doctor"], &wrong);
    assert_eq!(looked.code, Some(1), "{looked:?}");
    assert!(
        looked.out.contains("fail  database") && looked.out.contains("certwright migrate"),
        "{looked:?}"
    );
    assert!(!person.path("nothing").exists(), "looking makes nothing");
}

/// Downloads in every format, and deletion.
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
