//! `certwright apply`: manifests.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::output::{Colour, note, paint, print, text};
use super::remote::{Session, Within};
use super::stream::{How, Stream};
use crate::manifest::kind::Kind;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  certwright apply -f issuer.yaml
  certwright apply -f manifests/ -n team
  kubectl get clusterissuer,issuer,certificate -A -o yaml | certwright apply -f -
  certwright apply -f . --dry-run

Everything is checked first, and applied in one go: all of it, or nothing. Kinds of others, such as a
Namespace, are passed over with a warning. docs/manifests.md says which fields are kept, which are
passed over with a warning, and which are refused.")]
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
    /// Refuse kinds of others instead of passing them over
    #[arg(long)]
    strict: bool,
    /// Do not show warnings
    #[arg(long)]
    quiet: bool,
}

impl Apply {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let stream = Stream::read(&self.files)?;
        let namespace = session.within(&self.place);
        let how = How { dry_run: self.dry_run, strict: self.strict };
        let results = stream.send(session, "/apply", &namespace, how).await?;
        report(&results, self.quiet)?;
        left_out(&results, &stream, self.quiet);
        Ok(())
    }
}

/// A line for each object, as kubectl prints it; warnings to standard error.
pub(super) fn report(results: &Value, quiet: bool) -> anyhow::Result<()> {
    let dry = if results.get("dryRun") == Some(&Value::Bool(true)) { " (dry run)" } else { "" };
    for one in items(results, "results") {
        let (kind, name) = (text(one, "/kind"), text(one, "/name"));
        let kind = Kind::parse(&kind).map_or(kind, |kind| kind.full().to_owned());
        print(&format!("{kind}/{name} {}{dry}\n", text(one, "/result")))?;
        for warning in items(one, "warnings").filter_map(Value::as_str).filter(|_| !quiet) {
            note(&format!("{} {kind}/{name}: {warning}", paint(Colour::Yellow, "warning:")));
        }
    }
    Ok(())
}

/// Says what was left out, and why; returns how many of them are of our kinds. Those of others are only warned of.
pub(super) fn left_out(results: &Value, stream: &Stream, quiet: bool) -> usize {
    let mut ours = 0;
    for one in items(results, "leftOut") {
        let (kind, name) = (text(one, "/kind"), text(one, "/name"));
        let known = Kind::IN_MANIFESTS.into_iter().find(|known| known.title() == kind);
        let is_foreign = known.is_none() && !kind.is_empty();
        ours += usize::from(!is_foreign);
        if quiet && is_foreign {
            continue;
        }
        let what = match known {
            Some(known) => format!("{}/{name} left out", known.full()),
            None if is_foreign => format!("{kind}/{name} passed over"),
            None => "left out".to_owned(),
        };
        let colour = if is_foreign { Colour::Yellow } else { Colour::Red };
        let word = if is_foreign { "warning:" } else { "error:" };
        for fault in items(one, "errors") {
            let line =
                fault.get("line").and_then(Value::as_u64).and_then(|line| line.try_into().ok());
            let pointer = if is_foreign { String::new() } else { text(fault, "/pointer") };
            let why = stream.sentence(line, &pointer, &text(fault, "/detail"));
            note(&format!("{} {what}: {why}", paint(colour, word)));
        }
    }
    ours
}

fn items<'v>(value: &'v Value, field: &str) -> impl Iterator<Item = &'v Value> {
    value.get(field).and_then(Value::as_array).into_iter().flatten()
}
