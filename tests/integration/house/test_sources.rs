//! What the tests may depend on: not on how fast or how busy a machine is, and not on a certain port.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::process::output;

/// Words of tests that measure time, wait for it, or end a wait early.
const TIMED: &[&str] = &["elapsed()", "sleep(", "timeout("];

/// Where they may stand all the same, how often, and why no result depends on it. What happens is waited for
/// with `support::patience`, Tokio's time is stopped with `support::stopped_clock`, and the service's own time
/// moved with its clock (`support::world`, `support::driven`): who needs more than that says so here.
const ALLOWED: &[(&str, usize, &str)] = &[
    ("tests/support/patience.rs", 1, "the guard against hanging itself"),
    ("tests/support/cloudflare/dns.rs", 1, "DNS that shows records late, or never"),
    ("tests/support/installation.rs", 6, "looks again, for as long as the guard says"),
    ("tests/support/openbao.rs", 1, "the guard, for requests"),
    ("tests/support/openid_provider.rs", 1, "the guard, for requests"),
    ("tests/support/pebble.rs", 1, "the guard, for requests"),
    ("tests/support/person.rs", 1, "looks again, for as long as the guard says"),
    ("tests/support/process.rs", 2, "looks again, for as long as the guard says"),
    ("tests/support/receiver.rs", 1, "the guard, with what came instead"),
    (
        "tests/support/site.rs",
        3,
        "looks again, for as long as the guard says, and the guard of requests",
    ),
    ("tests/integration/api/certificates.rs", 1, "what must not come has time to come"),
    ("tests/integration/cli/backup.rs", 1, "the guard, for requests"),
    ("tests/integration/cli/place.rs", 3, "looks again, for as long as the guard says"),
    ("tests/integration/network/connections.rs", 9, "guards against hanging"),
    ("tests/integration/network/connections_attacked.rs", 2, "guards against hanging"),
    ("tests/integration/network/proxies.rs", 3, "the guard, for requests"),
    ("tests/integration/webhooks/receivers.rs", 1, "the guard, for requests"),
    ("tests/integration/house/harness.rs", 1, "the guard, for requests"),
    ("tests/integration/api/event_stream.rs", 1, "what must not come has time to come"),
    ("tests/integration/issuance/expiry.rs", 1, "the guard against hanging"),
    ("tests/integration/api/long_answers.rs", 2, "guards against hanging"),
    (
        "tests/integration/resilience/short_lived.rs",
        2,
        "ten minutes of kills, for `make soak` only",
    ),
    ("tests/integration/ca/unusual_cas.rs", 1, "looks again"),
    ("tests/integration/issuance/renewal.rs", 1, "looks again"),
    (
        "tests/integration/resilience/side_by_side.rs",
        2,
        "a comparison for people, which holds nothing",
    ),
    ("src/outbound/turnstile.rs", 4, "time that stands still, and as much of it as was measured"),
    (
        "tests/integration/resilience/soak.rs",
        5,
        "tells how long it took, and gives up without progress",
    ),
];

/// Addresses with a port that is no more than text, or where nobody is to be reached.
const PORTS: &[(&str, usize, &str)] = &[
    (
        "tests/integration/cli/settings.rs",
        8,
        "settings that are shown, or refused before anybody listens",
    ),
    ("tests/integration/issuance/expiry.rs", 1, "a name server that is not asked"),
    ("tests/integration/house/docs.rs", 1, "what pages say, to be replaced"),
    ("tests/support/nginx.rs", 2, "what deploy/nginx.conf says, to be replaced"),
    ("tests/support/proxies.rs", 6, "what deploy/ says, to be replaced"),
    ("tests/integration/network/tenants.rs", 1, "where nobody is to be reached"),
    ("tests/integration/at_rest/transit.rs", 1, "where nobody is to be reached"),
    ("src/cli/healthcheck.rs", 2, "addresses of listeners, and where to ask them"),
    ("src/config/oidc.rs", 2, "settings that are read"),
    ("src/config/transit.rs", 1, "settings that are read"),
    ("src/config/show.rs", 1, "a setting that is shown"),
    ("src/config/sources.rs", 5, "settings that are read"),
    ("src/outbound/guard.rs", 1, "URLs that are judged"),
    ("src/outbound/sender.rs", 1, "a URL that is judged"),
];

#[test]
fn no_test_depends_on_how_fast_or_busy_a_machine_is() {
    let timed = |line: &str| TIMED.iter().any(|word| calls(line, word));
    assert_allowed(ALLOWED, &timed, "wait for what happens, or move a clock");
}

#[test]
fn no_test_depends_on_a_certain_port() {
    let fixed = |line: &str| {
        ["127.0.0.1:", "0.0.0.0:", "localhost:", "[::1]:", "[::]:"].iter().any(|host| {
            line.match_indices(host).any(|(at, _)| {
                let port = line[at + host.len()..].chars().next();
                port.is_some_and(|digit| ('1'..='9').contains(&digit))
            })
        })
    };
    assert_allowed(PORTS, &fixed, "let the kernel choose the port");
}

/// Whether a line uses a word as it stands, and not as the end of a longer one.
fn calls(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_')
    })
}

#[track_caller]
fn assert_allowed(list: &[(&str, usize, &str)], is_found: &dyn Fn(&str) -> bool, instead: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seen = 0;
    for file in sources(root) {
        let name = file.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&file).unwrap();
        let lines = tests_of(&name, &text);
        let found: Vec<_> = lines.filter(|line| is_found(line)).collect();
        let allowed = list.iter().find(|(listed, ..)| *listed == name);
        let count = allowed.map_or(0, |(_, count, _)| *count);
        assert_eq!(found.len(), count, "{name}: {instead}, or say here why not: {found:#?}");
        seen += usize::from(allowed.is_some());
    }
    assert_eq!(seen, list.len(), "a file that is listed is not there any more");
}

/// The lines of a file that are code of tests, but for this one.
fn tests_of<'a>(name: &str, text: &'a str) -> Box<dyn Iterator<Item = &'a str> + 'a> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    if name.ends_with("test_sources.rs") {
        return Box::new(std::iter::empty());
    }
    if name.starts_with("tests") || name.ends_with("tests.rs") {
        return Box::new(code);
    }
    Box::new(code.skip_while(|line| !line.starts_with("#[cfg(test)]")))
}

fn sources(root: &Path) -> Vec<PathBuf> {
    let mut folders = vec![root.join("tests"), root.join("src")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            match path.extension() {
                _ if path.is_dir() => folders.push(path),
                Some(extension) if extension == "rs" => files.push(path),
                _ => {}
            }
        }
    }
    files
}

/// A filter that finds no test passes.
#[test]
fn every_test_that_a_target_asks_for_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = ["Makefile", "scripts/reliability"].map(|file| root.join(file));
    let all = output(Command::new(std::env::current_exe().unwrap()).arg("--list")).stdout;
    let all = String::from_utf8(all).unwrap();
    let mut asked = 0;
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for (_, rest) in
            text.match_indices("--test integration ").map(|(at, it)| text[at..].split_at(it.len()))
        {
            let filter = rest.split_whitespace().next().unwrap();
            assert!(all.contains(filter), "{}: there is no test `{filter}`", file.display());
            asked += 1;
        }
    }
    assert_eq!(asked, 6, "targets that ask for tests");
}
