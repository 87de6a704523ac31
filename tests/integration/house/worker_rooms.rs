//! The rooms of the worker: every import in `src/worker` runs downwards.

use std::path::Path;

use super::architecture::{code, source_root, sources_of};

/// The modules of `src/worker`; each knows only those before it.
const ROOMS: &[&str] = &[
    "error",
    "limits",
    "pulse",
    "context",
    "credentials",
    "judgement",
    "preflight",
    "order",
    "revocation",
    "certificate",
    "issuer",
    "delivery",
    "expiry",
    "orphaned_records",
    "policy_review",
    "housekeeping",
    "steps",
    "pool",
];

#[test]
fn imports_in_the_worker_run_downwards() {
    let root = source_root().join("worker");
    let mut imports = 0;
    for (file, text) in sources_of("worker") {
        let inside = file.strip_prefix(&root).expect("it is below the root");
        if inside == Path::new("mod.rs") {
            continue;
        }
        let name = inside.iter().next().expect("it has a name").to_string_lossy().into_owned();
        let own = place(name.trim_end_matches(".rs"));
        // `super` is the worker itself only for the module of a room.
        let is_room = inside.iter().count() == 1 || inside.ends_with("mod.rs");
        let prefixes =
            if is_room { &["crate::worker::", "super::"][..] } else { &["crate::worker::"] };
        let text = code(&text).collect::<Vec<_>>().join(" ");
        for used in prefixes.iter().flat_map(|prefix| used_rooms(&text, prefix)) {
            imports += 1;
            assert!(place(&used) <= own, "{} may not use worker::{used}", file.display());
        }
    }
    assert!(imports > 50, "only {imports} imports were found");
}

/// What a machine has decided is stored as it is; what has to be added is a method of its result.
#[test]
fn nobody_edits_the_result_of_a_machine() {
    for (file, text) in sources_of("worker") {
        for line in code(&text) {
            let is_edit = [".certificate.", ".issuer.", ".order."].iter().any(|part| {
                line.split_once(part).is_some_and(|(_, field)| {
                    let rest = field.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
                    rest.trim_start().starts_with("= ")
                })
            });
            let is_addition =
                [".events.push(", ".events.extend("].iter().any(|part| line.contains(part));
            assert!(!is_edit && !is_addition, "{}: {line}", file.display());
        }
    }
}

fn place(room: &str) -> usize {
    let found = ROOMS.iter().position(|known| *known == room);
    found.unwrap_or_else(|| panic!("worker::{room}: say in this test what it may know"))
}

/// The modules that follow a prefix, by themselves or in braces.
fn used_rooms(text: &str, prefix: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    text.split(prefix)
        .skip(1)
        .flat_map(|rest| match rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
            Some((group, _)) => {
                group.split(',').map(|one| word(one.trim())).collect::<Vec<String>>()
            }
            None => vec![word(rest)],
        })
        .filter(|word| !word.is_empty())
        .collect()
}
