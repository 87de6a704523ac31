//! Requests per second, beside bare handlers on the same database.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;
use serde_json::Value;
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;

use super::Options;
use super::against;
use super::database::{self, Database};
use super::ground::{Ground, ZONE};
use super::report::{Report, Target};
use super::service::{Service, certificate};

/// Connections of the load generator.
const CONNECTIONS: usize = 32;

/// Enough that none is asked for twice, but by chance.
const NAMES: usize = 2_000_000;

/// A bare server in a process of its own; it ends with this value.
struct Bare {
    child: Child,
    address: String,
}

/// What a load came to.
struct Load {
    /// Requests per second that were answered as they should be.
    rate: f64,
    /// In milliseconds.
    p99: f64,
    /// How long it took, in seconds.
    took: f64,
}

/// One kind of request.
struct Request<'a> {
    name: &'static str,
    path: String,
    status: &'static str,
    headers: Vec<String>,
    bodies: Option<&'a Path>,
    /// Of the bare handler's rate.
    least: Option<f64>,
}

pub async fn measure(
    ground: &Ground,
    options: &Options,
    report: &mut Report,
) -> anyhow::Result<()> {
    for (name, database) in
        [("SQLite", database::sqlite()), ("PostgreSQL", database::postgres().await)]
    {
        on(ground, options, name, &database, report).await?;
    }
    Ok(())
}

async fn on(
    ground: &Ground,
    options: &Options,
    database_name: &str,
    database: &Database,
    report: &mut Report,
) -> anyhow::Result<()> {
    let bodies = Bodies::write()?;
    let asked = Asked::start(ground, None, &database.url, &bodies).await?;
    let bare = Bare::start(&database.url)?;
    for request in &asked.requests() {
        let [mut ours, mut p99, mut theirs, mut theirs_p99]: [Vec<f64>; 4] = Default::default();
        for _ in 0..options.runs {
            let load = asked.load(request, options.load).await?;
            ours.push(load.rate);
            p99.push(load.p99);
            let load = request.load_at(&bare.address, None, options.load)?;
            theirs.push(load.rate);
            theirs_p99.push(load.p99);
        }
        let ratios = against::ratios(&ours, &theirs);
        let title = |what: &str| format!("{}, {database_name}: {what}", request.name);
        report.add(title("bare handler"), "/s", theirs);
        report.add(title("bare handler, p99"), "ms", theirs_p99);
        report.add(title("certwright"), "/s", ours);
        report.add(title("certwright, p99"), "ms", p99);
        match request.least.filter(|_| request.name != POST || database_name == "SQLite") {
            Some(least) => report.promise(title("ratio"), "", ratios, Target::AtLeast(least)),
            None => report.add(title("ratio"), "", ratios),
        }
    }
    Ok(())
}

/// This build and another one by turns, each on a database of its own: what is written is written to an empty one each
/// time, as the work that one load has left behind slows down the next. Of what is written it also counts what is known to
/// wait, or was looked at by the worker: a build is no faster for leaving more of it lying.
pub async fn by_turns(
    ground: &Ground,
    options: &Options,
    other: &Path,
    report: &mut Report,
) -> anyhow::Result<()> {
    let bodies = Bodies::write()?;
    for &kind in options.databases() {
        let (mine, theirs) = (kind.empty().await, kind.empty().await);
        let this = Asked::start(ground, None, &mine.url, &bodies).await?;
        let that = Asked::start(ground, Some(other), &theirs.url, &bodies).await?;
        for (request, same) in this.requests().iter().zip(&that.requests()) {
            let [mut ours, mut others, mut our_work, mut their_work]: [Vec<f64>; 4] =
                Default::default();
            for pair in 0..against::pairs(options) {
                for program in against::turns(pair, other) {
                    let (rates, work, asked, request) = match program {
                        None => (&mut ours, &mut our_work, &this, request),
                        Some(_) => (&mut others, &mut their_work, &that, same),
                    };
                    if request.bodies.is_none() {
                        rates.push(asked.load(request, options.load).await?.rate);
                        continue;
                    }
                    let empty = kind.empty().await;
                    let asked = Asked::start(ground, program, &empty.url, &bodies).await?;
                    let load = request.load(&asked.service, options.load)?;
                    rates.push(load.rate);
                    work.push(looked_at(&empty).await? / load.took);
                }
            }
            let title =
                |what: &str| format!("{}, {}, this / other: {what}", request.name, kind.name());
            let answers = against::ratios(&ours, &others);
            if our_work.is_empty() {
                report.promise(title("rate"), "", answers, against::API);
            } else {
                let work = against::ratios(&our_work, &their_work);
                report.promise(title("rate, looked at"), "", work, against::API);
                report.promise(title("rate, answered"), "", answers, against::API);
            }
        }
    }
    Ok(())
}

const POST: &str = "POST";

/// A service that is asked, with what it is asked for.
struct Asked<'b> {
    service: Service,
    /// Of a certificate that it has issued.
    path: String,
    /// Of that one's chain.
    tag: String,
    bodies: &'b Bodies,
}

