//! `certwright issue`: creates certificates, and waits for them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use futures_util::future::join_all;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::download::{Format, fetch, write_file};
use super::exit::Complaint;
use super::output::{note, print, text};
use super::remote::{Session, Within};
use crate::client::{Ask, ClientError};
use crate::manifest::kind::Kind;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  certwright issue www.example.com --issuer letsencrypt-staging --kind ClusterIssuer --wait
  certwright issue a.example.com b.example.com --issuer le --wait --timeout 5m --out /etc/ssl/certwright
  certwright issue example.com --dns-name '*.example.com' --name wildcard --issuer le --wait

Every NAME becomes a certificate of its own; --dns-name adds further names to it. One that is there
already is waited for. With --out the files are DIR/NAME/{fullchain,cert,chain,privkey}.pem, 0600.")]
pub(super) struct Issue {
    /// DNS names
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Who issues them
    #[arg(long, value_name = "NAME")]
    issuer: String,
    /// What the issuer is
    #[arg(long, value_name = "KIND", default_value = "ClusterIssuer", value_parser = ["Issuer", "ClusterIssuer"])]
    kind: String,
    /// Further names in the same certificate
    #[arg(long = "dns-name", value_name = "NAME")]
    dns_names: Vec<String>,
    /// What the certificate is called [default: its first DNS name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The CA's certificate profile
    #[arg(long)]
    profile: Option<String>,
    #[command(flatten)]
    place: Within,
    /// Wait until they are there, or have failed
    #[arg(long)]
    wait: bool,
    /// How long to wait
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Write certificates and keys into folders here
    #[arg(long, value_name = "DIR", requires = "wait")]
    out: Option<PathBuf>,
}

/// A certificate that is waited for.
pub(super) struct Goal {
    id: String,
    name: String,
    revision: i64,
}

impl Goal {
    /// Waits until this revision of the certificate or a later one is served.
    pub(super) fn of(certificate: &Value, revision: i64) -> Self {
        Self { id: text(certificate, "/id"), name: text(certificate, "/name"), revision }
    }
}

