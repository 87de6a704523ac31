//! The fuzzer's targets run over inputs that are there in every run: the corpora of `fuzz/`, and the files of the
//! Python package `cryptography-vectors`.

use std::collections::BTreeSet;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use certwright::fuzzing::{TARGETS, run};

/// Files of others: each is a CSR, a certificate or a key, or should not be taken for one.
const VECTORS: &str = "target/tools/cryptography-vectors";

/// The targets that are run over them.
const TAKE_VECTORS: [&str; 2] = ["csr", "pem"];

#[test]
fn every_target_has_a_program_for_the_fuzzer_and_a_corpus() {
    let targets: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let programs: BTreeSet<_> = files(&root("fuzz/fuzz_targets")).iter().map(stem).collect();
    let corpora = std::fs::read_dir(root("fuzz/corpus")).unwrap().flatten();
    let corpora: BTreeSet<_> = corpora.map(|entry| stem(entry.path())).collect();

    assert_eq!((&programs, &corpora), (&targets, &targets));
    for name in targets {
        let program = std::fs::read_to_string(root(&format!("fuzz/fuzz_targets/{name}.rs")));
        assert!(program.unwrap().contains(&format!("run(\"{name}\", ")), "{name} runs another");
    }
}

#[test]
fn nothing_in_the_corpora_breaks_what_holds_of_every_input() {
    let broken = TARGETS.iter().flat_map(|(target, _)| {
        let inputs = files(&root(&format!("fuzz/corpus/{target}")));
        assert!(inputs.len() >= 5, "{target} has only {} inputs", inputs.len());
        breaking(target, &inputs)
    });
    assert_eq!(broken.collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn nothing_in_the_vectors_of_others_breaks_what_holds_of_every_input() {
    let inputs = files(&root(VECTORS));
    assert!(inputs.len() >= 1_000, "only {} files in {VECTORS}; run scripts/setup", inputs.len());
    let broken = TAKE_VECTORS.iter().flat_map(|target| breaking(target, &inputs));
    assert_eq!(broken.collect::<Vec<_>>(), Vec::<String>::new());
}

/// The inputs that a target fails on.
fn breaking(target: &str, inputs: &[PathBuf]) -> Vec<String> {
    let breaks = |input: &&PathBuf| {
        let bytes = std::fs::read(input).unwrap();
        catch_unwind(|| run(target, &bytes)).is_err()
    };
    inputs.iter().filter(breaks).map(|input| format!("{target}: {}", input.display())).collect()
}

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn stem(path: impl AsRef<Path>) -> String {
    path.as_ref().file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// All files below a folder, in the order of their names.
fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}
