//! A client certificate in the place of an API key, at the real program.

use std::fs;

use certwright::pki;
use rcgen::ExtendedKeyUsagePurpose::ServerAuth;

use super::place::{Place, Running};
use crate::support::client_ca::ClientCa;
use crate::support::person::{Ended, Person};

const SETTINGS: &str = r#"
[https]
listen = "127.0.0.1:0"
certificate_file = "chain.pem"
key_file = "key.pem"
client_ca_file = "clients.pem"
client_rules = [{match = {uri = "spiffe://example.org/ns/{namespace}/sa/*"}, role = "requester"}]
"#;

/// A service over TLS, and somebody who trusts it.
struct Meeting {
    /// What the service works in.
    _place: Place,
    service: Running,
    person: Person,
    ca: ClientCa,
    trust: [(String, String); 1],
}

impl Meeting {
    fn new() -> Self {
        let ca = ClientCa::named("Clients");
        let (chain, key) = pki::self_signed(&["localhost".to_owned()]).unwrap();
        let place = Place::new()
            .file("certwright.toml", SETTINGS)
            .file("chain.pem", &chain)
            .file("key.pem", key.expose())
            .file("clients.pem", &ca.pem());
        let service = place.serve();
        let mut person = Person::nowhere();
        let out = service.out();
        let address = out.lines().find_map(|line| line.split_once("https://127.0.0.1:"));
        person.server = format!("https://localhost:{}", address.expect("it listens").1);
        let trusted = person.path("trusted.pem");
        fs::write(&trusted, chain).unwrap();
        let trust = [("SSL_CERT_FILE".to_owned(), trusted.display().to_string())];
        Self { _place: place, service, person, ca, trust }
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.person.path(name), text).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        self.person.run_with(arguments, &self.trust)
    }
}

#[test]
fn a_certificate_says_who_asks_by_flags_and_by_a_profile() {
    let meeting = Meeting::new();
    let identity = meeting.ca.sign("spiffe://example.org/ns/shop/sa/deploy");
    meeting.write("deploy.pem", &identity.certificate);
    meeting.write("deploy.key", &identity.key);
    meeting.write("both.pem", &identity.pem());
    let expected = ["kind: clientCertificate", "spiffe://example.org/ns/shop/sa/deploy", "- shop"];

    let flags = ["--client-cert", "deploy.pem", "--client-key", "deploy.key", "whoami"];
    meeting.run(&flags).succeeded().says_all(&expected);
    meeting.run(&["--client-cert", "both.pem", "whoami"]).succeeded().says_all(&expected);
    fs::create_dir_all(meeting.person.path(".config/certwright")).unwrap();
    let profile = "[profiles.shop]\nclient_cert = \"deploy.pem\"\nclient_key = \"deploy.key\"\n";
    meeting.write(".config/certwright/config.toml", profile);
    meeting.run(&["--profile", "shop", "whoami"]).succeeded().says_all(&expected);
    assert_eq!(meeting.run(&["whoami"]).code, Some(5), "nobody says who asks");
    meeting.service.stop().succeeded();
}

#[test]
fn the_audit_log_has_who_was_refused_in_the_handshake() {
    let Meeting { _place, mut service, mut person, trust, .. } = Meeting::new();
    let stranger = ClientCa::named("Others").sign("spiffe://example.org/ns/shop/sa/deploy");
    fs::write(person.path("stranger.pem"), stranger.pem()).unwrap();
    let refused = person.run_with(&["--client-cert", "stranger.pem", "whoami"], &trust);
    assert!(refused.err.contains("UnknownCA"), "{refused:?}");
    person.key = service.key().unwrap();

    let list = || person.run_with(&["audit", "list"], &trust).succeeded().out;
    service.until("the entry", |_| list().contains(" connect"));
    let listed = list();

    for part in ["refused", "127.0.0.1", "refused in the TLS handshake: invalid peer certificate"] {
        assert!(listed.contains(part), "{part}: {listed}");
    }
    service.stop().succeeded();
}

#[test]
fn a_certificate_that_is_of_no_use_is_named_with_what_to_do() {
    let meeting = Meeting::new();
    let wrong = meeting.ca.sign_with("spiffe://example.org/ns/shop/sa/deploy", |params| {
        params.extended_key_usages = vec![ServerAuth];
    });
    meeting.write("wrong.pem", &wrong.pem());
    meeting.write("key.pem", &wrong.key);
    for (arguments, code, words) in [
        (
            &["--client-cert", "wrong.pem"][..],
            5,
            "refuses the client certificate (UnsupportedCertificate)",
        ),
        (&["--client-cert", "wrong.pem", "--server", "http://localhost"], 2, "shown over TLS only"),
        (&["--client-cert", "key.pem"], 2, "expected PEM"),
        (&["--client-key", "key.pem"], 2, "--client-cert"),
        (&["--client-cert", "none.pem"], 1, "none.pem cannot be read"),
    ] {
        let ended = meeting.run(&[arguments, &["whoami"]].concat());
        assert_eq!(ended.code, Some(code), "{ended:?}");
        assert!(ended.err.contains(words), "{words}: {ended:?}");
    }
    meeting.service.stop().succeeded();
}
