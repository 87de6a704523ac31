//! `certwright doctor`: looks for problems that would keep certificates from being issued.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use time::OffsetDateTime;
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use super::Source;
use super::output::{Colour, now, paint, print};
use super::remote::{Remote, run};
use crate::bootstrap;
use crate::client::{cloudflare, date_of};
use crate::config::Config;
use crate::domain::issuer::{Cloudflare, Issuer, Kind};
use crate::secret::{Sealer, Secret};
use crate::storage::{Db, Page, Scope, StorageError, issuers, pause, secrets};

pub(super) const EXAMPLES: &str = "Examples:
  certwright doctor
  certwright --config /etc/certwright/certwright.toml doctor

Run it where the service runs, as the same user and with the same settings. It changes nothing. A line
for each thing: ok, warn or fail, with what to do. The exit status is 1 if anything failed.";

/// Difference of clocks from which nonces, validity and renewal suffer.
const SKEW: i64 = 60;

const CLOUDFLARE: &str = "https://api.cloudflare.com/client/v4";

pub(super) fn doctor(source: &Source, remote: &Remote) -> anyhow::Result<()> {
    let mut report = Report::default();
    run(async {
        examine(source, remote, &mut report).await?;
        if report.failed > 0 {
            anyhow::bail!("{} of {} checks failed", report.failed, report.all);
        }
        Ok(())
    })
}

#[derive(Default)]
struct Report {
    all: u32,
    failed: u32,
}

impl Report {
    fn line(&mut self, word: &str, colour: Colour, what: &str, text: &str) -> anyhow::Result<()> {
        self.all += 1;
        let padding = " ".repeat(6_usize.saturating_sub(word.len()));
        print(&format!("{}{padding}{what}: {text}\n", paint(colour, word)))
    }

    fn ok(&mut self, what: &str, text: &str) -> anyhow::Result<()> {
        self.line("ok", Colour::Green, what, text)
    }

    fn warn(&mut self, what: &str, text: &str) -> anyhow::Result<()> {
        self.line("warn", Colour::Yellow, what, text)
    }

    fn fail(&mut self, what: &str, text: &str) -> anyhow::Result<()> {
        self.failed += 1;
        self.line("fail", Colour::Red, what, text)
    }
}

async fn examine(source: &Source, remote: &Remote, report: &mut Report) -> anyhow::Result<()> {
    let config = match source.values(&[]).and_then(|values| Ok(Config::parse(&values)?)) {
        Ok(config) => config,
        Err(error) => return report.fail("settings", &format!("{error:#}")),
    };
    report.ok("settings", "can be used; `certwright config` shows them")?;
    service(remote, report).await?;
    let address = config.http01_listen;
    match TcpStream::connect(address).await {
        Ok(_) => report.ok("HTTP-01 responder", &format!("listens on {address}"))?,
        Err(error) => report.warn(
            "HTTP-01 responder",
            &format!("does not listen on {address} ({error}); does the service run?"),
        )?,
    }
    let Some(db) = database(&config, report).await? else { return Ok(()) };
    paused(&db, report).await?;
    let sealer = master_key(&config, &db, report).await?;
    let mut tx = db.read().await?;
    let found =
        issuers::list(&mut tx, &Scope::Everything, &issuers::Wanted::default(), Page::first(500))
            .await?;
    drop(tx);
    if found.is_empty() {
        report.warn("issuers", "there is none yet; `certwright apply -f issuer.yaml` makes one")?;
    }
    for issuer in &found {
        // An Issuer's CA may have been chosen by anybody: only the service, which is guarded, asks it.
        if issuer.kind == Kind::ClusterIssuer {
            authority(issuer, report).await?;
        }
        account(issuer, report)?;
        if let Some(sealer) = &sealer {
            tokens(&config, &db, sealer, issuer, report).await?;
        }
    }
    if found.iter().any(|issuer| issuer.acme.solvers.iter().any(|one| one.http01.is_some())) {
        let port = config.self_check_port;
        match TcpStream::connect(("127.0.0.1", port)).await {
            Ok(_) => report.ok("HTTP-01", &format!("something listens on port {port} here; it has to forward /.well-known/acme-challenge/ to {address}"))?,
            Err(_) => report.warn("HTTP-01", &format!("nothing listens on port {port} here; whatever serves your names on port 80 has to forward /.well-known/acme-challenge/ to {address} (deploy/nginx.conf)"))?,
        }
    }
    db.close().await;
    Ok(())
}

