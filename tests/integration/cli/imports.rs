//! `certwright import`, with the folders of other clients as they lie on hosts.

use std::fs;
use std::os::unix::fs::symlink;

use crate::support::databases;
use crate::support::person::{Ended, Person};
use crate::support::site::Site;

const ISSUE: &[&str] =
    &["issue", "a.example.com", "b.example.com", "--issuer", "dns", "--wait", "--out", "tls"];

/// The pairs that were issued, as certbot, acme.sh, lego and Caddy would have left them.
fn lay_out(person: &Person) {
    let put = |from: &str, cert: &str, key: &str| {
        for (file, to) in [("fullchain.pem", cert), ("privkey.pem", key)] {
            let to = person.path(to);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(person.path(&format!("tls/{from}/{file}")), to).unwrap();
        }
    };
    put("a.example.com", "archive/my_cert/fullchain1.pem", "archive/my_cert/privkey1.pem");
    for (lineage, of) in [("my_cert", "my_cert"), ("gone", "nobody")] {
        let folder = person.path(&format!("live/{lineage}"));
        fs::create_dir_all(&folder).unwrap();
        for file in ["fullchain", "privkey"] {
            symlink(format!("../../archive/{of}/{file}1.pem"), folder.join(format!("{file}.pem")))
                .unwrap();
        }
    }
    fs::write(person.path("live/README"), "This directory contains your keys and certificates.")
        .unwrap();
    put(
        "b.example.com",
        "acme.sh/b.example.com_ecc/fullchain.cer",
        "acme.sh/b.example.com_ecc/b.example.com.key",
    );
    put(
        "b.example.com",
        "lego/certificates/_.b.example.com.crt",
        "lego/certificates/_.b.example.com.key",
    );
    put(
        "a.example.com",
        "caddy/certificates/ca/a.example.com/a.example.com.crt",
        "caddy/certificates/ca/a.example.com/a.example.com.key",
    );
    // A key that is not the certificate's.
    put("a.example.com", "lego/certificates/mixed.crt", "lego/certificates/mixed.key");
    fs::copy(
        person.path("tls/b.example.com/privkey.pem"),
        person.path("lego/certificates/mixed.key"),
    )
    .unwrap();
}

#[track_caller]
fn complains(ended: &Ended, parts: &[&str]) {
    for part in parts {
        assert!(ended.err.contains(part), "{part}: {ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folders_of_other_clients_are_imported_as_far_as_they_can_be_and_are_unchanged_from_then_on()
 {
    let (_folder, url) = databases::sqlite_url();
    let site = Site::on(&url).await;
    let person = Person::of(&site);
    person.run(ISSUE).succeeded();
    lay_out(&person);
    let orders = site.pebble.orders_created();
    let import = ["import", "live", "acme.sh", "lego", "caddy", "--issuer", "dns", "-n", "moved"];
    let lines = |result: &str| {
        let names = ["my-cert", "b.example.com", "wildcard.b.example.com", "a.example.com"];
        names.map(|name| format!("certificate.cert-manager.io/{name} {result}"))
    };

    let first = person.run(&import);
    assert_eq!(
        (first.code, first.out.lines().collect::<Vec<_>>()),
        (Some(1), lines("created").iter().map(String::as_str).collect()),
        "{first:?}"
    );
    complains(
        &first,
        &[
            "error: left out: live/gone/fullchain.pem is a link to ../../archive/nobody/fullchain1.pem, which is not there\n",
            "error: left out: lego/certificates/mixed.crt cannot be imported",
            "2 things were left out; the rest was imported",
        ],
    );
    let listed = person.run(&["get", "certs", "-n", "moved", "--no-headers"]).succeeded();
    assert_eq!(listed.out.matches(" True ").count(), 4, "{listed:?}");
    assert_eq!(site.pebble.orders_created(), orders, "nothing is issued anew");

    // What is changed and renewed here is nothing that a second run would undo.
    person
        .run(&["certificates", "set", "my-cert", "-n", "moved", "--renew-before", "240h"])
        .succeeded();
    person.run(&["renew", "my-cert", "-n", "moved", "--wait", "--timeout", "60s"]).succeeded();
    let second = person.run(&import);
    assert_eq!(
        (second.code, second.out.lines().collect::<Vec<_>>()),
        (Some(1), lines("unchanged").iter().map(String::as_str).collect()),
        "{second:?}"
    );
    let kept = person.run(&["get", "cert", "my-cert", "-n", "moved", "-o", "yaml"]).succeeded();
    assert!(kept.out.contains("renewBefore: 240h") && kept.out.contains("revision: 2"), "{kept:?}");

    let other = [
        "import",
        "--cert",
        "tls/b.example.com/fullchain.pem",
        "--key",
        "tls/b.example.com/privkey.pem",
    ];
    let other = person
        .run(&[&other[..], &["--name", "my-cert", "--issuer", "dns", "-n", "moved"]].concat());
    assert_eq!(other.code, Some(1));
    complains(
        &other,
        &[
            "there is a certificate `my-cert` for a.example.com already; import this one with --name",
        ],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn manifests_in_files_of_every_encoding_are_applied_and_faults_told_by_file() {
    let (_folder, url) = databases::sqlite_url();
    let site = Site::on(&url).await;
    let person = Person::of(&site);
    let secret = |name: &str| {
        format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\nstringData: {{a: b}}\n")
    };
    let utf16: Vec<u8> =
        ["\u{FEFF}", &secret("two")].concat().encode_utf16().flat_map(u16::to_le_bytes).collect();
    fs::write(person.path("a.yaml"), secret("one")).unwrap();
    fs::write(person.path("b.yaml"), utf16).unwrap();
    fs::write(person.path("c.yaml"), ["\u{FEFF}", &secret("three")].concat()).unwrap();
    fs::write(person.path("d.yaml"), "apiVersion: v1\nkind: Namespace\nmetadata: {name: web}\n")
        .unwrap();
    let files = ["-f", "a.yaml", "-f", "b.yaml", "-f", "c.yaml", "-f", "d.yaml"];

    let applied = person.run(&[&["apply"], &files[..]].concat()).succeeded();
    assert_eq!(applied.out, "secret/one created\nsecret/two created\nsecret/three created\n");
    assert!(
        applied
            .err
            .contains("warning: Namespace/web passed over: d.yaml:2: there is nothing of the kind"),
        "{applied:?}"
    );
    let strict = person.run(&[&["apply", "--strict"], &files[..]].concat());
    assert_eq!(strict.code, Some(1));
    complains(
        &strict,
        &["d.yaml:2: /kind: there is nothing of the kind `Namespace` here", "nothing was applied"],
    );
    let deleted = person.run(&[&["delete"], &files[..]].concat()).succeeded();
    assert_eq!(deleted.out.lines().count(), 3, "{deleted:?}");
}
