//! Manifests of several files as one stream, each line of which is known by its file.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::output::note;
use super::remote::Session;
use crate::client::{Ask, Body, ClientError, Problem};
use crate::manifest::kind::Kind;
use crate::manifest::read::{decode, stream};
use crate::validation::Refusal;

/// Manifests of several files as one stream, and where each came from.
#[derive(Default)]
pub(super) struct Stream {
    text: String,
    files: Vec<File>,
}

struct File {
    name: String,
    /// The line of the stream, from 1, that its first line has become.
    first: u32,
    /// Whether its lines are those of a file that people can look at.
    has_lines: bool,
}

/// How a stream is sent.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct How {
    pub(super) dry_run: bool,
    pub(super) strict: bool,
}

impl Stream {
    /// Reads files, folders and standard input.
    pub(super) fn read(places: &[PathBuf]) -> anyhow::Result<Self> {
        let mut stream = Self::default();
        for place in places {
            if place == Path::new("-") {
                let mut content = Vec::new();
                std::io::stdin()
                    .read_to_end(&mut content)
                    .context("standard input cannot be read")?;
                stream.push_file("standard input", &content)?;
                continue;
            }
            let files = if place.is_dir() { manifests_in(place)? } else { vec![place.clone()] };
            for file in files {
                let shown = file.display().to_string();
                let content = fs::read(&file).with_context(|| format!("{shown} cannot be read"))?;
                stream.push_file(&shown, &content)?;
            }
        }
        Ok(stream)
    }

    /// A stream of one text.
    pub(super) fn of(name: &str, text: &str) -> Self {
        let mut stream = Self::default();
        stream.push(name, text, true);
        stream
    }

    fn push_file(&mut self, name: &str, content: &[u8]) -> anyhow::Result<()> {
        let Some(text) = decode(content) else {
            bail!("{name} is neither UTF-8 nor UTF-16; save it as one of them");
        };
        self.push(name, &text, true);
        Ok(())
    }

    /// Adds a manifest that is made from other files, by whose name it goes.
    pub(super) fn push_made(&mut self, name: &str, text: &str) {
        self.push(name, text, false);
    }

    fn push(&mut self, name: &str, text: &str, has_lines: bool) {
        if !self.text.is_empty() {
            if !self.text.ends_with('\n') {
                self.text.push('\n');
            }
            // A directive may follow the end of a document only.
            self.text.push_str(if text.starts_with('%') { "...\n" } else { "---\n" });
        }
        let first = u32::try_from(self.text.lines().count() + 1).unwrap_or(u32::MAX);
        self.files.push(File { name: name.to_owned(), first, has_lines });
        self.text.push_str(text);
    }

    /// Its size in bytes.
    pub(super) fn len(&self) -> usize {
        self.text.len()
    }

    /// The kind, namespace and name of everything that it describes, lists unfolded. Kinds of others are passed over
    /// with a warning.
    pub(super) fn described(&self) -> anyhow::Result<Vec<(Kind, Option<String>, String)>> {
        let read = stream(&self.text).map_err(|refusal| match refusal {
            Refusal::Malformed(problem) => anyhow::anyhow!("{problem}"),
            Refusal::Invalid(faults) => {
                let told = faults
                    .iter()
                    .map(|fault| self.sentence(fault.line, &fault.pointer, &fault.detail));
                anyhow::anyhow!("{}", told.collect::<Vec<_>>().join("\n"))
            }
        })?;
        if let Some(fault) = read.faults.iter().next() {
            bail!("{}", self.sentence(fault.line, &fault.pointer, &fault.detail));
        }
        for fault in read.foreign.iter().flat_map(|one| one.faults.iter()) {
            note(&format!("passed over: {}", self.sentence(fault.line, "", &fault.detail)));
        }
        let objects = read.objects.into_iter();
        Ok(objects.map(|one| (one.kind, one.namespace, one.name)).collect())
    }

    /// Sends the stream; faults are reported by file and line.
    pub(super) async fn send(
        &self,
        session: &Session,
        path: &str,
        namespace: &str,
        How { dry_run, strict }: How,
    ) -> anyhow::Result<Value> {
        let mut query = vec![("namespace", namespace)];
        query.extend(dry_run.then_some(("dryRun", "true")));
        query.extend(strict.then_some(("strict", "true")));
        let ask = Ask { query: &query, ..Ask::post(path, Body::Yaml(&self.text)) };
        match session.client.json(ask).await {
            Err(ClientError::Refused(problem))
                if problem.errors.iter().any(|one| one.line.is_some()) =>
            {
                Err(self.refused(&problem))
            }
            answer => Ok(answer?),
        }
    }

    fn refused(&self, problem: &Problem) -> anyhow::Error {
        for fault in &problem.errors {
            note(&self.sentence(fault.line, &fault.pointer, &fault.detail));
        }
        let count = problem.errors.len();
        let things =
            if count == 1 { "1 thing is".to_owned() } else { format!("{count} things are") };
        anyhow::anyhow!("{things} wrong with the manifests; nothing was applied")
    }

    /// `FILE:LINE: POINTER: DETAIL`.
    pub(super) fn sentence(&self, line: Option<u32>, pointer: &str, detail: &str) -> String {
        let pointer = if pointer.is_empty() { String::new() } else { format!(" {pointer}:") };
        format!("{}:{pointer} {detail}", self.place(line))
    }

    /// The file, and the line in it, that a line of the stream came from.
    fn place(&self, line: Option<u32>) -> String {
        let line = line.unwrap_or_default();
        let file = self.files.iter().rev().find(|file| file.first <= line);
        match file.or(self.files.first()) {
            Some(file) if file.has_lines => {
                format!("{}:{}", file.name, (line + 1).saturating_sub(file.first))
            }
            file => file.map(|file| file.name.clone()).unwrap_or_default(),
        }
    }
}

/// The manifests in a folder, by name; not those in folders below it.
fn manifests_in(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = entries(folder)?;
    files.retain(|file| {
        let kind = file.extension().and_then(|kind| kind.to_str()).unwrap_or_default();
        file.is_file() && ["yaml", "yml", "json"].contains(&kind)
    });
    if files.is_empty() {
        bail!("there is no .yaml, .yml or .json file in {}", folder.display());
    }
    Ok(files)
}

/// What is in a folder, by name.
pub(super) fn entries(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let read = || {
        let entries = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path()));
        entries.collect::<std::io::Result<Vec<_>>>()
    };
    let mut entries = read().with_context(|| format!("{} cannot be read", folder.display()))?;
    entries.sort();
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_stream_is_led_back_to_its_file() {
        let mut stream = Stream::of("a.yaml", "kind: A\nspec: 1\n");
        stream.push_file("b.yaml", "\u{FEFF}kind: B".as_bytes()).unwrap();
        stream.push_made("live/www/fullchain.pem", "{}");
        stream.push("c.yaml", "%YAML 1.1\n---\nkind: C\n", true);

        let text = "kind: A\nspec: 1\n---\nkind: B\n---\n{}\n...\n%YAML 1.1\n---\nkind: C\n";
        assert_eq!(stream.text, text);
        for (line, place) in [
            (1, "a.yaml:1"),
            (2, "a.yaml:2"),
            (4, "b.yaml:1"),
            (6, "live/www/fullchain.pem"),
            (10, "c.yaml:3"),
        ] {
            assert_eq!(stream.place(Some(line)), place);
        }
    }
}
