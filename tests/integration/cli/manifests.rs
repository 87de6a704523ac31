//! Manifests at the command line, from `apply` to `export`.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::support::nginx::Nginx;
use crate::support::pebble::PebbleOptions;
use crate::support::person::Person;
use crate::support::site::{Site, SiteOptions};
use crate::support::{databases, free_port};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn manifests_that_people_have_are_applied_and_stay_as_they_are() {
    let place = Place::with_manifests().await;
    let person = &place.person;

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

    place.until_issued().await;
    let again = person.run(&["apply", "-f", "manifests", "--quiet"]).succeeded();
    assert_eq!(again.out.matches(" unchanged\n").count(), 5, "also once it is issued: {again:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_apply_would_change_is_shown_and_said_by_the_exit_status() {
    let place = Place::with_manifests().await;
    let person = &place.person;

    let new = person.run(&["diff", "-f", "manifests"]);
    assert_eq!(new.code, Some(1), "{new:?}");
    let head = "--- LIVE/Certificate.default.www\n+++ MERGED/Certificate.default.www\n@@ -0,0 +1,";
    assert!(new.out.contains(head) && !new.err.contains("error"), "{new:?}");
    assert!(new.out.contains("LIVE/ClusterIssuer.letsencrypt-staging\n"), "{new:?}");
    assert_eq!(person.run(&["get", "certificates"]).succeeded().out, "", "nothing was made");

    person.run(&["apply", "-f", "manifests"]).succeeded();
    let same = person.run(&["diff", "-f", "manifests"]).succeeded();
    assert!(same.out.is_empty(), "{same:?}");
    assert!(same.err.contains("the values of secret/cloudflare-api-token-secret are not compared"));

    let exported = person.run(&["get", "certificate", "www", "-o", "yaml"]).succeeded().out;
    let known = exported.lines().find(|line| line.contains("renewBefore:")).unwrap();
    let other = exported.replace(known, "  renewBefore: 240h");
    fs::write(person.path("other.yaml"), other).unwrap();
    let differs = person.run(&["diff", "-f", "other.yaml"]);
    assert_eq!(differs.code, Some(1), "{differs:?}");
    let changed = differs.out.lines().filter(|line| line.starts_with(['+', '-'])).skip(2);
    let removed = format!("-{known}");
    assert_eq!(changed.collect::<Vec<_>>(), [&*removed, "+  renewBefore: 240h"], "{differs:?}");
    let still = person.run(&["get", "certificate", "www", "-o", "yaml"]).succeeded().out;
    assert!(!still.contains("240h"), "it is only shown: {still}");

    fs::write(person.path("broken.yaml"), "kind: Certificate\nspec: {}\n").unwrap();
    let broken = person.run(&["diff", "-f", "broken.yaml"]);
    assert!(broken.code == Some(2) && broken.err.contains("broken.yaml:1"), "{broken:?}");
    assert_eq!(person.run(&["diff", "-f", "not-there.yaml"]).code, Some(2));
    let denied = [("CERTWRIGHT_API_KEY".to_owned(), "cw_no".to_owned())];
    assert_eq!(person.run_with(&["diff", "-f", "manifests"], &denied).code, Some(5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_applied_is_listed_in_the_columns_that_people_know() {
    let place = Place::issued().await;
    let person = &place.person;

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
            && line[1..4] == ["True", "True", "letsencrypt-staging"]
            && line.len() == 6),
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
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issuance_is_described_with_its_order_and_challenge() {
    let place = Place::issued().await;
    let person = &place.person;
    let got = person.run(&["get", "order,challenge", "-n", "default"]).succeeded();
    let order = name_in(&got.out, "order.acme.cert-manager.io/www-1-");
    let challenge = name_in(&got.out, "challenge.acme.cert-manager.io/www-1-");
    assert!(challenge.starts_with(&order), "{challenge} is of {order}");

    let described = person.run(&["describe", "order", &order]).succeeded();
    described.says_all(&[
        &format!("Name:         {order}\n"),
        "Kind:         Order\n",
        "  State:",
        "valid",
        "www.example.com",
        "Events:\n  Type",
        "Order completed successfully",
        "Created Challenge resource",
    ]);
    let described = person.run(&["describe", "challenge", &challenge]).succeeded();
    described.says_all(&[
        "Kind:         Challenge\n",
        "  Type:",
        "http-01",
        "Domain \"www.example.com\" verified",
    ]);
    let kubectls = format!("order.acme.cert-manager.io/{order}");
    person.run(&["describe", &kubectls]).succeeded().says_all(&[&order]);

    let status = person.run(&["status", "certificate", "www"]).succeeded();
    status.says_all(&[
        "Name: www\nNamespace: default\nCreated at: ",
        "  Ready: True, Reason: Ready, Message: ",
        "DNS Names:\n- www.example.com\n",
        "Issuer:\n  Name: letsencrypt-staging\n  Kind: ClusterIssuer\n",
        "Reason: ACMEAccountRegistered",
        "Issuer Common Name: Pebble Intermediate CA",
        "Not After: 20",
        "CertificateRequest:\n  Name: www-1\n",
        &format!("Order:\n  Name: {order}\n  State: valid"),
        "Explanation:\n  ",
        &format!("Challenges:\n- Name: {challenge}, Type: HTTP-01"),
    ]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_by_hand_is_waited_for() {
    let place = Place::issued().await;
    let person = &place.person;

    let renewed = person.run(&["renew", "www", "--wait", "--timeout", "60s"]).succeeded();

    assert!(
        renewed.out.starts_with("Manually triggered issuance of Certificate default/www\n"),
        "{renewed:?}"
    );
    assert!(renewed.out.contains("certificate/www ready, valid until "), "{renewed:?}");
    assert!(person.run(&["get", "cr", "www-2"]).succeeded().out.contains("www-2"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_exported_holds_no_secret_and_changes_nothing_when_it_is_applied() {
    let place = Place::issued().await;
    let person = &place.person;

    let exported = person.run(&["export", "-A"]).succeeded();

    fs::write(person.path("export.yaml"), &exported.out).unwrap();
    assert!(!exported.out.contains(place.site.cloudflare.token()), "{exported:?}");
    assert!(exported.out.contains("#   api-token: \"\""), "{exported:?}");
    let same = person.run(&["apply", "-f", "export.yaml", "--quiet"]).succeeded();
    assert!(
        same.out.lines().count() >= 6 && same.out.lines().all(|line| line.ends_with(" unchanged")),
        "{same:?}"
    );
}

/// An installation, and a person who has manifests.
struct Place {
    site: Site,
    person: Person,
    _nginx: Nginx,
    _database: TempDir,
}

impl Place {
    async fn with_manifests() -> Self {
        let responder = std::net::SocketAddr::from(([127, 0, 0, 1], free_port()));
        let nginx = Nginx::start(responder).await;
        let (database, url) = databases::sqlite_url();
        let pebble = PebbleOptions { nonce_reject: 5, ..Default::default() };
        let options = SiteOptions { pebble, http01_port: nginx.address().port(), responder };
        let site = Site::with(&url, options).await;
        let person = Person::of(&site);
        let folder = person.path("manifests");
        fs::create_dir(&folder).unwrap();
        for file in ["certificates.yaml", "clusterissuer-http01.yaml", "issuer-cloudflare.yaml"] {
            fs::write(folder.join(file), here(&site, file)).unwrap();
        }
        Self { site, person, _nginx: nginx, _database: database }
    }

    /// The same, with all of them applied and the certificates issued.
    async fn issued() -> Self {
        let place = Self::with_manifests().await;
        place.person.run(&["apply", "-f", "manifests"]).succeeded();
        place.until_issued().await;
        place
    }

    async fn until_issued(&self) {
        for name in ["www", "wildcard"] {
            let path = format!("/certificates?name={name}");
            self.site.until(&path, |found| found["items"][0]["status"]["phase"] == "Ready").await;
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

/// The rest of the word that begins so.
fn name_in(text: &str, beginning: &str) -> String {
    let word = text
        .split_whitespace()
        .find(|word| word.starts_with(beginning))
        .unwrap_or_else(|| panic!("{text}"));
    word.split_once('/').unwrap().1.to_owned()
}
