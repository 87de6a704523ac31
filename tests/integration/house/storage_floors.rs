//! The floors of storage: every import in `src/storage` runs downwards.

use super::architecture::{code, sources_of};

/// The floors from the ground up, with what each may know of the crate besides storage. The cache and the
/// database that has it are above all floors; tables read through the cache.
const FLOORS: &[(&str, &[&str])] = &[
    ("engine", &["secret", "telemetry"]),
    ("queue", &["domain"]),
    ("tables", &["domain", "secret", "telemetry", "view"]),
    ("cache.rs", &["domain", "secret"]),
    ("mod.rs", &["domain"]),
];

#[test]
fn imports_in_storage_run_downwards() {
    let mut imports = 0;
    for (file, text) in sources_of("storage") {
        let path = file.to_string_lossy().into_owned();
        let inside = path.split("src/storage/").nth(1).expect("it is below storage");
        let floor = inside.split('/').next().expect("it has a name");
        let height = FLOORS.iter().position(|(known, _)| *known == floor);
        let height = height.unwrap_or_else(|| panic!("{path}: say in this test where it stands"));
        let text = code(&text).collect::<Vec<_>>().join(" ");
        for used in words_after(&text, "crate::") {
            let allowed = used == "storage" || FLOORS[height].1.contains(&used.as_str());
            assert!(allowed, "{path} may not use crate::{used}");
        }
        for used in words_after(&text, "crate::storage::") {
            imports += 1;
            let known = FLOORS[..=height].iter().any(|(below, _)| *below == used);
            let is_root = used == "Db" && floor == "tables";
            assert!(known || is_root, "{path} may not use storage::{used}");
        }
    }
    assert!(imports > 50, "only {imports} imports were found");
}

#[test]
fn the_engine_has_no_statement_about_a_table() {
    for (file, text) in sources_of("storage") {
        let path = file.to_string_lossy().into_owned();
        if !path.contains("/engine/") {
            continue;
        }
        let code = code(&text).collect::<Vec<_>>().join("\n");
        for table in ["certificates", "orders", "issuers", "webhooks", "events", "api_keys"] {
            for verb in ["FROM", "INTO", "UPDATE", "JOIN"] {
                assert!(!code.contains(&format!("{verb} {table}")), "{path}: {verb} {table}");
            }
        }
    }
}

fn words_after<'t>(text: &'t str, prefix: &'t str) -> impl Iterator<Item = String> + 't {
    text.match_indices(prefix).filter_map(move |(at, _)| {
        // `$crate::` in a macro is the same crate.
        let is_whole = !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
        let rest = &text[at + prefix.len()..];
        let word =
            rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
        (is_whole && !word.is_empty()).then_some(word)
    })
}
