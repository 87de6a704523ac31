//! Policies at the command line.

use std::fs;

use crate::support::databases;
use crate::support::person::Person;
use crate::support::site::Site;

const POLICY: &str = "apiVersion: certwright.dev/v1
kind: Policy
metadata:
  name: payments
spec:
  namespaces: [payments]
  names:
  - {pattern: '**.payments.example.com', wildcards: true}
  issuers:
  - {kind: ClusterIssuer, name: dns}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_is_applied_listed_exported_asked_and_withdrawn() {
    let (_folder, url) = databases::sqlite_url();
    let site = Site::on(&url).await;
    let person = Person::of(&site);
    fs::write(person.path("policy.yaml"), POLICY).unwrap();
    let apply = ["apply", "-f", "policy.yaml"];
    assert_eq!(person.run(&apply).succeeded().out, "policy.certwright.dev/payments created\n");
    assert_eq!(person.run(&apply).succeeded().out, "policy.certwright.dev/payments unchanged\n");

    let listed = person.run(&["get", "policies"]).succeeded().out;
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let lines: Vec<_> = listed.lines().map(words).collect();
    assert_eq!(lines[0], ["NAME", "NAMESPACES", "NAMES", "AGE"]);
    assert_eq!(lines[1][..3], ["payments", "payments", "**.payments.example.com"]);
    let described = person.run(&["describe", "policy", "payments"]).succeeded();
    described.says_all(&["payments", "**.payments.example.com", "Held By"]);

    let exported = person.run(&["export", "policies"]).succeeded().out;
    fs::write(person.path("exported.yaml"), &exported).unwrap();
    let again = person.run(&["apply", "-f", "exported.yaml"]).succeeded().out;
    assert_eq!(again, "policy.certwright.dev/payments unchanged\n", "{exported}");
    let tenant =
        person.run(&["keys", "create", "t", "--permission", "*", "--in-namespace", "payments"]);
    let tenant = Person { key: tenant.succeeded().out.trim().to_owned(), ..Person::of(&site) };
    let all = tenant.run(&["export", "-A"]).succeeded();
    assert!(all.err.contains("policies are left out") && !all.out.contains("Policy"), "{all:?}");
    assert_eq!(tenant.run(&["export", "policies"]).code, Some(5), "who asks for them is told");

    let can = |names: &[&str]| {
        let question = [&["can"], names, &["--issuer", "dns", "-n", "payments"]].concat();
        tenant.run(&question)
    };
    let yes = can(&["api.payments.example.com", "*.payments.example.com"]).succeeded();
    assert_eq!(
        yes.out,
        "yes  api.payments.example.com is allowed by the policy `payments`\n\
         yes  *.payments.example.com is allowed by the policy `payments`\n"
    );
    let no = can(&["api.payments.example.com", "www.example.com"]);
    assert_eq!(no.code, Some(1), "{no:?}");
    assert!(
        no.out.contains("no   www.example.com is not allowed: no policy of the namespace"),
        "{no:?}"
    );
    assert_eq!(can(&["no name"]).code, Some(1));
    let other = tenant.run(&["can", "a.example.com", "--issuer", "dns", "-n", "other"]);
    assert_eq!(other.code, Some(5), "{other:?}");

    let gone = person.run(&["delete", "policy", "payments"]).succeeded().out;
    assert_eq!(gone, "policy.certwright.dev \"payments\" deleted\n");
    assert_eq!(can(&["api.payments.example.com"]).code, Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_else_approves_or_denies_a_request_by_its_name() {
    let (_folder, url) = databases::sqlite_url();
    let site = Site::on(&url).await;
    let person = Person::of(&site);
    fs::write(person.path("policy.yaml"), format!("{POLICY}  approval: Manual\n")).unwrap();
    person.run(&["apply", "-f", "policy.yaml"]).succeeded();
    let boss = ["keys", "create", "boss", "--role", "operator", "--in-namespace", "payments"];
    let boss = person.run(&boss).succeeded();
    let boss = Person { key: boss.out.trim().to_owned(), ..Person::of(&site) };
    for name in ["api", "web"] {
        let names = format!("{name}.payments.example.com");
        let asked =
            ["issue", &names, "--name", name, "--issuer", "dns", "-n", "payments", "--wait"];
        let waits = person.run(&asked);
        assert_ne!(waits.code, Some(0), "it is not issued");
        assert!(waits.err.contains("approv"), "{waits:?}");
    }
    let listed = person.run(&["get", "cr", "-n", "payments"]).succeeded();
    assert!(!listed.out.contains("True"), "nothing is decided: {listed:?}");

    let decide = |who: &Person, verb: &str, name: &str| {
        who.run(&[verb, name, "-n", "payments", "--reason", "as agreed"])
    };
    let own = decide(&person, "approve", "api-1");
    assert!(own.code == Some(5) && own.err.contains("asked for"), "{own:?}");
    let approved = decide(&boss, "approve", "api-1").succeeded();
    assert_eq!(approved.out, "CertificateRequest payments/api-1 approved\n");
    let denied = decide(&boss, "deny", "web-1").succeeded();
    assert_eq!(denied.out, "CertificateRequest payments/web-1 denied\n");
    assert_ne!(decide(&boss, "approve", "web-1").code, Some(0), "a decision is final");
    assert_ne!(boss.run(&["approve", "api-1", "-n", "payments"]).code, Some(0), "without a reason");

    let described = boss.run(&["describe", "cr", "web-1", "-n", "payments"]).succeeded();
    described.says_all(&["ManuallyDenied", "as agreed", "Requested By"]);
    let listed = person.run(&["get", "cr", "-n", "payments"]).succeeded();
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let lines: Vec<_> = listed.out.lines().map(words).collect();
    assert_eq!(lines[1][..2], ["api-1", "True"], "{listed:?}");
    assert_eq!(lines[2][..3], ["web-1", "True", "False"], "denied, and not ready: {listed:?}");
}
