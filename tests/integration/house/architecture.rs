//! Who may know whom. Breaking a rule here is a design decision, not a slip.

use std::path::{Path, PathBuf};

/// Layers from the inside out; each may use itself and what stands beside it.
const LAYERS: &[(&str, &[&str])] = &[
    ("failpoint", &[]),
    ("clock", &[]),
    ("heavy", &[]),
    ("secret", &[]),
    ("domain", &["secret"]),
    ("config", &["domain", "secret"]),
    ("telemetry", &["clock", "config", "domain"]),
    ("pki", &["domain", "secret"]),
    ("validation", &["domain"]),
    ("view", &["domain", "secret"]),
    ("storage", &["domain", "secret", "telemetry", "view"]),
    ("outbound", &["clock", "domain"]),
    ("oidc", &["domain", "outbound"]),
    ("acme", &["domain", "secret"]),
    ("ca", &["acme", "clock", "domain", "outbound", "secret", "telemetry"]),
    ("solver", &["clock", "domain", "secret", "outbound", "telemetry"]),
    (
        "worker",
        &[
            "ca",
            "clock",
            "domain",
            "heavy",
            "outbound",
            "pki",
            "secret",
            "solver",
            "storage",
            "telemetry",
        ],
    ),
    ("yaml", &[]),
    ("manifest", &["domain", "validation", "view", "yaml"]),
    ("client", &["secret"]),
    (
        "health",
        &[
            "bootstrap",
            "ca",
            "clock",
            "domain",
            "secret",
            "server",
            "storage",
            "telemetry",
            "worker",
        ],
    ),
    (
        "api",
        &[
            "clock",
            "domain",
            "health",
            "heavy",
            "manifest",
            "oidc",
            "outbound",
            "pki",
            "secret",
            "server",
            "storage",
            "telemetry",
            "validation",
            "view",
        ],
    ),
    ("server", &[]),
    ("server_certificate", &["config", "pki", "secret", "server", "storage"]),
    ("shutdown", &[]),
    ("systemd", &[]),
    ("hangup", &["config", "telemetry"]),
    ("audit", &["clock", "domain", "storage", "telemetry"]),
    ("reseal", &["bootstrap", "domain", "secret", "storage"]),
    ("transit", &["config", "secret"]),
    ("verify", &["secret", "storage"]),
    ("bootstrap", &["clock", "config", "domain", "secret", "storage", "transit"]),
    ("backup", &["bootstrap", "clock", "config", "storage"]),
];

/// The composition root: the only places that name everything.
const ROOT: &[&str] = &["service", "cli", "main", "lib", "fuzzing"];

/// Libraries that only these layers may name.
const OWNED: &[(&str, &[&str])] = &[
    ("sqlx::", &["storage"]),
    ("axum::", &["api", "server"]),
    ("hyper::", &["server"]),
    ("hyper_util::", &["server"]),
    ("utoipa_axum::", &["api"]),
    ("instant_acme::", &["ca"]),
    ("reqwest::", &["ca", "client", "oidc", "solver", "outbound", "telemetry", "transit"]),
    ("jsonwebtoken::", &["oidc"]),
    ("tokio_rustls::", &["client", "server"]),
    ("hickory_resolver::", &["solver", "outbound"]),
    ("rcgen::", &["pki"]),
    ("serde_saphyr::", &["yaml"]),
    ("p12_keystore::", &["pki"]),
    ("standardwebhooks::", &["domain"]),
    ("clap::", &["cli", "main"]),
    ("clap_complete::", &["cli"]),
    ("clap_mangen::", &["cli"]),
    ("indicatif::", &["cli"]),
    ("tracing_subscriber::", &["telemetry"]),
    ("prometheus::", &["telemetry"]),
    ("opentelemetry::", &["telemetry"]),
    ("opentelemetry_otlp::", &["telemetry"]),
    ("opentelemetry_sdk::", &["telemetry"]),
    ("flate2::", &["backup"]),
    ("procfs::", &["telemetry"]),
    ("pulldown_cmark::", &["api"]),
    ("rustix::", &["storage", "telemetry"]),
];

#[test]
fn every_layer_uses_only_the_layers_it_is_allowed_to() {
    for (layer, allowed) in LAYERS {
        for (file, text) in sources_of(layer) {
            for used in used_layers(&text) {
                assert!(
                    used == *layer || allowed.contains(&used.as_str()),
                    "{} may not use crate::{used}",
                    file.display()
                );
            }
        }
    }
}

#[test]
fn every_library_stays_in_the_layer_that_owns_it() {
    for layer in LAYERS.iter().map(|(layer, _)| *layer).chain(ROOT.iter().copied()) {
        for (file, text) in sources_of(layer) {
            for (library, owners) in OWNED.iter().filter(|(_, owners)| !owners.contains(&layer)) {
                assert!(
                    !names(&text, library),
                    "{}: only {} may name {library}",
                    file.display(),
                    owners.join(" and ")
                );
            }
        }
    }
}

