//! `certwright wait`: until resources are ready, or gone.

use std::time::Duration;

use clap::Args;
use serde_json::Value;
use tokio::time::Instant;

use super::document::document;
use super::exit::{Complaint, is_missing};
use super::get::{selected, selector};
use super::jsonpath::Path;
use super::output::{condition, print, text};
use super::remote::{Remote, Session, Where, run};
use super::targets::targets;
use crate::client::ClientError;
use crate::manifest::kind::Kind;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  certwright wait --for=condition=Ready certificate/www --timeout=60s
  certwright wait --for=condition=Ready certificates --all -n shop
  certwright wait --for=delete cert/old
  certwright wait --for=jsonpath='{.status.phase}'=Ready cert/www")]
pub(super) struct Wait {
    /// KIND NAME…, or KIND/NAME…; KIND alone with --all or a selector
    #[arg(required = true, value_name = "KIND NAME…")]
    what: Vec<String>,
    /// condition=TYPE[=STATUS], delete, or jsonpath=PATH[=VALUE]
    #[arg(long = "for", value_name = "WHAT", value_parser = Goal::parse)]
    goal: Goal,
    /// All of the kind
    #[arg(long)]
    all: bool,
    /// Labels that certificates must have
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    #[command(flatten)]
    place: Where,
    /// How long to wait
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = super::moments::span)]
    timeout: Duration,
}

/// What is waited for.
#[derive(Debug, Clone)]
enum Goal {
    Condition { kind: String, status: String },
    Gone,
    Value { path: Path, value: Option<String> },
}

impl Goal {
    fn parse(text: &str) -> Result<Self, Complaint> {
        match text.split_once('=') {
            None if text == "delete" => Ok(Self::Gone),
            Some(("condition", rest)) if !rest.is_empty() => {
                let (kind, status) = rest.split_once('=').unwrap_or((rest, "True"));
                Ok(Self::Condition { kind: kind.to_owned(), status: status.to_owned() })
            }
            Some(("jsonpath", rest)) => {
                let (path, value) = match rest.rfind("}=") {
                    Some(at) => (&rest[..=at], Some(rest[at + 2..].to_owned())),
                    None => (rest, None),
                };
                Ok(Self::Value { path: Path::parse(path)?, value })
            }
            _ => Err(Complaint::Usage(format!(
                "`{text}` is nothing to wait for; write condition=Ready, delete, or jsonpath='{{.status.phase}}'=Ready"
            ))),
        }
    }

    /// Whether it has come; `None` stands for a resource that is gone.
    fn has_come(&self, kind: Kind, resource: Option<&Value>) -> bool {
        match (self, resource) {
            (Self::Gone, found) => found.is_none(),
            (_, None) => false,
            (Self::Condition { kind, status }, Some(one)) => {
                condition(one, kind, "status").eq_ignore_ascii_case(status)
            }
            (Self::Value { path, value }, Some(one)) => {
                let shown = path.text(&document(kind, one), " ");
                value.as_ref().map_or(!shown.is_empty(), |value| *value == shown)
            }
        }
    }
}

impl Wait {
    pub(super) fn run(self, remote: &Remote) -> anyhow::Result<()> {
        let session = remote.session()?;
        run(self.wait(&session))
    }

    async fn wait(&self, session: &Session) -> anyhow::Result<()> {
        let deadline = Instant::now() + self.timeout;
        let namespace = session.namespace(&self.place);
        let selector = self.selector.as_deref().map(selector).transpose()?;
        let mut resources = Vec::new();
        for (kind, name) in targets(&self.what)? {
            let found = match name {
                Some(name) => match session.find(kind, namespace.as_deref(), &name).await {
                    Ok(one) => vec![one],
                    // What is not there is gone.
                    Err(error) if matches!(self.goal, Goal::Gone) && is_missing(&error) => {
                        Vec::new()
                    }
                    Err(error) => return Err(error),
                },
                None if self.all || selector.is_some() => {
                    selected(session, kind, namespace.as_deref(), selector.as_ref()).await?
                }
                None => {
                    let problem = "say for which: NAME…, --all, or -l SELECTOR";
                    return Err(Complaint::Usage(problem.to_owned()).into());
                }
            };
            resources.extend(found.into_iter().map(|one| (kind, one)));
        }
        for (kind, one) in resources {
            self.wait_for(session, kind, &one, deadline).await?;
        }
        Ok(())
    }

    async fn wait_for(
        &self,
        session: &Session,
        kind: Kind,
        one: &Value,
        deadline: Instant,
    ) -> anyhow::Result<()> {
        let path = format!("{}/{}", kind.path(), text(one, "/id"));
        let name = text(one, "/name");
        let mut tick = tokio::time::interval(Duration::from_millis(500));
        loop {
            tick.tick().await;
            let found = match session.client.get(&path, &[]).await {
                Ok(found) => Some(found),
                Err(ClientError::Refused(problem)) if problem.status == 404 => None,
                // It is waited for, too.
                Err(error) if error.is_away() && Instant::now() < deadline => continue,
                Err(error) => return Err(error.into()),
            };
            if self.goal.has_come(kind, found.as_ref()) {
                let what =
                    if matches!(self.goal, Goal::Gone) { "deleted" } else { "condition met" };
                return print(&format!("{}/{name} {what}\n", kind.full()));
            }
            let is_gone = found.is_none();
            if is_gone {
                let problem = format!("{}/{name} was deleted while it was waited for", kind.word());
                return Err(Complaint::NotFound(problem).into());
            }
            if Instant::now() >= deadline {
                let problem =
                    format!("timed out waiting for the condition on {}/{name}", kind.plural());
                return Err(Complaint::TimedOut(problem).into());
            }
        }
    }
}
