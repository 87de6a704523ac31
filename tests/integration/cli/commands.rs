//! All commands: their help, whom they speak to and as whom, and how they fail.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::json;

use crate::support::person::Person;
use crate::support::site::Site;
use crate::support::{ClosedPort, databases};

const COMMANDS: [&str; 32] = [
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
    "diff",
    "status",
    "issue",
    "can",
    "renew",
    "download",
    "revoke",
    "delete",
    "logs",
    "events",
    "wait",
    "edit",
    "certificates",
    "certificates set",
    "version",
    "inspect",
    "issuers",
    "keys",
    "secrets",
    "webhooks",
    "completion",
    "status certificate",
];

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
        (refused.code, refused.err.contains("--api-key-file")),
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
fn shells_get_a_script_that_asks_the_program() {
    for shell in ["bash", "zsh", "fish"] {
        let script = Person::nowhere().run(&["completion", shell]).succeeded().out;
        assert!(script.contains("CERTWRIGHT_COMPLETE"), "{shell}: {script}");
    }
}

#[test]
fn every_command_has_a_man_page_with_its_examples() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().to_str().unwrap();
    Person::nowhere().run(&["help", "--man", pages]).succeeded();
    for command in COMMANDS {
        let name = format!("certwright-{}.1", command.replace(' ', "-"));
        let page = fs::read_to_string(folder.path().join(&name)).unwrap_or_default();
        assert!(page.contains(".SH EXAMPLES\n.nf\n  certwright "), "{name}: {page}");
    }
    let first = fs::read_to_string(folder.path().join("certwright.1")).unwrap();
    assert!(first.contains("certwright\\-serve(1)"), "{first}");
    assert!(!folder.path().join("certwright-help.1").exists(), "what is hidden has no page");

    let refused = Person::nowhere().run(&["help", "--man", &format!("{pages}/nowhere")]);
    assert!(refused.code == Some(1) && refused.err.contains("has to exist"), "{refused:?}");
}
