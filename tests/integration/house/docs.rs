//! Every block of README.md and docs/*.md that is a command or a document works as it is written.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::databases;
use crate::support::person::Person;
use crate::support::process::output;
use crate::support::site::Site;

/// A block, and why it is not run if it is not.
struct Block {
    page: String,
    line: usize,
    language: String,
    text: String,
    norun: Option<String>,
}

fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec![root.join("README.md")];
    pages.extend(fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path()));
    pages.retain(|page| page.extension().is_some_and(|kind| kind == "md"));
    pages.sort();
    pages
}

/// The blocks of a page. Those of the language `text` are neither commands nor documents.
fn blocks(page: &Path) -> Vec<Block> {
    let text = fs::read_to_string(page).unwrap();
    let mut found: Vec<Block> = Vec::new();
    let (mut open, mut norun) = (false, None);
    for (number, line) in (1..).zip(text.lines()) {
        match line.strip_prefix("```") {
            Some(_) if open => open = false,
            Some(language) => {
                open = true;
                found.push(Block {
                    page: page.file_name().unwrap().to_str().unwrap().to_owned(),
                    line: number,
                    language: language.to_owned(),
                    text: String::new(),
                    norun: norun.take(),
                });
            }
            None if open => found.last_mut().unwrap().text.extend([line, "\n"]),
            None => {
                norun = line
                    .strip_prefix("<!-- norun: ")
                    .and_then(|rest| rest.strip_suffix(" -->"))
                    .map(str::to_owned);
            }
        }
    }
    found.retain(|block| !block.language.is_empty() && block.language != "text");
    found
}

/// Blocks that are not run, by page: each has its reason beside it.
const NOT_RUN: &[(&str, usize)] = &[
    ("README.md", 2),
    ("at-rest.md", 2),
    ("audit.md", 3),
    ("authentication.md", 4),
    ("backup.md", 2),
    ("clients.md", 8),
    ("installation.md", 2),
    ("operations.md", 1),
    ("performance.md", 2),
    ("policies.md", 3),
    ("reliability.md", 1),
    ("webhooks.md", 3),
];

#[test]
fn blocks_that_are_not_run_say_why_and_are_counted() {
    let mut listed = String::new();
    let mut counted: Vec<(String, usize)> = Vec::new();
    for block in pages().iter().flat_map(|page| blocks(page)) {
        let Some(reason) = &block.norun else { continue };
        assert!(reason.len() > 5, "{}:{} has no reason", block.page, block.line);
        writeln!(listed, "{}:{}: {reason}", block.page, block.line).unwrap();
        match counted.last_mut() {
            Some((page, count)) if *page == block.page => *count += 1,
            _ => counted.push((block.page, 1)),
        }
    }
    println!("{listed}");
    let counted: Vec<(&str, usize)> =
        counted.iter().map(|(page, count)| (&**page, *count)).collect();
    assert_eq!(counted, NOT_RUN, "{listed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_other_block_works_as_it_is_written() {
    for page in pages() {
        let blocks: Vec<Block> =
            blocks(&page).into_iter().filter(|block| block.norun.is_none()).collect();
        if blocks.iter().any(|block| matches!(&*block.language, "sh" | "yaml" | "toml")) {
            let (_folder, url) = databases::sqlite_url();
            let site = Site::on(&url).await;
            run(&site, &blocks);
        }
        for block in blocks.iter().filter(|block| block.language == "json") {
            let read = serde_json::from_str::<serde_json::Value>(&block.text);
            assert!(read.is_ok(), "{}:{}: {read:?}", block.page, block.line);
        }
    }
}

/// Runs the blocks of a page in one shell, each after the other.
fn run(site: &Site, blocks: &[Block]) {
    let person = Person::of(site);
    furnish(site, &person);
    let mut script = "set -eu\n".to_owned();
    for block in blocks {
        let text = here(site, &person, &block.text);
        writeln!(script, "echo '{}:{}' >&2", block.page, block.line).unwrap();
        match &*block.language {
            "sh" => script.push_str(&text),
            "yaml" => write!(script, "certwright apply -f - <<'END-OF-BLOCK'\n{text}END-OF-BLOCK\n").unwrap(),
            // The profiles of a client.
            "toml" if text.starts_with("default =") => write!(script, "mkdir -p .config/certwright\ncat > .config/certwright/config.toml <<'END-OF-BLOCK'\n{text}END-OF-BLOCK\ncertwright whoami\n").unwrap(),
            "toml" => write!(script, "cat > block.toml <<'END-OF-BLOCK'\n{text}END-OF-BLOCK\ncertwright --config block.toml config > block.txt\n").unwrap(),
            "json" => {}
            other => panic!("{}:{}: nothing runs a block of the language `{other}`; mark it `norun`", block.page, block.line),
        }
    }
    let path = format!(
        "{}:{}",
        person.path("bin").display(),
        std::env::var_os("PATH").unwrap_or_default().display()
    );
    let mut bash = Command::new("bash");
    bash.args(["-c", &script]).current_dir(person.home.path()).env_clear().env("PATH", path);
    bash.env("HOME", person.home.path())
        .env("CERTWRIGHT_SERVER", &person.server)
        .env("CERTWRIGHT_API_KEY", &person.key);
    let ended = output(&mut bash);
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "after {}:\n{said}", blocks[0].page);
}