async fn service(remote: &Remote, report: &mut Report) -> anyhow::Result<()> {
    let session = remote.session()?;
    let server = session.client.server().to_owned();
    match session.client.get("/readyz", &[]).await {
        Ok(_) => report.ok("service", &format!("{server} is ready")),
        Err(error) => report.warn("service", &error.to_string()),
    }
}

/// The database, if it can be opened without changing anything about it.
async fn database(config: &Config, report: &mut Report) -> anyhow::Result<Option<Db>> {
    let url = config.database_url.expose();
    let version = match Db::version(url).await {
        Ok(version) => version,
        Err(error @ StorageError::UnknownSchema(_)) => {
            report.fail("database", &error.to_string())?;
            return Ok(None);
        }
        Err(error) => {
            let error: &dyn std::error::Error = &error;
            let cause = error.source().map(ToString::to_string).unwrap_or_default();
            report.fail("database", &format!("{error}: {cause}. `certwright serve` and `certwright migrate` make one; `database.url` says where"))?;
            return Ok(None);
        }
    };
    if version.from != version.to {
        let problem = format!(
            "its schema has version {}, this program needs {}: {}",
            version.from,
            version.to,
            if version.from < version.to {
                "run `certwright migrate`"
            } else {
                "install the newer program again"
            }
        );
        report.fail("database", &problem)?;
        return Ok(None);
    }
    let db = Db::connect(url).await?;
    report.ok("database", &format!("{}, schema version {}", db.dialect(), version.to))?;
    Ok(Some(db))
}

async fn paused(db: &Db, report: &mut Report) -> anyhow::Result<()> {
    match pause::find(&mut db.read().await?).await? {
        None => Ok(()),
        Some(why) => report.fail(
            "work",
            &format!("paused, nothing is issued or renewed: {why}; once it has ended, run `certwright resume`"),
        ),
    }
}

async fn master_key(
    config: &Config,
    db: &Db,
    report: &mut Report,
) -> anyhow::Result<Option<Sealer>> {
    let own = config.data_dir.join("master.key");
    let file = config.master_key_file.as_ref().unwrap_or(&own);
    // The check must not create the file.
    if config.master_key.is_none() && !file.exists() {
        report.fail(
            "master key",
            &format!(
                "{} is not there; the first start makes it, a restored database needs its own",
                file.display()
            ),
        )?;
        return Ok(None);
    }
    match bootstrap::master_key(config, db).await {
        Ok(sealer) => {
            report.ok("master key", "opens what is in the database")?;
            Ok(Some(sealer))
        }
        Err(error) => {
            report.fail("master key", &error.to_string())?;
            Ok(None)
        }
    }
}

/// Checks that the CA answers, and its clock.
async fn authority(issuer: &Issuer, report: &mut Report) -> anyhow::Result<()> {
    let (word, name) = (issuer.kind.as_str(), &issuer.name);
    let what = format!("{word} {name}");
    let bundle = issuer
        .acme
        .ca_bundle
        .as_ref()
        .and_then(|text| STANDARD.decode(text.split_whitespace().collect::<String>()).ok());
    let server = &issuer.acme.server;
    match date_of(server, bundle.as_deref()).await {
        Err(problem) if issuer.acme.skip_tls_verify => {
            report.warn(&what, &format!("{server}: {problem} (its certificate is not verified by this issuer, but is here)"))?;
        }
        Err(problem) => report.fail(&what, &format!("{server} cannot be reached: {problem}"))?,
        Ok(date) => {
            let there = date.and_then(|date| httpdate::parse_http_date(&date).ok());
            match there.map(|there| (OffsetDateTime::from(there) - now()).whole_seconds()) {
                Some(skew) if skew.abs() > SKEW => report.fail(&what, &format!("{server} answers, and its clock is {skew} s from ours: set this machine's clock (NTP)"))?,
                _ => report.ok(&what, &format!("{server} answers"))?,
            }
        }
    }
    Ok(())
}

