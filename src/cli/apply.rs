//! `certwright apply`: applies manifests.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::Value;

use super::output::{Colour, note, paint, print, text};
use super::remote::{Session, Within};
use crate::client::{Ask, Body, ClientError};
use crate::manifest::kind::Kind;
use crate::yaml;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  certwright apply -f issuer.yaml
  certwright apply -f manifests/ -n team
  kubectl get clusterissuer,issuer,certificate -A -o yaml | certwright apply -f -
  certwright apply -f . --dry-run

Everything is checked first, and applied in one go: all of it, or nothing. docs/manifests.md says
which fields are kept, which are passed over with a warning, and which are refused.")]
pub(super) struct Apply {
    /// A file, a folder of .yaml, .yml and .json files, or `-` for standard input
    #[arg(short = 'f', long = "filename", required = true, value_name = "FILE|DIR|-")]
    files: Vec<PathBuf>,
    /// Where objects go that name no namespace
    #[command(flatten)]
    place: Within,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
    /// Do not show warnings
    #[arg(long)]
    quiet: bool,
}

impl Apply {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let stream = Stream::read(&self.files)?;
        let namespace = session.within(&self.place);
        let results = stream.send(session, "/apply", &namespace, self.dry_run).await?;
        report(&results, self.quiet)
    }
}

/// Manifests of several files as one stream, and where each came from.
pub(super) struct Stream {
    text: String,
    /// Each file with the line of the stream, from 1, that its first line has become.
    files: Vec<(String, u32)>,
}

impl Stream {
    /// Reads files, folders and standard input.
    pub(super) fn read(places: &[PathBuf]) -> anyhow::Result<Self> {
        let mut stream = Self { text: String::new(), files: Vec::new() };
        for place in places {
            if place == Path::new("-") {
                let mut text = String::new();
                std::io::stdin()
                    .read_to_string(&mut text)
                    .context("standard input cannot be read")?;
                stream.push("standard input", &text);
                continue;
            }
            let files = if place.is_dir() { manifests_in(place)? } else { vec![place.clone()] };
            for file in files {
                let shown = file.display().to_string();
                let text =
                    fs::read_to_string(&file).with_context(|| format!("{shown} cannot be read"))?;
                stream.push(&shown, &text);
            }
        }
        Ok(stream)
    }

    /// A stream of one text.
    pub(super) fn of(name: &str, text: &str) -> Self {
        let mut stream = Self { text: String::new(), files: Vec::new() };
        stream.push(name, text);
        stream
    }

    fn push(&mut self, name: &str, text: &str) {
        if !self.text.is_empty() {
            if !self.text.ends_with('\n') {
                self.text.push('\n');
            }
            self.text.push_str("---\n");
        }
        let line = u32::try_from(self.text.lines().count() + 1).unwrap_or(u32::MAX);
        self.files.push((name.to_owned(), line));
        self.text.push_str(text);
    }

    /// The kind, namespace and name of everything that it describes, lists unfolded.
    pub(super) fn described(&self) -> anyhow::Result<Vec<(Kind, Option<String>, String)>> {
        let documents = yaml::read(&self.text).map_err(|error| {
            let (file, line) = self.place(Some(error.line));
            anyhow::anyhow!("{file}:{line}: this is not YAML: {}", error.problem)
        })?;
        let mut found = Vec::new();
        let mut rest: Vec<Value> = documents.into_iter().map(|one| one.value).rev().collect();
        while let Some(one) = rest.pop() {
            if let Some(Value::Array(items)) = one.get("items") {
                rest.extend(items.iter().rev().cloned());
                continue;
            }
            let kind = Kind::parse(&text(&one, "/kind"))?;
            let namespace = Some(text(&one, "/metadata/namespace"));
            let namespace = namespace.filter(|namespace| !namespace.is_empty());
            found.push((kind, namespace, text(&one, "/metadata/name")));
        }
        Ok(found)
    }

    /// Sends the stream; faults are reported by file and line.
    pub(super) async fn send(
        &self,
        session: &Session,
        path: &str,
        namespace: &str,
        dry_run: bool,
    ) -> anyhow::Result<Value> {
        let mut query = vec![("namespace", namespace)];
        if dry_run {
            query.push(("dryRun", "true"));
        }
        let ask = Ask { query: &query, ..Ask::post(path, Body::Yaml(&self.text)) };
        match session.client.json(ask).await {
            Err(ClientError::Refused(problem))
                if problem.errors.iter().any(|one| one.line.is_some()) =>
            {
                for fault in &problem.errors {
                    let (file, line) = self.place(fault.line);
                    let pointer = if fault.pointer.is_empty() {
                        ""
                    } else {
                        &*format!(" {}:", fault.pointer)
                    };
                    note(&format!("{file}:{line}:{pointer} {}", fault.detail));
                }
                let count = problem.errors.len();
                let things = if count == 1 {
                    "1 thing is".to_owned()
                } else {
                    format!("{count} things are")
                };
                bail!("{things} wrong with the manifests; nothing was applied");
            }
            answer => Ok(answer?),
        }
    }

    /// The file and the line in it that a line of the stream came from.
    fn place(&self, line: Option<u32>) -> (&str, u32) {
        let line = line.unwrap_or_default();
        let file = self.files.iter().rev().find(|(_, first)| *first <= line);
        file.or(self.files.first())
            .map_or(("", line), |(name, first)| (name, (line + 1).saturating_sub(*first)))
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

/// A line for each object, as kubectl prints it; warnings to standard error.
pub(super) fn report(results: &Value, quiet: bool) -> anyhow::Result<()> {
    let dry = if results.get("dryRun") == Some(&Value::Bool(true)) { " (dry run)" } else { "" };
    for one in results.get("results").and_then(Value::as_array).into_iter().flatten() {
        let (kind, name) = (text(one, "/kind"), text(one, "/name"));
        let kind = Kind::parse(&kind).map_or(kind, |kind| kind.full().to_owned());
        print(&format!("{kind}/{name} {}{dry}\n", text(one, "/result")))?;
        let warnings = one.get("warnings").and_then(Value::as_array).into_iter().flatten();
        for warning in warnings.filter_map(Value::as_str).filter(|_| !quiet) {
            note(&format!("{} {kind}/{name}: {warning}", paint(Colour::Yellow, "warning:")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_stream_is_led_back_to_its_file() {
        let mut stream = Stream::of("a.yaml", "kind: A\nspec: 1\n");
        stream.push("b.yaml", "kind: B");
        stream.push("c.yaml", "kind: C\n");

        assert_eq!(stream.text, "kind: A\nspec: 1\n---\nkind: B\n---\nkind: C\n");
        for (line, place) in
            [(1, ("a.yaml", 1)), (2, ("a.yaml", 2)), (4, ("b.yaml", 1)), (6, ("c.yaml", 1))]
        {
            assert_eq!(stream.place(Some(line)), place);
        }
    }
}