/// What an ACME problem means is said once, in `acme` and `ca`; everybody else goes by class and code.
#[test]
fn nobody_but_ca_looks_at_acme_problem_types() {
    for layer in LAYERS.iter().map(|(layer, _)| *layer).chain(ROOT.iter().copied()) {
        for (file, text) in sources_of(layer) {
            if ["acme", "ca"].contains(&layer) || file.ends_with("tests.rs") {
                continue;
            }
            for line in code(&text) {
                assert!(
                    !line.contains("urn:ietf:params:acme") && !line.contains("urn:acme:"),
                    "{}: {line}",
                    file.display()
                );
                // It may be carried, but not be looked at.
                let looked_at = line.match_indices("acme_type").any(|(at, word)| {
                    line[..at].ends_with('.') || !line[at + word.len()..].starts_with(':')
                });
                assert!(!looked_at, "{}: {line}", file.display());
            }
        }
    }
}

/// Whoever saves a certificate or issuer has to say what happened, and so what is told: a transition
/// with nothing to tell is for the machines to make.
#[test]
fn nobody_but_the_machines_decides_that_there_is_nothing_to_tell() {
    for layer in ["worker", "api", "storage", "service", "cli", "bootstrap"] {
        for (file, text) in sources_of(layer) {
            let webhooks = file.ends_with("worker/delivery.rs");
            for line in code(&text).filter(|_| !webhooks) {
                let made = line.contains("Transition::silent(") || line.contains("Transition {");
                let taken = line.contains("let ") || line.contains("-> ");
                assert!(!made || taken, "{}: {line}", file.display());
            }
        }
    }
}

/// The outbox is written where changes are committed, and by nobody else.
#[test]
fn only_its_own_modules_write_the_outbox() {
    let written = |text: &str, table: &str| {
        let words: Vec<_> = code(text).flat_map(str::split_whitespace).collect();
        words.windows(2).any(|pair| {
            let verb = pair[0].trim_start_matches(|c: char| !c.is_ascii_uppercase());
            ["INTO", "UPDATE", "FROM"].contains(&verb) && pair[1] == table
        })
    };
    for (file, text) in sources_of("storage") {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        for (table, owners) in
            [("messages", &["outbox"][..]), ("deliveries", &["deliveries", "outbox"])]
        {
            let ours = owners.contains(&name.as_str());
            assert!(ours || !written(&text, table), "{} writes {table}", file.display());
        }
    }
    for layer in ["worker", "api", "service", "cli", "bootstrap"] {
        for (file, text) in sources_of(layer) {
            assert!(!text.contains("outbox::write"), "{}", file.display());
        }
    }
}

#[test]
fn every_module_belongs_to_a_layer() {
    let known: Vec<&str> =
        LAYERS.iter().map(|(layer, _)| *layer).chain(ROOT.iter().copied()).collect();
    for entry in std::fs::read_dir(source_root()).expect("src can be read").flatten() {
        let name = entry.path().file_stem().unwrap_or_default().to_string_lossy().into_owned();
        assert!(known.contains(&name.as_str()), "src/{name}: say in this test who may know it");
    }
}

/// Without the feature the tests that kill the program are not there; with differing features everything
/// would be compiled twice.
#[test]
fn everything_that_is_tested_is_compiled_with_the_failpoints() {
    let makefile = include_str!("../../../Makefile");
    let commands = ["cargo test", "cargo clippy", "cargo doc", "cargo run"];
    let lines = makefile.lines().filter(|line| line.starts_with('\t'));
    let lines: Vec<_> =
        lines.filter(|line| commands.iter().any(|command| line.contains(command))).collect();
    assert!(lines.len() > 5, "{lines:?}");
    for line in lines {
        assert!(line.contains("$(TESTED)"), "{line}");
    }
    assert!(makefile.contains("TESTED := --features failpoints\n"));
    let these = cfg!(feature = "failpoints");
    assert!(these, "run the tests by `make test`, or with `--features failpoints`");
}

/// `crate::x` wherever it stands, not only at the beginning of a `use`.
fn used_layers(text: &str) -> Vec<String> {
    code(text)
        .flat_map(|line| {
            line.split("crate::").skip(1).map(|rest| {
                rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>()
            })
        })
        .filter(|word| !word.is_empty())
        .collect()
}

fn names(text: &str, library: &str) -> bool {
    code(text).any(|line| {
        line.match_indices(library).any(|(at, _)| {
            !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
        })
    })
}

/// Lines without comments, up to the tests in the file: these may name what they like.
pub(crate) fn code(text: &str) -> impl Iterator<Item = &str> {
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    text[..end].lines().filter(|line| !line.trim_start().starts_with("//"))
}

pub(super) fn source_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

pub(crate) fn sources_of(layer: &str) -> Vec<(PathBuf, String)> {
    let mut files = vec![source_root().join(format!("{layer}.rs"))];
    let mut folders = vec![source_root().join(layer)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    let read = |file: PathBuf| {
        let text = std::fs::read_to_string(&file).expect("a source file can be read");
        (file, text)
    };
    files.into_iter().filter(|file| file.is_file()).map(read).collect()
}