/// A block with what has to be another here: the CA, the DNS provider, its token, the server and files.
fn here(site: &Site, person: &Person, text: &str) -> String {
    let ca = format!(
        "server: {}\n    caBundle: {}\n",
        site.pebble.directory_url(),
        site.pebble.ca_bundle()
    );
    let cloudflare = format!("{{cloudflare: {{baseURL: \"{}\", ", site.cloudflare.base_url());
    text.replace("server: https://acme-staging-v02.api.letsencrypt.org/directory\n", &ca)
        .replace("server: https://acme-v02.api.letsencrypt.org/directory\n", &ca)
        .replace("{cloudflare: {", &cloudflare)
        .replace("api-token: \"…\"", &format!("api-token: \"{}\"", site.cloudflare.token()))
        .replace("cw_…", &person.key)
        .replace("localhost:8080", &site.api.to_string())
        .replace("/etc/letsencrypt", "letsencrypt")
        .replace("/var/run/secrets/kubernetes.io/serviceaccount/ca.crt", "ca.crt")
        .replace("/etc/certwright/clients.pem", "ca.crt")
        .replace("/run/secrets/vault-token", "token")
}

/// The programs of the blocks, and the files that other clients would have left.
fn furnish(site: &Site, person: &Person) {
    let bin = person.path("bin");
    fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_certwright"), bin.join("certwright")).unwrap();
    let issued = person.run(&[
        "issue",
        "a.example.com",
        "b.example.com",
        "--issuer",
        "dns",
        "--wait",
        "--out",
        "issued",
    ]);
    issued.succeeded();
    fs::write(person.path("letsencrypt.yaml"), here(site, person, LETSENCRYPT)).unwrap();
    person.run(&["apply", "-f", "letsencrypt.yaml"]).succeeded();
    for (name, cert, key) in [
        ("a", "letsencrypt/live/my_cert/fullchain.pem", "letsencrypt/live/my_cert/privkey.pem"),
        (
            "b",
            ".acme.sh/b.example.com_ecc/fullchain.cer",
            ".acme.sh/b.example.com_ecc/b.example.com.key",
        ),
        ("b", ".lego/certificates/_.b.example.com.crt", ".lego/certificates/_.b.example.com.key"),
        (
            "a",
            ".local/share/caddy/certificates/ca/a.example.com/a.example.com.crt",
            ".local/share/caddy/certificates/ca/a.example.com/a.example.com.key",
        ),
        ("a", "tls.crt", "tls.key"),
    ] {
        for (file, to) in [("fullchain.pem", cert), ("privkey.pem", key)] {
            let to = person.path(to);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(person.path(&format!("issued/{name}.example.com/{file}")), to).unwrap();
        }
    }
    fs::copy(person.path("tls.crt"), person.path("ca.crt")).unwrap();
    fs::write(person.path("token"), "token").unwrap();
    fs::write(person.path("kubernetes.sh"), KUBECTL).unwrap();
    fs::copy(person.path("kubernetes.sh"), bin.join("kubectl")).unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(bin.join("kubectl"), executable).unwrap();
}

/// The issuer that pages speak of.
const LETSENCRYPT: &str = "apiVersion: cert-manager.io/v1
kind: ClusterIssuer
metadata: {name: letsencrypt}
spec:
  acme:
    server: https://acme-v02.api.letsencrypt.org/directory
    solvers:
    - http01: {}
";

/// A cluster with an issuer, a certificate and its Secret.
const KUBECTL: &str = r#"#!/bin/sh
base64() { command base64 -w 0 "$1"; }
case "$*" in
*issuer*) echo '{"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "cert-manager.io/v1", "kind": "ClusterIssuer",
  "metadata": {"name": "other"}, "spec": {"acme": {"server": "https://ca.example/directory", "solvers": [{"http01": {}}]}}}]}' ;;
*) echo '{"apiVersion": "v1", "kind": "List", "items": [
  {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": "web-tls", "namespace": "web"},
   "data": {"tls.crt": "'$(base64 tls.crt)'", "tls.key": "'$(base64 tls.key)'"}},
  {"apiVersion": "cert-manager.io/v1", "kind": "Certificate", "metadata": {"name": "web", "namespace": "web"},
   "spec": {"secretName": "web-tls", "dnsNames": ["a.example.com"], "issuerRef": {"kind": "ClusterIssuer", "name": "letsencrypt"}}}]}' ;;
esac
"#;