/// Checks that the issuer has an account.
fn account(issuer: &Issuer, report: &mut Report) -> anyhow::Result<()> {
    let what = format!("{} {}", issuer.kind.as_str(), issuer.name);
    let (status, reason, message) = issuer.ready();
    match status {
        "True" => report.ok(&what, "its account is registered"),
        "False" => report.fail(&what, &format!("{reason}: {message}")),
        _ => report.warn(&what, &format!("{reason}: {message}")),
    }
}

/// Checks that Cloudflare accepts the issuer's tokens, and shows them zones.
async fn tokens(
    config: &Config,
    db: &Db,
    sealer: &Sealer,
    issuer: &Issuer,
    report: &mut Report,
) -> anyhow::Result<()> {
    let solvers =
        issuer.acme.solvers.iter().filter_map(|one| one.dns01.as_ref()?.cloudflare.as_ref());
    for solver in solvers {
        let name = &solver.api_token_secret_ref.name;
        let what = format!("{} {}, Secret {name}", issuer.kind.as_str(), issuer.name);
        if issuer.kind == Kind::Issuer && solver.base_url.is_some() {
            report.warn(&what, "not tried: only the service sends it to the issuer's `baseURL`")?;
            continue;
        }
        match token(config, db, sealer, issuer, solver).await? {
            Err(problem) => report.fail(&what, &problem)?,
            Ok(token) => permissions(&what, solver, &token, report).await?,
        }
    }
    Ok(())
}

async fn token(
    config: &Config,
    db: &Db,
    sealer: &Sealer,
    issuer: &Issuer,
    solver: &Cloudflare,
) -> anyhow::Result<Result<Secret<String>, String>> {
    let reference = &solver.api_token_secret_ref;
    let namespace = issuer.secret_namespace(&config.cluster_namespace);
    let mut tx = db.read().await?;
    let Some((id, envelope)) = secrets::data(&mut tx, namespace, &reference.name).await? else {
        return Ok(Err(format!("it is not in the namespace `{namespace}`: apply it there")));
    };
    let values = match sealer.open(&secrets::data_place(id), &envelope) {
        Ok(values) => values,
        Err(error) => return Ok(Err(format!("it cannot be opened: {error}"))),
    };
    let mut values: BTreeMap<String, Zeroizing<String>> = serde_json::from_slice(values.expose())?;
    let key = reference.key.as_deref().unwrap_or("api-token");
    Ok(match values.remove(key) {
        Some(token) => Ok(Secret::new(String::clone(&token))),
        None => Err(format!("it has no key `{key}`")),
    })
}

async fn permissions(
    what: &str,
    solver: &Cloudflare,
    token: &Secret<String>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let base = solver.base_url.as_deref().unwrap_or(CLOUDFLARE);
    if let Err(problem) = cloudflare(base, "/user/tokens/verify", token).await {
        return report.fail(
            what,
            &format!("{problem}: make a token with Zone:Read and DNS:Edit, and store it anew"),
        );
    }
    let zones = match &solver.zone_id {
        Some(zone) => {
            cloudflare(base, &format!("/zones/{zone}"), token).await.map(|zone| vec![zone])
        }
        None => cloudflare(base, "/zones?per_page=50", token).await.map(|zones| match zones {
            Value::Array(zones) => zones,
            _ => Vec::new(),
        }),
    };
    match zones {
        Err(problem) => {
            report.fail(what, &format!("the token is valid, and may read no zone: {problem}"))
        }
        Ok(zones) if zones.is_empty() => report.fail(
            what,
            "the token is valid, and sees no zone: give it Zone:Read for the zones in question",
        ),
        Ok(zones) => {
            let names: Vec<&str> =
                zones.iter().filter_map(|zone| zone["name"].as_str()).take(5).collect();
            let more = if zones.len() > names.len() { ", …" } else { "" };
            report.ok(what, &format!("the token is valid and sees {}{more}", names.join(", ")))
        }
    }
}
