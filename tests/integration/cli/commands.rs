//! The client's commands: the real binary against a whole installation.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::nginx::Nginx;
use crate::support::pebble::PebbleOptions;
use crate::support::person::Person;
use crate::support::process::output;
use crate::support::receiver::{Receiver, Reply};
use crate::support::site::{Site, SiteOptions};
use crate::support::{ClosedPort, databases, free_port};

const COMMANDS: [&str; 24] = [
    "serve",
    "migrate",
    "config",
    "doctor",
    "openapi",
    "apply",
    "export",
    "import",
    "get",
    "describe",
    "status",
    "issue",
    "renew",
    "download",
    "revoke",
    "delete",
    "logs",
    "inspect",
    "issuers",
    "keys",
    "secrets",
    "webhooks",
    "completion",
    "status certificate",
];

/// All commands for manifests, from apply to delete.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::too_many_lines, reason = "one story, on one installation")]
async fn manifests_that_people_have_are_applied_issued_and_looked_at() {
    let responder = std::net::SocketAddr::from(([127, 0, 0, 1], free_port()));
    let nginx = Nginx::start(responder).await;
    let (_folder, url) = databases::sqlite_url();
    let pebble = PebbleOptions { nonce_reject: 5, ..Default::default() };
    let site =
        Site::with(&url, SiteOptions { pebble, http01_port: nginx.address().port(), responder })
            .await;
    let person = Person::of(&site);
    let folder = person.path("manifests");
    fs::create_dir(&folder).unwrap();
    for file in ["certificates.yaml", "clusterissuer-http01.yaml", "issuer-cloudflare.yaml"] {
        fs::write(folder.join(file), here(&site, file)).unwrap();
    }

    let tried = person.run(&["apply", "-f", "manifests", "--dry-run"]).succeeded();
    assert!(tried.out.contains("certificate.cert-manager.io/www created (dry run)"), "{tried:?}");
    let applied = person.run(&["apply", "-f", "manifests"]).succeeded();
    let lines = [
        "certificate.cert-manager.io/www created",
        "certificate.cert-manager.io/wildcard created",
        "clusterissuer.cert-manager.io/letsencrypt-staging created",
        "secret/cloudflare-api-token-secret created",
        "issuer.cert-manager.io/example-issuer created",
    ];
    assert_eq!(applied.out.lines().collect::<Vec<_>>(), lines, "{applied:?}");
    assert!(
        applied.err.contains("warning: certificate.cert-manager.io/wildcard: spec.keystores: "),
        "{applied:?}"
    );
    let again = person.run(&["apply", "-f", "manifests", "--quiet"]).succeeded();
    assert_eq!((again.out.matches(" unchanged\n").count(), &*again.err), (5, ""), "{again:?}");

    for name in ["www", "wildcard"] {
        let path = format!("/certificates?name={name}");
        site.until(&path, |found| found["items"][0]["status"]["phase"] == "Ready").await;
    }
    let again = person.run(&["apply", "-f", "manifests", "--quiet"]).succeeded();
    assert_eq!(again.out.matches(" unchanged\n").count(), 5, "also once it is issued: {again:?}");

    let got = person.run(&["get", "certificate,certificaterequest", "-n", "default"]).succeeded();
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let lines: Vec<_> = got.out.lines().map(words).collect();
    assert_eq!(lines[0], ["NAME", "READY", "SECRET", "AGE"], "{got:?}");
    assert_eq!(lines[1][..2], ["certificate.cert-manager.io/www", "True"], "{got:?}");
    assert_eq!(
        lines[4],
        ["NAME", "APPROVED", "DENIED", "READY", "ISSUER", "REQUESTER", "AGE"],
        "{got:?}"
    );
    assert!(
        lines[5..].iter().any(|line| line[0] == "certificaterequest.cert-manager.io/www-1"
            && line[1..5] == ["True", "True", "letsencrypt-staging", "certwright"]),
        "{got:?}"
    );
    let wide = person.run(&["get", "certs", "-A", "-o", "wide", "-l", "team=web"]).succeeded();
    assert!(wide.out.starts_with("NAMESPACE   NAME   READY   SECRET   ISSUER "), "{wide:?}");
    assert!(
        wide.out.contains("Certificate is up to date") && !wide.out.contains("wildcard"),
        "{wide:?}"
    );

    let got = person.run(&["get", "order,challenge", "-n", "default"]).succeeded();
    assert!(
        got.out.contains("NAME") && got.out.contains("STATE") && got.out.contains("DOMAIN"),
        "{got:?}"
    );
    let order = name_in(&got.out, "order.acme.cert-manager.io/www-1-");
    let challenge = name_in(&got.out, "challenge.acme.cert-manager.io/www-1-");
    assert!(challenge.starts_with(&order), "{challenge} is of {order}");

    let told = person.run(&["describe", "order", &order]).succeeded();
    for part in [
        &*format!("Name:         {order}\n"),
        "Kind:         Order\n",
        "  State:",
        "valid",
        "www.example.com",
        "Events:\n  Type",
        "Order completed successfully",
        "Created Challenge resource",
    ] {
        assert!(told.out.contains(part), "{part}: {told:?}");
    }
    let told = person.run(&["describe", "challenge", &challenge]).succeeded();
    for part in
        ["Kind:         Challenge\n", "  Type:", "http-01", "Domain \"www.example.com\" verified"]
    {
        assert!(told.out.contains(part), "{part}: {told:?}");
    }
    let told =
        person.run(&["describe", &format!("order.acme.cert-manager.io/{order}")]).succeeded();
    assert!(told.out.contains(&order), "kubectl's own way of writing it: {told:?}");

    let told = person.run(&["status", "certificate", "www"]).succeeded();
    for part in [
        "Name: www\nNamespace: default\nCreated at: ",
        "  Ready: True, Reason: Ready, Message: ",
        "DNS Names:\n- www.example.com\n",
        "Issuer:\n  Name: letsencrypt-staging\n  Kind: ClusterIssuer\n",
        "Reason: ACMEAccountRegistered",
        "Issuer Common Name: Pebble Intermediate CA",
        "Not After: 20",
        "CertificateRequest:\n  Name: www-1\n",
        &*format!("Order:\n  Name: {order}\n  State: valid"),
        "Explanation:\n  ",
        &*format!("Challenges:\n- Name: {challenge}, Type: HTTP-01"),
    ] {
        assert!(told.out.contains(part), "{part}: {told:?}");
    }

    let renewed = person.run(&["renew", "www", "--wait", "--timeout", "60s"]).succeeded();
    assert!(
        renewed.out.starts_with("Manually triggered issuance of Certificate default/www\n"),
        "{renewed:?}"
    );
    assert!(renewed.out.contains("certificate/www ready, valid until "), "{renewed:?}");
    assert!(person.run(&["get", "cr", "www-2"]).succeeded().out.contains("www-2"));

    let exported = person.run(&["export", "-A"]).succeeded();
    fs::write(person.path("export.yaml"), &exported.out).unwrap();
    assert!(!exported.out.contains(site.cloudflare.token()), "{exported:?}");
    assert!(exported.out.contains("#   api-token: \"\""), "{exported:?}");
    let same = person.run(&["apply", "-f", "export.yaml", "--quiet"]).succeeded();
    assert!(
        same.out.lines().count() >= 6 && same.out.lines().all(|line| line.ends_with(" unchanged")),
        "{same:?}"
    );
}

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_wrong_has_its_words_and_its_status() {
    let (_folder, url) = databases::sqlite_url();
    let site = Site::on(&url).await;
    let person = Person::of(&site);

    let closed = ClosedPort::new();
    let nobody = Person { server: format!("http://{}", closed.address()), ..Person::of(&site) };
    let refused = nobody.run(&["get", "certs"]);
    assert_eq!(refused.code, Some(6), "{refused:?}");
    assert!(
        refused.err.contains("there is no answer from http://127.0.0.1:")
            && refused.err.contains("--server"),
        "{refused:?}"
    );
    let stranger = Person { key: String::new(), ..Person::of(&site) };
    let refused = stranger.run(&["get", "certs"]);
    assert_eq!(
        (refused.code, refused.err.contains("Authorization: Bearer")),
        (Some(5), true),
        "{refused:?}"
    );
    for (arguments, code, part) in [
        (
            &["get", "certificate", "nobody"][..],
            3,
            "there is no certificate `nobody` in the namespace `default`",
        ),
        (&["get", "order", "www-1-0badcafe"], 3, "there is no order"),
        (&["get", "pods"], 2, "there is no kind `pods`"),
        (&["get"], 2, "KIND"),
        (&["renew"], 2, "NAME"),
        (&["renew", "-l", "team=nobody"], 3, "no certificate is chosen"),
        (&["delete", "orders", "x"], 2, "come and go"),
        (&["apply", "-f", "missing.yaml"], 1, "missing.yaml cannot be read"),
        (&["get", "certs", "--server", "nowhere"], 2, "no address"),
        (&["issue", "not a name", "--issuer", "dns"], 1, "/dnsNames/0"),
        (
            &["issue", "a.example.com", "--issuer", "nobody"],
            1,
            "there is no ClusterIssuer `nobody`",
        ),
        (&["inspect", "missing.pem"], 1, "missing.pem"),
        (&["get", "certs", "--profile", "nobody"], 2, "there is no profile `nobody`"),
    ] {
        let ended = person.run(arguments);
        assert_eq!(ended.code, Some(code), "{arguments:?}: {ended:?}");
        assert!(ended.err.contains(part) && ended.out.is_empty(), "{arguments:?}: {ended:?}");
    }

    // Faults of manifests are reported by file and line.
    fs::write(
        person.path("a.yaml"),
        "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {k: hunter2}\n",
    )
    .unwrap();
    fs::write(person.path("b.yaml"), "apiVersion: cert-manager.io/v1\nkind: Certificate\nmetadata:\n  name: b\nspec:\n  issuerRef: {name: dns, kind: ClusterIssuer}\n  dnsNames:\n  - b.example.com\n  dnsName: c.example.com\n").unwrap();
    let refused = person.run(&["apply", "-f", "a.yaml", "-f", "b.yaml"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err.contains("b.yaml:9: /spec/dnsName: there is no such field"), "{refused:?}");
    assert!(!refused.err.contains("hunter2"), "{refused:?}");
    assert_eq!(site.get("/secrets?name=a").await.body["items"], json!([]), "nothing was applied");

    // Waiting ends: in failure, and in time.
    site.cloudflare.hide_records();
    let late =
        person.run(&["issue", "late.example.com", "--issuer", "dns", "--wait", "--timeout", "1s"]);
    assert_eq!(late.code, Some(4), "{late:?}");
    assert!(late.err.contains("did not come within 1s"), "{late:?}");
    site.cloudflare.show_records();
    site.cloudflare.forbid_edits("example.com");
    let failed =
        person.run(&["issue", "edit.example.com", "--issuer", "dns", "--wait", "--timeout", "60s"]);
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(failed.err.contains("DNS:Edit"), "{failed:?}");
}

/// `--watch` and `--follow` go on until they are interrupted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_watches_sees_what_changes() {
    let (_folder, url) = databases::sqlite_url();
    let site = Site::on(&url).await;
    let person = Person::of(&site);
    let mut watching = person.begin(&["get", "certs", "--watch"], "watched");
    let mut following = person.begin(&["logs", "--follow"], "followed");

    site.issue("dns", &["watched.example.com"]).await;

    let watched = person.until("watched", "watched.example.com   True").await;
    assert!(watched.lines().count() >= 1, "{watched}");
    let followed = person.until("followed", "The certificate has been successfully issued").await;
    let mut lines: Vec<_> = followed.lines().collect();
    let count = lines.len();
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines.len(), count, "everything once: {followed}");
    for child in [&mut watching, &mut following] {
        assert!(child.try_wait().unwrap().is_none(), "it goes on");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// A stream that breaks off is continued where it broke off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_follows_misses_nothing_when_the_server_starts_anew() {
    let (_folder, url) = databases::sqlite_url();
    let port = free_port();
    let settings = [("http.listen", &*format!("127.0.0.1:{port}"))];
    let mut site = Site::configured(&url, &settings).await;
    let person = Person::of(&site);
    let mut following = person.begin(&["logs", "-f"], "followed");
    site.issue("dns", &["first.example.com"]).await;
    person.until("followed", "The certificate has been successfully issued").await;

    site.stop().await;
    site.start_again().await;
    let second = site.issue("dns", &["second.example.com"]).await;

    let about = format!("certificates/{}  Issuing  The certificate has been", text(&second, "id"));
    let followed = person.until("followed", &about).await;
    assert_eq!(followed.matches(&about).count(), 1, "{followed}");
    following.kill().unwrap();
    following.wait().unwrap();
}

