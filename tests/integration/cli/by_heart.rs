//! Commands as typed by somebody who knows kubectl and cmctl by heart, each with the first lines that it prints.

use std::fs;

use crate::support::databases;
use crate::support::person::{Ended, Person};
use crate::support::site::Site;

const MANIFESTS: &str = "\
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: www, labels: {team: web, tier: front}}
spec:
  secretName: www-tls
  issuerRef: {name: dns, kind: ClusterIssuer}
  dnsNames: [www.example.com, example.com]
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: api, namespace: shop, labels: {team: api}}
spec:
  secretName: api-tls
  issuerRef: {name: dns, kind: ClusterIssuer}
  dnsNames: [api.example.com]
";

/// What is typed, the exit status, and the beginnings of the first lines; what is no success speaks on standard error.
type Line = (&'static str, i32, &'static [&'static str]);

const LOOKING: &[Line] = &[
    ("get certificate", 0, &["NAME   READY   SECRET   AGE", "www    True    <none>"]),
    ("get certificates", 0, &["NAME", "www    True"]),
    ("get cert", 0, &["NAME", "www"]),
    ("get certs -n default", 0, &["NAME", "www"]),
    ("-n shop get certs", 0, &["NAME", "api"]),
    (
        "get certs -A",
        0,
        &["NAMESPACE   NAME   READY", "default     www    True", "shop        api    True"],
    ),
    (
        "get certs --all-namespaces -o wide",
        0,
        &["NAMESPACE   NAME   READY   SECRET   ISSUER   STATUS"],
    ),
    ("get certs -n nowhere", 0, &[]),
    ("get cert www", 0, &["NAME", "www"]),
    ("get cert/www", 0, &["NAME", "www"]),
    ("get certificates.cert-manager.io www", 0, &["NAME", "www"]),
    ("get certs --no-headers", 0, &["www    True"]),
    ("get certs --show-labels", 0, &["NAME   READY   SECRET   AGE", "www    True"]),
    ("get certs -l team=web", 0, &["NAME", "www"]),
    (
        "get certs -A -l 'team in (web, api)'",
        0,
        &["NAMESPACE", "default     www", "shop        api"],
    ),
    ("get certs -A -l 'team notin (web)'", 0, &["NAMESPACE", "shop        api"]),
    ("get certs -A -l '!tier'", 0, &["NAMESPACE", "shop        api"]),
    ("get certs -A --selector=tier,team==web", 0, &["NAMESPACE", "default     www"]),
    ("get certs -l 'team web'", 2, &["certwright: error: `team web` has the key `team web`"]),
    (
        "get certs -A --sort-by=.metadata.name",
        0,
        &["NAMESPACE", "shop        api", "default     www"],
    ),
    ("get certs -A --sort-by={.metadata.namespace}", 0, &["NAMESPACE", "default     www"]),
    ("get cert www -o name", 0, &["certificate.cert-manager.io/www"]),
    ("get cert www -o jsonpath='{.metadata.name}'", 0, &["www"]),
    ("get cert www -o jsonpath={.status.conditions[?(@.type==\"Ready\")].status}", 0, &["True"]),
    ("get certs -A -o jsonpath='{.items[*].metadata.name}'", 0, &["www api"]),
    (
        "get certs -A -o jsonpath='{range .items[*]}{.metadata.name}{\"\\n\"}{end}'",
        0,
        &["www", "api"],
    ),
    (
        "get certs -A -o custom-columns=NAME:.metadata.name,ISSUER:.spec.issuerRef.name",
        0,
        &["NAME   ISSUER", "www    dns", "api    dns"],
    ),
    (
        "get cert www -o yaml",
        0,
        &["apiVersion: cert-manager.io/v1", "kind: Certificate", "metadata:"],
    ),
    ("get cert www -o json", 0, &["{", "  \"apiVersion\": \"cert-manager.io/v1\","]),
    ("get certs -o yaml", 0, &["apiVersion: v1", "items:"]),
    (
        "get cert www -o table",
        2,
        &[
            "error: invalid value 'table' for '--output <FORMAT>': there is no output `table`; there are wide, json",
        ],
    ),
    (
        "get certificate, certificaterequest -n shop",
        0,
        &[
            "NAME                              READY",
            "certificate.cert-manager.io/api   True",
            "",
            "NAME",
        ],
    ),
    ("get certificate,certificaterequest", 0, &["NAME", "certificate.cert-manager.io/www"]),
    ("get order,challenge", 0, &["NAME", "order.acme.cert-manager.io/www-1-"]),
    ("get orders", 0, &["NAME", "www-1-"]),
    ("get cr", 0, &["NAME    APPROVED   DENIED   READY   ISSUER   REQUESTER", "www-1   True"]),
    ("get challenges", 0, &["NAME", "www-1-"]),
    ("get issuers", 0, &[]),
    ("get clusterissuers", 0, &["NAME   READY   AGE", "dns    True"]),
    ("get ciss dns -o jsonpath='{.spec.acme.email}'", 0, &["user@example.com"]),
    ("get secrets -n certwright", 0, &["NAME         DATA   AGE", "cloudflare   1"]),
    ("get events", 0, &["LAST SEEN   TYPE     REASON"]),
    (
        "get certificat",
        2,
        &["certwright: error: there is no kind `certificat`; did you mean `certificate`?"],
    ),
    ("get pods", 2, &["certwright: error: there is no kind `pods`; there are"]),
    (
        "get cert nobody",
        3,
        &["certwright: error: there is no certificate `nobody` in the namespace `default`"],
    ),
    ("get certs --failed -A", 0, &[]),
    (
        "describe certificate www",
        0,
        &["Name:         www", "Namespace:    default", "Labels:       team=web"],
    ),
    ("describe cert/www clusterissuer/dns", 0, &["Name:         www"]),
    ("describe orders", 0, &["Name:         www-1-"]),
    ("status certificate www", 0, &["Name: www", "Namespace: default"]),
    ("status cert api -n shop", 0, &["Name: api", "Namespace: shop"]),
    ("inspect nothing.pem", 1, &["certwright: error: nothing.pem"]),
    ("events", 0, &["LAST SEEN   TYPE     REASON"]),
    ("events --for certificate/www", 0, &["LAST SEEN   TYPE     REASON"]),
    ("events --types=Warning -n nowhere", 0, &[]),
    ("logs www --since 10m", 0, &["20"]),
    ("logs certificate www", 0, &["20"]),
    ("logs cert/www --since 0s", 0, &[]),
    ("logs --since soon", 2, &["certwright: error: `soon` is no moment; write it as `10m`"]),
    ("version", 0, &["Client Version: v", "Server Version: v", "API Version: v1"]),
    ("version --client", 0, &["Client Version: v"]),
    ("help get", 0, &["List resources", "", "Usage: certwright get"]),
    (
        "help nothing",
        2,
        &["certwright: error: there is no command `nothing`; `certwright help` lists them"],
    ),
    ("help", 0, &["An HTTP service that issues and renews TLS certificates"]),
    (
        "wait --for=condition=Ready certificate/www --timeout=60s",
        0,
        &["certificate.cert-manager.io/www condition met"],
    ),
    (
        "wait --for=condition=Ready certs --all -A --timeout 20",
        0,
        &[
            "certificate.cert-manager.io/www condition met",
            "certificate.cert-manager.io/api condition met",
        ],
    ),
    (
        "wait --for=jsonpath='{.status.phase}'=Ready cert/www",
        0,
        &["certificate.cert-manager.io/www condition met"],
    ),
    (
        "wait --for=condition=Issuing cert/www --timeout=0s",
        4,
        &["certwright: error: timed out waiting for the condition on certificates/www"],
    ),
    (
        "wait --for=happiness cert/www",
        2,
        &[
            "error: invalid value 'happiness' for '--for <WHAT>': `happiness` is nothing to wait for",
        ],
    ),
    ("wait --for=delete cert/nobody", 0, &[]),
    ("export certificates", 0, &["apiVersion: cert-manager.io/v1", "kind: Certificate"]),
    ("download www --format cert", 0, &["-----BEGIN CERTIFICATE-----"]),
];

const CHANGING: &[Line] = &[
    (
        "apply -f site.yaml",
        0,
        &["certificate.cert-manager.io/www unchanged", "certificate.cert-manager.io/api unchanged"],
    ),
    ("apply -f site.yaml --dry-run", 0, &["certificate.cert-manager.io/www unchanged (dry run)"]),
    (
        "issue www.example.com --name www --dns-name example.com --issuer dns",
        0,
        &["certificate/www unchanged"],
    ),
    (
        "issue www.example.com --name www --dns-name example.com --issuer http",
        1,
        &[
            "certwright: error: there is a certificate `www` already, with the ClusterIssuer `dns`; `certwright certificates set www` changes it",
        ],
    ),
    (
        "issue other.example.com --name www --issuer dns --wait --out t",
        1,
        &[
            "certwright: error: there is a certificate `www` already, with the names example.com, www.example.com",
        ],
    ),
    (
        "certificates set www --renew-before 240h0m0s --label tier-",
        0,
        &["certificate.cert-manager.io/www configured"],
    ),
    ("certificates set www --renew-before 10d", 0, &["certificate.cert-manager.io/www unchanged"]),
    ("get cert www -o jsonpath={.spec.renewBefore}", 0, &["240h"]),
    ("get certs -l tier", 0, &[]),
    ("certificates set www", 2, &["certwright: error: say what to change"]),
    ("edit cert www", 0, &["Edit cancelled, no changes made."]),
    ("edit secret cloudflare", 2, &["certwright: error: secrets have no manifest to be edited"]),
    ("renew api -n shop", 0, &["Manually triggered issuance of Certificate shop/api"]),
    (
        "wait --for=jsonpath='{.status.revision}'=2 cert/api -n shop --timeout 240",
        0,
        &["certificate.cert-manager.io/api condition met"],
    ),
    ("renew --failed -A", 3, &["certwright: error: no certificate is chosen"]),
    ("renew", 2, &["error: the following required arguments were not provided:", "  <NAME>"]),
    ("delete certs", 2, &["certwright: error: say which: NAME…, --all, or -l SELECTOR"]),
    ("delete orders --all", 2, &["certwright: error: orders come and go with their certificates"]),
    ("delete certs --all -n nowhere", 0, &["No certificates found."]),
    ("delete cert nobody", 3, &["certwright: error: there is no certificate `nobody`"]),
    ("delete cert nobody --ignore-not-found", 0, &[]),
    ("delete certs --all -n shop", 0, &["certificate.cert-manager.io \"api\" deleted"]),
    ("delete -f site.yaml --ignore-not-found", 0, &["certificate.cert-manager.io \"www\" deleted"]),
    ("delete -f site.yaml", 3, &["certwright: there is no certificate `www`"]),
    ("wait --for=delete cert/www", 0, &[]),
    ("get certs -A", 0, &["No resources found"]),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fingers_know_works() {
    let (_folder, url) = databases::sqlite_url();
    let site = Site::on(&url).await;
    site.ready("dns").await;
    let person = Person::of(&site);
    fs::write(person.path("site.yaml"), MANIFESTS).unwrap();
    let applied = type_in(&person, "apply -f site.yaml").succeeded();
    applied.says_all(&[
        "certificate.cert-manager.io/www created\n",
        "certificate.cert-manager.io/api created\n",
    ]);
    type_in(&person, "wait --for=condition=Ready certs --all -A --timeout 240").succeeded();

    let mut wrong: Vec<String> =
        LOOKING.iter().filter_map(|line| otherwise(&person, line)).collect();
    what_is_printed_can_be_applied(&person);
    let logged = type_in(&person, "logs www").succeeded().out;
    assert!(
        logged.contains("  certificate/www  ") || logged.contains("  certificate/www "),
        "{logged}"
    );
    let times = logged.lines().map(|line| line.split("  ").next().unwrap().len());
    assert!(times.clone().all(|length| length == "2026-11-24T12:00:00Z".len()), "{logged}");
    wrong.extend(CHANGING.iter().filter_map(|line| otherwise(&person, line)));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn what_is_printed_can_be_applied(person: &Person) {
    for (command, file) in [
        ("get certs -o yaml", "certs.yaml"),
        ("get cert www -o json", "www.json"),
        ("get ciss -o yaml", "issuers.yaml"),
    ] {
        fs::write(person.path(file), type_in(person, command).succeeded().out).unwrap();
        let applied = type_in(person, &format!("apply -f {file}")).succeeded().out;
        assert!(applied.lines().all(|line| line.ends_with(" unchanged")), "{command}: {applied}");
    }
}

/// What came otherwise than it is written above. How wide columns are is another test's business.
fn otherwise(person: &Person, (command, code, expected): &Line) -> Option<String> {
    let ended = type_in(person, command);
    let text = if ended.out.is_empty() { &ended.err } else { &ended.out };
    let narrow = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let lines: Vec<String> = text.lines().map(narrow).collect();
    let begins = |(place, beginning): (usize, &&str)| {
        lines.get(place).is_some_and(|line| line.starts_with(&narrow(beginning)))
    };
    let is_as_written = expected.iter().enumerate().all(begins);
    // Nobody at a shell speaks HTTP.
    let http = ["POST /", "PATCH", "DELETE", "If-Match", "Authorization"];
    let speaks_http = http.iter().any(|word| ended.everything().contains(word));
    let holds = ended.code == Some(*code) && is_as_written && !speaks_http;
    (!holds).then(|| format!("{command}\n  wanted {code} {expected:?}\n  was {ended:?}"))
}

/// Words are separated by blanks, unless they are quoted.
fn type_in(person: &Person, command: &str) -> Ended {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for c in command.chars() {
        match c {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(std::mem::take(&mut word)),
            c => word.push(c),
        }
    }
    words.push(word);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    person.run_with(&words, &[("EDITOR".to_owned(), "true".to_owned())])
}
