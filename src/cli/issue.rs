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
    #[arg(long, value_name = "NAME")]
    acme_profile: Option<String>,
    #[command(flatten)]
    place: Within,
    /// Wait until they are there, or have failed
    #[arg(long)]
    wait: bool,
    /// How long to wait
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = super::moments::span)]
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
            "namespace": namespace, "name": called, "dnsNames": names, "profile": self.acme_profile,
            "issuerRef": {"name": self.issuer, "kind": self.kind},
        });
        match session.client.post("/certificates", &wanted).await {
            Ok(certificate) => Ok((certificate, "created")),
            Err(ClientError::Refused(problem)) if problem.code == "already_exists" => {
                let there = session.find(Kind::Certificate, Some(namespace), &called).await?;
                let differing = differing(&there, &wanted);
                if differing.is_empty() {
                    return Ok((there, "unchanged"));
                }
                bail!(
                    "there is a certificate `{called}` already, with {}; `certwright certificates set {called}` changes it, or choose another --name",
                    differing.join(" and ")
                );
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// What the certificate that is there has otherwise than it is wanted.
fn differing(there: &Value, wanted: &Value) -> Vec<String> {
    let names = |value: &Value| {
        let names = value["dnsNames"].as_array().into_iter().flatten();
        let mut names: Vec<String> =
            names.filter_map(|name| name.as_str().map(str::to_lowercase)).collect();
        names.sort_unstable();
        names
    };
    let issuer = |value: &Value| {
        format!("{} `{}`", text(value, "/issuerRef/kind"), text(value, "/issuerRef/name"))
    };
    let mut found = Vec::new();
    if names(there) != names(wanted) {
        found.push(format!("the names {}", names(there).join(", ")));
    }
    if issuer(there) != issuer(wanted) {
        found.push(format!("the {}", issuer(there)));
    }
    let profile = text(there, "/profile");
    if !text(wanted, "/profile").is_empty() && profile != text(wanted, "/profile") {
        found.push(format!("the profile `{profile}`"));
    }
    found
}

/// How a certificate that was waited for has ended.
enum End {
    Ready(Value),
    Failed(String),
    TimedOut(String),
}

/// Waits for all of them. Each that ends says so at once, and its files are written then; on a terminal there is a
/// line for each other one, elsewhere a line for each change.
pub(super) async fn wait_for(
    session: &Session,
    goals: Vec<Goal>,
    timeout: Duration,
    out: Option<&Path>,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    let progress = MultiProgress::new();
    let ends = join_all(goals.iter().map(|goal| {
        let bar = progress.add(ProgressBar::new_spinner());
        let style = ProgressStyle::with_template("{spinner} {prefix}  {elapsed}  {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar.set_prefix(goal.name.clone());
        bar.enable_steady_tick(Duration::from_millis(120));
        let progress = &progress;
        async move {
            let end = until(session, goal, begun, timeout, &bar).await;
            bar.finish_and_clear();
            let end = end?;
            progress.suspend(|| told(goal, &end, begun.elapsed()))?;
            if let (End::Ready(_), Some(folder)) = (&end, out) {
                for file in save(session, goal, folder).await? {
                    progress.suspend(|| print(&format!("{}\n", file.display())))?;
                }
            }
            anyhow::Ok(end)
        }
    }))
    .await;
    let (mut failed, mut late) = (Vec::new(), Vec::new());
    for (goal, end) in goals.iter().zip(ends) {
        match end? {
            End::Ready(_) => {}
            End::Failed(_) => failed.push(goal.name.as_str()),
            End::TimedOut(_) => late.push(goal.name.as_str()),
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

/// How one of them ended.
fn told(goal: &Goal, end: &End, after: Duration) -> anyhow::Result<()> {
    let (name, after) = (&goal.name, after.as_secs());
    match end {
        End::Ready(certificate) => {
            let until = text(certificate, "/status/notAfter");
            print(&format!("certificate/{name} ready, valid until {until} (after {after}s)\n"))?;
        }
        End::Failed(why) => note(&format!("certificate/{name} failed after {after}s: {why}")),
        End::TimedOut(why) => note(&format!("certificate/{name} is not there yet: {why}")),
    }
    Ok(())
}

/// The longest that the server is asked to hold one answer: the step that is shown changes in between.
const HOLD: u64 = 2;

async fn until(
    session: &Session,
    goal: &Goal,
    begun: Instant,
    timeout: Duration,
    bar: &ProgressBar,
) -> anyhow::Result<End> {
    let path = format!("/certificates/{}", goal.id);
    let mut pause = tokio::time::interval(Duration::from_millis(500));
    let mut said = String::new();
    let mut hold = 0;
    loop {
        pause.tick().await;
        let left = timeout.saturating_sub(begun.elapsed());
        let prefer = format!("wait={hold}");
        let headers = [("prefer", prefer.as_str())];
        let ask = Ask { headers: &headers, ..Ask::get(&path) };
        let line = match session.client.json(ask).await {
            Ok(certificate) => {
                let phase = text(&certificate, "/status/phase");
                let revision = certificate.pointer("/status/revision").and_then(Value::as_i64);
                if phase == "Ready" && revision >= Some(goal.revision) {
                    return Ok(End::Ready(certificate));
                }
                if ["Failed", "Blocked"].contains(&phase.as_str()) {
                    return Ok(End::Failed(trouble(certificate.pointer("/status/lastError"))));
                }
                step(session, &path, &certificate).await
            }
            // A server that restarts goes on with it.
            Err(error) if error.is_away() && !left.is_zero() => {
                "the server is away; waiting for it".to_owned()
            }
            Err(error) => return Err(error.into()),
        };
        if line != said {
            if bar.is_hidden() {
                note(&format!("certificate/{}  {}s  {line}", goal.name, begun.elapsed().as_secs()));
            }
            bar.set_message(line.clone());
            said.clone_from(&line);
        }
        if left.is_zero() {
            return Ok(End::TimedOut(line));
        }
        hold = left.as_secs().min(HOLD);
    }
}

/// What it is doing, and why it waits.
async fn step(session: &Session, path: &str, certificate: &Value) -> String {
    let phase = text(certificate, "/status/phase");
    // Only words: without them the phase says enough.
    let explained = session.client.get(&format!("{path}/explain"), &[]).await.unwrap_or_default();
    let (summary, trouble) =
        (text(&explained, "/summary"), trouble(certificate.pointer("/status/lastError")));
    match (summary.is_empty(), trouble.is_empty()) {
        (true, true) => phase,
        (true, false) => format!("{phase}: {trouble}"),
        (false, _) => summary,
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

/// Writes its files; returns where they are.
async fn save(session: &Session, goal: &Goal, folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for format in [Format::Privkey, Format::Cert, Format::Chain, Format::Fullchain] {
        let bytes = fetch(&session.client, &goal.id, format, None, None).await?;
        let path = folder.join(&goal.name).join(format.file());
        write_file(&path, &bytes, true)?;
        files.push(path);
    }
    Ok(files)
}