impl Issue {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        if self.names.len() > 1 && (self.name.is_some() || !self.dns_names.is_empty()) {
            return Err(Complaint::usage("--name and --dns-name go with one NAME only"));
        }
        let namespace = session.within(&self.place);
        let mut goals = Vec::new();
        for name in &self.names {
            let (certificate, word) = self.want(session, &namespace, name).await?;
            print(&format!("certificate/{} {word}\n", text(&certificate, "/name")))?;
            goals.push(Goal::of(&certificate, 1));
        }
        if self.wait {
            wait_for(session, goals, self.timeout, self.out.as_deref()).await?;
        }
        Ok(())
    }

    async fn want(
        &self,
        session: &Session,
        namespace: &str,
        name: &str,
    ) -> anyhow::Result<(Value, &'static str)> {
        let mut names = vec![name.to_owned()];
        names.extend(self.dns_names.iter().cloned());
        let called =
            self.name.clone().unwrap_or_else(|| name.to_lowercase().replacen("*.", "wildcard.", 1));
        let wanted = json!({
            "namespace": namespace, "name": called, "dnsNames": names, "profile": self.profile,
            "issuerRef": {"name": self.issuer, "kind": self.kind},
        });
        match session.client.post("/certificates", &wanted).await {
            Ok(certificate) => Ok((certificate, "created")),
            Err(ClientError::Refused(problem)) if problem.code == "already_exists" => {
                let there = session.find(Kind::Certificate, Some(namespace), &called).await?;
                let sorted = |value: &Value| {
                    let names = value.as_array().into_iter().flatten();
                    let mut names: Vec<String> =
                        names.filter_map(|name| name.as_str().map(str::to_lowercase)).collect();
                    names.sort_unstable();
                    names
                };
                if sorted(&there["dnsNames"]) != sorted(&wanted["dnsNames"]) {
                    bail!("{problem}; it is for {}", sorted(&there["dnsNames"]).join(", "));
                }
                Ok((there, "unchanged"))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// How a certificate that was waited for has ended.
enum End {
    Ready(Value),
    Failed(String),
    TimedOut(String),
}

/// Waits for all of them, with a line for each on a terminal; then writes their files.
pub(super) async fn wait_for(
    session: &Session,
    goals: Vec<Goal>,
    timeout: Duration,
    out: Option<&Path>,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + timeout;
    let progress = MultiProgress::new();
    let ends = join_all(goals.iter().map(|goal| {
        let bar = progress.add(ProgressBar::new_spinner());
        let style = ProgressStyle::with_template("{spinner} {prefix}  {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar.set_prefix(goal.name.clone());
        bar.enable_steady_tick(Duration::from_millis(120));
        async move {
            let end = until(session, goal, deadline, &bar).await;
            bar.finish_and_clear();
            end
        }
    }))
    .await;
    let (mut failed, mut late) = (Vec::new(), Vec::new());
    for (goal, end) in goals.iter().zip(ends) {
        match end? {
            End::Ready(certificate) => {
                let until = text(&certificate, "/status/notAfter");
                print(&format!("certificate/{} ready, valid until {until}\n", goal.name))?;
                if let Some(folder) = out {
                    save(session, goal, folder).await?;
                }
            }
            End::Failed(why) => {
                note(&format!("certificate/{} failed: {why}", goal.name));
                failed.push(goal.name.as_str());
            }
            End::TimedOut(why) => {
                note(&format!("certificate/{} is not there yet: {why}", goal.name));
                late.push(goal.name.as_str());
            }
        }
    }
    if !failed.is_empty() {
        bail!("{} failed; `certwright status certificate NAME` tells more", failed.join(", "));
    }
    if !late.is_empty() {
        let shown = humantime::format_duration(timeout);
        let problem =
            format!("{} did not come within {shown}; the service goes on", late.join(", "));
        return Err(Complaint::TimedOut(problem).into());
    }
    Ok(())
}

/// The longest that the server is asked to hold one answer.
const HOLD: u64 = 20;

async fn until(
    session: &Session,
    goal: &Goal,
    deadline: Instant,
    bar: &ProgressBar,
) -> anyhow::Result<End> {
    let path = format!("/certificates/{}", goal.id);
    let mut pause = tokio::time::interval(Duration::from_millis(500));
    let mut said = String::new();
    let mut hold = 0;
    loop {
        pause.tick().await;
        let prefer = format!("wait={hold}");
        let ask = Ask { headers: &[("prefer", prefer.as_str())], ..Ask::get(&path) };
        let certificate = session.client.json(ask).await?;
        let phase = text(&certificate, "/status/phase");
        let revision = certificate.pointer("/status/revision").and_then(Value::as_i64);
        let trouble = trouble(certificate.pointer("/status/lastError"));
        if phase == "Ready" && revision >= Some(goal.revision) {
            return Ok(End::Ready(certificate));
        }
        if ["Failed", "Blocked"].contains(&phase.as_str()) {
            return Ok(End::Failed(trouble));
        }
        let line = if trouble.is_empty() { phase } else { format!("{phase}: {trouble}") };
        if line != said {
            if bar.is_hidden() {
                note(&format!("certificate/{} {line}", goal.name));
            }
            bar.set_message(line.clone());
            said.clone_from(&line);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(End::TimedOut(line));
        }
        hold = left.as_secs().min(HOLD);
    }
}

/// An error in one line; empty if there is none.
pub(super) fn trouble(error: Option<&Value>) -> String {
    match error {
        Some(error @ Value::Object(_)) => {
            format!("{}: {}", text(error, "/title"), text(error, "/detail"))
        }
        _ => String::new(),
    }
}

async fn save(session: &Session, goal: &Goal, folder: &Path) -> anyhow::Result<()> {
    for format in [Format::Privkey, Format::Cert, Format::Chain, Format::Fullchain] {
        let bytes = fetch(&session.client, &goal.id, format, None, None).await?;
        let path = folder.join(&goal.name).join(format.file());
        write_file(&path, &bytes, true)?;
        print(&format!("{}\n", path.display()))?;
    }
    Ok(())
}
