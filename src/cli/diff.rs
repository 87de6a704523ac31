//! `certwright diff`: what `apply` would change.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use serde_json::Value;
use similar::{ChangeTag, TextDiff};

use super::apply::left_out;
use super::exit::{Complaint, is_missing, status_of};
use super::output::{Colour, note, paint, print, text};
use super::remote::{Session, Within};
use super::stream::{How, Stream};
use crate::manifest::kind::Kind;
use crate::manifest::write;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  certwright diff -f manifests/
  certwright diff -f issuer.yaml -n team
  certwright diff -f . > changes.diff || test $? = 1

Shows as a unified diff what `certwright apply` would make of what is there; the server judges the manifests as it
would then, and nothing is changed. The exit status is 0 if nothing differs, 1 if something does, and
greater if that cannot be said, also where `apply` would exit with 1. Values of Secrets are not
compared: nobody may read them.")]
pub(super) struct Diff {
    /// A file, a folder of .yaml, .yml and .json files, or `-` for standard input
    #[arg(short = 'f', long = "filename", required = true, value_name = "FILE|DIR|-")]
    files: Vec<PathBuf>,
    /// Where objects go that name no namespace
    #[command(flatten)]
    place: Within,
    /// Refuse kinds of others instead of passing them over
    #[arg(long)]
    strict: bool,
}

/// Lines that are shown around a change.
const CONTEXT: usize = 3;

impl Diff {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        match self.differs(session).await {
            Ok(false) => Ok(()),
            Ok(true) => Err(Complaint::Differs.into()),
            // 1 says that something differs.
            Err(error) if status_of(&error) == status_of(&Complaint::Differs.into()) => {
                Err(error.context(Complaint::CannotTell))
            }
            Err(error) => Err(error),
        }
    }

    async fn differs(&self, session: &Session) -> anyhow::Result<bool> {
        let stream = Stream::read(&self.files)?;
        let namespace = session.within(&self.place);
        let how = How { dry_run: true, strict: self.strict };
        let results = stream.send(session, "/apply", &namespace, how).await?;
        left_out(&results, &stream, false);
        let mut differs = false;
        for one in results.get("results").and_then(Value::as_array).into_iter().flatten() {
            differs |= shown(session, one).await?;
        }
        Ok(differs)
    }
}

/// Prints how one resource would differ; says whether it would.
async fn shown(session: &Session, one: &Value) -> anyhow::Result<bool> {
    let kind = Kind::parse(&text(one, "/kind"))?;
    let (namespace, name) = (text(one, "/namespace"), text(one, "/name"));
    let Some(resource) = one.get("resource") else {
        bail!(
            "the server does not show what would become of {}/{name}: this needs the permission to read {}",
            kind.word(),
            kind.plural()
        );
    };
    let live = match session.find(kind, Some(&namespace), &name).await {
        Ok(live) => write::manifest(kind, &live),
        Err(error) if is_missing(&error) => String::new(),
        Err(error) => return Err(error),
    };
    if kind == Kind::Secret && !live.is_empty() {
        note(&format!("the values of {}/{name} are not compared", kind.full()));
    }
    let merged = write::manifest(kind, resource);
    if live == merged {
        return Ok(false);
    }
    let label = if namespace.is_empty() {
        format!("{}.{name}", kind.title())
    } else {
        format!("{}.{namespace}.{name}", kind.title())
    };
    print(&unified(&label, &live, &merged))?;
    Ok(true)
}

/// The difference in the form of `diff -u`.
fn unified(label: &str, live: &str, merged: &str) -> String {
    let diff = TextDiff::from_lines(live, merged);
    let mut out = format!("--- LIVE/{label}\n+++ MERGED/{label}\n");
    for hunk in diff.unified_diff().context_radius(CONTEXT).iter_hunks() {
        out.extend([format!("{}\n", hunk.header())]);
        for change in hunk.iter_changes() {
            let text = format!("{}{}", change.tag(), change.value().trim_end_matches('\n'));
            out.push_str(&match change.tag() {
                ChangeTag::Delete => paint(Colour::Red, &text),
                ChangeTag::Insert => paint(Colour::Green, &text),
                ChangeTag::Equal => text,
            });
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_reads_as_diffs() {
        let live = "a: 1\nb: 2\nc: 3\nd: 4\ne: 5\n";
        let merged = "a: 1\nb: 2\nc: 3\nd: 4\ne: 6\n";
        assert_eq!(
            unified("Certificate.default.www", live, merged),
            "--- LIVE/Certificate.default.www\n+++ MERGED/Certificate.default.www\n@@ -2,4 +2,4 @@\n b: 2\n c: 3\n d: 4\n-e: 5\n+e: 6\n"
        );
        assert!(unified("x", "", "a: 1\n").ends_with("@@ -0,0 +1 @@\n+a: 1\n"));
    }
}