impl<'b> Asked<'b> {
    async fn start(
        ground: &Ground,
        program: Option<&Path>,
        database: &str,
        bodies: &'b Bodies,
    ) -> anyhow::Result<Self> {
        let service = Service::ready_by(program, ground, database).await;
        let (_, id) = service.issue(&super::issuance::names("api", 1)[0]).await;
        service.create_dead_issuer().await;
        let path = format!("/certificates/{id}");
        let tag = service.tag(&format!("{path}/fullchain.pem")).await;
        Ok(Self { service, path, tag, bodies })
    }

    fn requests(&self) -> [Request<'_>; 4] {
        let get = |name, path: String, least| Request {
            name,
            path,
            status: "200",
            headers: Vec::new(),
            bodies: None,
            least,
        };
        let chain = format!("{}/fullchain.pem", self.path);
        [
            get("GET by id", self.path.clone(), Some(0.7)),
            Request {
                status: "304",
                headers: vec![format!("if-none-match: {}", self.tag)],
                ..get("conditional GET of fullchain.pem", chain, Some(0.7))
            },
            Request {
                status: "202",
                bodies: Some(&self.bodies.path),
                // What is promised of writing is promised of SQLite.
                ..get(POST, "/certificates".to_owned(), Some(0.5))
            },
            get("list page of 50", "/certificates".to_owned(), None),
        ]
    }

    /// One load, and until the service has come to rest after it.
    async fn load(&self, request: &Request<'_>, seconds: u64) -> anyhow::Result<Load> {
        let load = request.load(&self.service, seconds)?;
        self.service.rests().await;
        Ok(load)
    }
}

/// Certificates that the worker has looked at, just now.
async fn looked_at(database: &Database) -> anyhow::Result<f64> {
    const COUNT: &str = "SELECT count(*) FROM certificates WHERE state <> 'triggered'";
    let url = &database.url;
    let (count,): (i64,) = if url.starts_with("sqlite") {
        sqlx::query_as(COUNT).fetch_one(&mut SqliteConnection::connect(url).await?).await?
    } else {
        sqlx::query_as(COUNT).fetch_one(&mut PgConnection::connect(url).await?).await?
    };
    Ok(count as f64)
}

impl Request<'_> {
    fn load(&self, service: &Service, seconds: u64) -> anyhow::Result<Load> {
        self.load_at(&service.api.to_string(), Some(&service.key), seconds)
    }

    fn load_at(&self, server: &str, key: Option<&str>, seconds: u64) -> anyhow::Result<Load> {
        let mut command = Command::new(oha());
        command.args(["--no-tui", "--output-format", "json", "-z"]).arg(format!("{seconds}s"));
        command.arg("-c").arg(CONNECTIONS.to_string());
        // oha would ask for compressed answers, and measure how quickly they are compressed.
        command.args(["-H", "accept-encoding: identity"]);
        for header in &self.headers {
            command.arg("-H").arg(header);
        }
        if let Some(key) = key {
            command.arg("-H").arg(format!("authorization: Bearer {key}"));
        }
        if let Some(bodies) = self.bodies {
            command.args(["-m", "POST", "-T", "application/json", "-Z"]).arg(bodies);
        }
        command.arg(format!("http://{server}{}", self.path));
        let output = command.output().context("oha does not start; run scripts/bench-tools")?;
        let said = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "oha: {said}");
        let seen: Value = serde_json::from_slice(&output.stdout)?;
        let statuses = &seen["statusCodeDistribution"];
        let good = statuses[self.status].as_f64().unwrap_or_default();
        anyhow::ensure!(good > 0.0, "{}: {statuses}", self.name);
        let others = statuses.as_object().into_iter().flatten();
        let others: f64 = others
            .filter(|(status, _)| *status != self.status)
            .filter_map(|(_, count)| count.as_f64())
            .sum();
        // A name that came up twice is refused.
        anyhow::ensure!(others < good / 10.0, "{}: {statuses}", self.name);
        let total = seen["summary"]["total"].as_f64().context("oha says how long it took")?;
        let p99 = seen["latencyPercentiles"]["p99"].as_f64().unwrap_or_default() * 1e3;
        Ok(Load { rate: good / total, p99, took: total })
    }
}

impl Bare {
    fn start(url: &str) -> anyhow::Result<Self> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "--"]).arg(std::env::current_exe()?);
        command.args(["bare", url]).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let mut line = String::new();
        let said = child.stdout.take().context("a pipe")?;
        BufReader::new(said).read_line(&mut line)?;
        let address = line.trim().rsplit('/').next().unwrap_or_default().to_owned();
        anyhow::ensure!(!address.is_empty(), "the bare server did not start");
        Ok(Self { child, address })
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One wish on each line, all different, none of which can be met: the CA of their issuer is away.
struct Bodies {
    path: PathBuf,
    _folder: TempDir,
}

impl Bodies {
    fn write() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("bodies");
        let mut lines = String::new();
        for n in 0..NAMES {
            let mut wanted = certificate(&format!("post-{n}.{ZONE}"));
            wanted["issuerRef"]["name"] = "dead".into();
            writeln!(lines, "{wanted}")?;
        }
        std::fs::write(&path, lines)?;
        Ok(Self { path, _folder: folder })
    }
}

fn oha() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/cargo/bin/oha")
}