/// Downloads in every format, and deletion.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_issued_is_downloaded_in_every_form_and_revoked() {
    let (_folder, url) = databases::sqlite_url();
    let site = Site::on(&url).await;
    let person = Person::of(&site);
    let issued = site.issue("dns", &["kept.example.com"]).await;
    let serial = text(&issued["status"], "serialNumber").to_lowercase();

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_are_made_tried_and_looked_at() {
    let (_folder, url) = databases::sqlite_url();
    let receiver = Receiver::start().await;
    let port = receiver.url().parse::<url::Url>().unwrap().port().unwrap().to_string();
    let settings = [("outbound.allow_http", "true"), ("outbound.ports", &*port)];
    let site = Site::configured(&url, &settings).await;
    let person = Person::of(&site);

    let refused = person.run(&["webhooks", "create", "http://192.0.2.1:1/"]);
    assert!(refused.code == Some(1) && refused.err.contains("/url"), "{refused:?}");
    let made = person
        .run(&["webhooks", "create", &receiver.url(), "--event", "certificate.issued"])
        .succeeded();
    assert!(made.out.starts_with("whsec_") && made.out.lines().count() == 1, "{made:?}");
    let id = made.err.split(['/', ' ']).nth(1).unwrap().to_owned();

    let tried = person.run(&["webhooks", "test", &id]).succeeded();
    assert_eq!(tried.out, format!("webhook/{id} took a webhook.test (status 204)\n"));
    assert_eq!(receiver.types(), ["webhook.test"]);
    receiver.will_answer([Reply::Status(500)]);
    let tried = person.run(&["webhooks", "test", &id]);
    assert_eq!(tried.code, Some(1), "{tried:?}");
    assert!(tried.err.contains("refused a webhook.test with status 500"), "{tried:?}");

    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let got = person.run(&["get", "webhooks", "-o", "wide"]).succeeded();
    let lines: Vec<_> = got.out.lines().map(words).collect();
    assert_eq!(lines[0], ["ID", "URL", "EVENTS", "PHASE", "MESSAGE", "AGE"], "{got:?}");
    assert_eq!(lines[1][..3], [&*id, &*receiver.url(), "certificate.issued"], "{got:?}");
    assert!(["Ready", "Failing"].contains(&lines[1][3].as_str()), "{got:?}");
    let listed = person.run(&["webhooks", "list"]).succeeded();
    assert!(listed.out.contains(&id) && !listed.out.contains("whsec_"), "{listed:?}");

    site.issue("dns", &["told.example.com"]).await;
    assert_eq!(receiver.until(3).await[2].kind(), "certificate.issued");
    let events = person.run(&["get", "events"]).succeeded();
    let lines: Vec<_> = events.out.lines().map(words).collect();
    assert_eq!(lines[0], ["LAST", "SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"], "{events:?}");
    assert!(lines[1..].iter().any(|line| line[1..3] == ["Normal", "Issuing"]), "{events:?}");

    person.run(&["webhooks", "delete", &id]).succeeded();
    assert_eq!(person.run(&["webhooks", "test", &id]).code, Some(3), "it is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_profile_says_where_and_as_whom() {
    let (_folder, url) = databases::sqlite_url();
    let site = Site::on(&url).await;
    let person = Person { server: String::new(), key: String::new(), ..Person::of(&site) };
    let folder = person.path(".config/certwright");
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join("config.toml");
    let text = format!(
        "default = \"site\"\n[profiles.site]\nserver = \"http://{}\"\napi_key = \"{}\"\nnamespace = \"team\"\n",
        site.api,
        site.key()
    );
    fs::write(&file, text).unwrap();

    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let refused = person.run(&["get", "certs"]);
    assert!(refused.code == Some(1) && refused.err.contains("chmod 600"), "{refused:?}");
    assert!(!refused.err.contains(site.key()), "{refused:?}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let nothing = person.run(&["get", "certs"]).succeeded();
    assert_eq!(nothing.err, "No resources found in team namespace.\n");
    fs::write(person.path("key"), format!("{}\n", site.key())).unwrap();
    let flags =
        ["get", "ciss", "--server", &*format!("http://{}", site.api), "--api-key-file", "key"];
    assert!(person.run(&flags).succeeded().out.contains("dns"));
}

#[test]
fn the_page_about_commands_is_the_present_one() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cli.md");
    let present = Person::nowhere().run(&["help", "--markdown"]).succeeded().out;
    if std::env::var_os("UPDATE_CLI").is_some() {
        fs::write(&page, &present).unwrap();
    }

    assert!(
        fs::read_to_string(&page).unwrap_or_default() == present,
        "docs/cli.md is not what the program says: run `make cli-docs`"
    );
}

#[test]
fn every_command_shows_examples() {
    for command in COMMANDS {
        let words: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        let help = Person::nowhere().run(&words).succeeded().out;
        assert!(help.contains("Examples:\n  certwright "), "{command}: {help}");
    }
}

#[test]
fn shells_learn_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let script = Person::nowhere().run(&["completion", shell]).succeeded().out;
        for command in ["apply", "describe", "api-key-file"] {
            assert!(script.contains(command), "{shell} does not know {command}");
        }
    }
}

/// A manifest as people have it, with what has to be another here: server, CA bundle, token, and
/// where Cloudflare is.
fn here(site: &Site, file: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manifests");
    let server = format!(
        "server: {}\n    caBundle: {}",
        site.pebble.directory_url(),
        site.pebble.ca_bundle()
    );
    let text = fs::read_to_string(folder.join(file)).unwrap();
    let cloudflare = format!("cloudflare:\n          baseURL: {}\n", site.cloudflare.base_url());
    text.replace("server: https://acme-staging-v02.api.letsencrypt.org/directory", &server)
        .replace("<API Token>", site.cloudflare.token())
        .replace("cloudflare:\n", &cloudflare)
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap().to_owned()
}

/// The rest of the word that begins so.
fn name_in(text: &str, beginning: &str) -> String {
    let word = text
        .split_whitespace()
        .find(|word| word.starts_with(beginning))
        .unwrap_or_else(|| panic!("{text}"));
    word.split_once('/').unwrap().1.to_owned()
}
