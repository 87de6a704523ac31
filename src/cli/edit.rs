//! `certwright edit`: changes a resource in an editor.

use std::process::Command;

use anyhow::{Context as _, bail};
use clap::Args;

use super::apply::report;
use super::exit::Complaint;
use super::output::{note, text};
use super::remote::{Remote, Session, Within, from_environment, run};
use super::stream::{How, Stream};
use super::targets::targets;
use crate::manifest::kind::Kind;
use crate::manifest::write;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  certwright edit certificate www
  EDITOR='code --wait' certwright edit clusterissuer/letsencrypt

Opens the manifest in $VISUAL, $EDITOR or vi, and applies what is saved.")]
pub(super) struct Edit {
    /// KIND NAME, or KIND/NAME: certificates and issuers
    #[arg(required = true, value_name = "KIND NAME")]
    what: Vec<String>,
    #[command(flatten)]
    place: Within,
}

impl Edit {
    pub(super) fn run(self, remote: &Remote) -> anyhow::Result<()> {
        let session = remote.session()?;
        run(self.edit(&session))
    }

    async fn edit(&self, session: &Session) -> anyhow::Result<()> {
        let namespace = session.within(&self.place);
        let targets = targets(&self.what)?;
        let [(kind, Some(name))] = &targets[..] else {
            return Err(Complaint::Usage("say which: KIND NAME".to_owned()).into());
        };
        if !matches!(kind, Kind::Certificate | Kind::Issuer | Kind::ClusterIssuer) {
            let problem = format!("{} have no manifest to be edited", kind.plural());
            return Err(Complaint::Usage(problem).into());
        }
        let found = session.find(*kind, Some(&namespace), name).await?;
        let before = write::manifest(*kind, &found);
        let file =
            tempfile::Builder::new().prefix("certwright-edit-").suffix(".yaml").tempfile()?;
        std::fs::write(file.path(), &before)?;
        let editor = from_environment("VISUAL").or_else(|| from_environment("EDITOR"));
        let editor = editor.unwrap_or_else(|| "vi".to_owned());
        // An editor's name may come with arguments.
        let command = format!("{editor} \"$1\"");
        let status = Command::new("sh")
            .args(["-c", &command, "sh"])
            .arg(file.path())
            .status()
            .with_context(|| format!("the editor `{editor}` cannot be started; set EDITOR"))?;
        if !status.success() {
            bail!("the editor `{editor}` failed; nothing was applied");
        }
        let after = std::fs::read_to_string(file.path())?;
        if after == before {
            note("Edit cancelled, no changes made.");
            return Ok(());
        }
        let stream = Stream::of(&file.path().display().to_string(), &after);
        match stream.send(session, "/apply", &text(&found, "/namespace"), How::default()).await {
            Ok(results) => report(&results, false),
            Err(error) => {
                let kept = file.into_temp_path().keep()?;
                note(&format!("what you wrote is kept in {}", kept.display()));
                Err(error)
            }
        }
    }
}
