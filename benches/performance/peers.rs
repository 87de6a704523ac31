//! What else issues certificates, as it comes, from the same CA. HTTP-01, since that needs nothing
//! set up; each writes files, and none has an API to wait at.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use super::database;
use super::ground::Ground;
use super::issuance::{many, names};
use super::report::{Report, Target};
use super::service::Service;

/// Certificates of a program that is run once for each.
const ONE_BY_ONE: usize = 10;

/// How long Caddy is watched, and with how many names.
const WATCHED: Duration = Duration::from_secs(40);
const WATCHED_NAMES: usize = 500;

pub async fn measure(ground: &Ground, report: &mut Report) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let ca = folder.path().join("ca.pem");
    fs::write(&ca, ground.pebble.ca_pem())?;
    let peers = Peers { ground, folder: folder.path(), ca: &ca };

    let database = database::sqlite();
    let service = Arc::new(Service::ready(ground, &database.url).await);
    many(ground, &service, 64, 32).await;
    let ours = many(ground, &service, 500, 32).await.rate;
    drop(service);
    report.add("certwright, SQLite: certificates/s at 32", "/s", vec![ours]);
    for (name, rate, promised) in [
        ("lego, one after the other", peers.lego()?, true),
        ("certbot, one after the other", peers.certbot()?, false),
        ("Caddy, 500 names", peers.caddy()?, true),
    ] {
        let Some(rate) = rate else {
            eprintln!("{name}: not installed here");
            continue;
        };
        report.add(format!("{name}: certificates/s"), "/s", vec![rate]);
        let title = format!("certwright / {name}");
        if promised {
            report.promise(title, "", vec![ours / rate], Target::AtLeast(20.0));
        } else {
            report.add(title, "", vec![ours / rate]);
        }
    }
    Ok(())
}

struct Peers<'a> {
    ground: &'a Ground,
    folder: &'a Path,
    ca: &'a Path,
}

impl Peers<'_> {
    fn lego(&self) -> anyhow::Result<Option<f64>> {
        let Some(lego) = program("lego") else { return Ok(None) };
        Self::one_by_one("lego", |name| {
            let mut command = Command::new(&lego);
            command.env("LEGO_CA_CERTIFICATES", self.ca);
            command.args(["--accept-tos", "--email", "user@example.com", "--http"]);
            command.arg("--server").arg(self.ground.pebble.directory_url());
            command.arg("--path").arg(self.folder.join("lego"));
            command.arg("--http.port").arg(format!("127.0.0.1:{}", self.ground.http_port));
            command.args(["--domains", name, "run"]);
            command
        })
    }

    fn certbot(&self) -> anyhow::Result<Option<f64>> {
        let Some(certbot) = program("certbot") else { return Ok(None) };
        Self::one_by_one("certbot", |name| {
            let mut command = Command::new(&certbot);
            command.env("REQUESTS_CA_BUNDLE", self.ca);
            command.args(["certonly", "--standalone", "--non-interactive", "--agree-tos"]);
            command.args(["--email", "user@example.com", "--http-01-address", "127.0.0.1"]);
            command.arg("--http-01-port").arg(self.ground.http_port.to_string());
            command.arg("--server").arg(self.ground.pebble.directory_url());
            for option in ["--config-dir", "--work-dir", "--logs-dir"] {
                command.arg(option).arg(self.folder.join("certbot"));
            }
            command.args(["--domain", name]);
            command
        })
    }

    /// The first one registers the account, and is not counted.
    fn one_by_one(kind: &str, command: impl Fn(&str) -> Command) -> anyhow::Result<Option<f64>> {
        let mut begun = Instant::now();
        for (number, name) in names(kind, ONE_BY_ONE + 1).into_iter().enumerate() {
            let output = command(&name).output()?;
            let said = String::from_utf8_lossy(&output.stderr);
            anyhow::ensure!(output.status.success(), "{kind}: {said}");
            if number == 0 {
                begun = Instant::now();
            }
        }
        Ok(Some(ONE_BY_ONE as f64 / begun.elapsed().as_secs_f64()))
    }

    fn caddy(&self) -> anyhow::Result<Option<f64>> {
        let Some(caddy) = program("caddy") else { return Ok(None) };
        let config = self.folder.join("caddy.json");
        let names: Vec<_> = names("caddy", WATCHED_NAMES).into();
        let port = self.ground.http_port;
        let issuer = json!({
            "module": "acme", "ca": self.ground.pebble.directory_url(),
            "trusted_roots_pem_files": [self.ca],
            "challenges": {"http": {"alternate_port": port}, "tls-alpn": {"disabled": true}},
        });
        let document = json!({
            "admin": {"disabled": true},
            "storage": {"module": "file_system", "root": self.folder.join("caddy")},
            "apps": {"tls": {
                "certificates": {"automate": names},
                "automation": {"policies": [{"issuers": [issuer]}]},
            }},
        });
        fs::write(&config, document.to_string())?;
        let before = self.ground.pebble.certificates_issued();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(caddy).args(["run", "--config"]);
        command.arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        std::thread::sleep(WATCHED);
        let count = self.ground.pebble.certificates_issued() - before;
        child.kill()?;
        child.wait()?;
        anyhow::ensure!(count > 0, "Caddy issued nothing within {} s", WATCHED.as_secs());
        Ok(Some(count as f64 / WATCHED.as_secs_f64()))
    }
}

/// Unpacked by `scripts/bench-tools`, or installed.
fn program(name: &str) -> Option<PathBuf> {
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/peers/usr/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(unpacked).chain(std::env::split_paths(&path));
    folders.map(|folder| folder.join(name)).find(|program| program.exists())
}
