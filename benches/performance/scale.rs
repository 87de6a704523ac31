//! Many certificates in one database: what grows with them, and what must not.

use std::path::Path;
use std::process::Command;
use std::str::FromStr as _;
use std::time::{Duration, Instant};

use certwright::clock::{Clock as _, SystemClock};
use certwright::storage::Db;
use certwright::storage::lease::{self, Machine};
use reqwest::Method;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::Options;
use super::database::{self, Database, Kind};
use super::ground::{Ground, ZONE};
use super::issuance::names;
use super::numbers::{median, millis, percentile};
use super::report::{Report, Target};
use super::service::{MASTER_KEY, Service, Setup, certificate};

pub async fn measure(
    ground: &Ground,
    options: &Options,
    report: &mut Report,
) -> anyhow::Result<()> {
    let largest = options.sizes.iter().max().copied().unwrap_or_default();
    let mut passes = Vec::new();
    for &size in &options.sizes {
        let pass = of_size(ground, options, size, size == largest, report).await?;
        passes.push(pass);
    }
    if let [first, .., last] = passes[..] {
        let title = "scheduling pass, largest / smallest database";
        report.promise(title, "", vec![last / first], Target::AtMost(1.5));
    }
    let count = options.renewals.unwrap_or(10_000);
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let title = format!("renewing {count}, {}", kind.name());
        let rate = mass_renewal(ground, count, kind, &title, report).await?;
        report.add(format!("{title}: certificates/s"), "/s", vec![rate]);
    }
    Ok(())
}

/// How long a look for work takes among so many certificates, in milliseconds.
async fn of_size(
    ground: &Ground,
    options: &Options,
    size: usize,
    is_promised: bool,
    report: &mut Report,
) -> anyhow::Result<f64> {
    eprintln!("scale: making {size} certificates");
    let database = database::sqlite();
    let key = template(ground, &database).await;
    multiply(&database, size, false).await?;

    let title = |what: &str| format!("{size} certificates, SQLite: {what}");
    let mut note = |what: &str, unit, runs: Vec<f64>, most: f64| {
        if is_promised {
            report.promise(title(what), unit, runs, Target::AtMost(most));
        } else {
            report.add(title(what), unit, runs);
        }
    };
    let setup = Setup {
        database: &database.url,
        ground: Some(ground),
        keys: Some((&key, MASTER_KEY)),
        ..Setup::default()
    };
    let mut starts = Vec::new();
    let mut memory = Vec::new();
    for _ in 0..options.runs {
        let begun = Instant::now();
        let service = Service::start(&setup);
        assert!(service.is_ready().await);
        starts.push(begun.elapsed().as_secs_f64() * 1e3);
        tokio::time::sleep(Duration::from_secs(2)).await;
        memory.push(service.rss());
    }
    note("start to ready", "ms", starts, 1000.0);
    note("memory after the start", "MiB", memory, 64.0);

    let db = Db::connect(&database.url).await?;
    let mut due = Vec::new();
    let mut passes = Vec::new();
    for _ in 0..100 {
        let begun = Instant::now();
        let mut tx = db.read().await?;
        lease::next_due(&mut tx).await?;
        drop(tx);
        due.push(begun.elapsed());
        let mut tx = db.begin();
        for machine in [Machine::Order, Machine::Certificate, Machine::Issuer] {
            lease::claim(&mut tx, machine, "benchmark", SystemClock.now(), 64).await?;
        }
        tx.commit().await?;
        passes.push(begun.elapsed());
    }
    db.close().await;
    let pass = median(&millis(&passes));
    note("due query, p99", "ms", vec![percentile(&millis(&due), 99.0)], 5.0);
    note("scheduling pass, p50", "ms", vec![pass], 5.0);

    let service = Service::start(&setup);
    for (what, took) in list_pages(&service).await {
        note(&format!("{what}, p50"), "ms", vec![median(&took)], 10.0);
        note(&format!("{what}, p99"), "ms", vec![percentile(&took, 99.0)], 10.0);
    }
    let (took, sizes) = scrapes(&service, options.runs).await;
    note("scrape", "ms", took, 50.0);
    note("scrape's size", "KiB", sizes, 1024.0);
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("backup.gz");
    note("backup beside the service", "s", vec![run("backup", &file, &database)?], 60.0);
    let other = database::postgres().await;
    note("restored into PostgreSQL", "s", vec![run("restore", &file, &other)?], 60.0);
    let mut took = Vec::new();
    for name in names("scale", 50) {
        let begun = Instant::now();
        service.ask(Method::POST, "/certificates", Some(&certificate(&name))).await;
        took.push(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let memory = service.peak_rss();
    report.add(title("POST, p99"), "ms", vec![percentile(&millis(&took), 99.0)]);
    report.add(title("peak memory"), "MiB", vec![memory]);
    super::issuance::settle(ground).await;
    Ok(pass)
}

/// How long pages of different lists take, in milliseconds, a hundred times each.
async fn list_pages(service: &Service) -> Vec<(&'static str, Vec<f64>)> {
    let page = service.ask(Method::GET, "/certificates?limit=50", None).await;
    let cursor = page["nextCursor"].as_str().unwrap_or_default();
    let deep = format!("/certificates?limit=50&cursor={cursor}");
    let mut pages = Vec::new();
    for (what, path) in [
        ("list page", "/certificates?limit=50"),
        ("next list page", &deep),
        ("list page of a namespace", "/certificates?namespace=default&limit=50"),
        ("list page of ready ones", "/certificates?ready=true&limit=50"),
        ("list page of others", "/certificates?ready=false&limit=50"),
    ] {
        let mut took = Vec::new();
        for _ in 0..100 {
            let begun = Instant::now();
            service.ask(Method::GET, path, None).await;
            took.push(begun.elapsed());
        }
        pages.push((what, millis(&took)));
    }
    pages
}

/// What metrics take that are read from the database anew, in milliseconds and KiB.
async fn scrapes(service: &Service, runs: usize) -> (Vec<f64>, Vec<f64>) {
    let (mut took, mut sizes) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        // They are shown for five seconds once they were read.
        tokio::time::sleep(Duration::from_secs(6)).await;
        let begun = Instant::now();
        let metrics = service.ask(Method::GET, "/metrics", None).await;
        took.push(begun.elapsed().as_secs_f64() * 1e3);
        sizes.push(metrics.as_str().unwrap_or_default().len() as f64 / 1024.0);
    }
    (took, sizes)
}

/// How long `certwright backup` or `restore` takes, in seconds.
fn run(command: &str, file: &Path, database: &Database) -> anyhow::Result<f64> {
    let folder = tempfile::tempdir()?;
    let begun = Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_certwright"))
        .arg(command)
        .arg(file)
        .args(["--set", &format!("database.url={}", database.url)])
        .args(["--set", &format!("data_dir={}", folder.path().display())])
        .args(["--set", &format!("master_key={MASTER_KEY}")])
        .output()?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(begun.elapsed().as_secs_f64())
}

/// Issues one certificate for the others to be copies of; the API key that may see them.
async fn template(ground: &Ground, database: &Database) -> String {
    let service = Service::ready(ground, &database.url).await;
    service.issue(&format!("template.{ZONE}")).await;
    // Or the copies would have something to clean up as well.
    super::issuance::settle(ground).await;
    service.rests().await;
    service.key.clone()
}

/// Puts copies of the template beside it, with all that a certificate has: names, chains, keys, the order with its
/// challenge, and events. Either all want to be renewed now, or each at its own time in the next 60 days.
async fn multiply(database: &Database, size: usize, due: bool) -> anyhow::Result<()> {
    let sqlite = database.url.starts_with("sqlite");
    let copy_id = |table: &str| {
        // Identifiers of version 7, as certwright makes them, before any that it makes.
        if sqlite {
            format!("unhex('018af0000000700080' || printf('%02x', {table}) || printf('%012x', n))")
        } else {
            format!(
                "('018af0000000700080' || lpad(to_hex({table}), 2, '0') || lpad(to_hex(n), 12, '0'))::uuid"
            )
        }
    };
    let (certificate, request, order) = (copy_id("1"), copy_id("2"), copy_id("3"));
    let (challenge, event) = (copy_id("4"), copy_id("(16 + t.position % 200)"));
    let name = format!("'copy-' || n || '.{ZONE}'");
    let now = SystemClock.now().unix_timestamp() * 1000;
    let when = if due {
        format!("{now} - 1000")
    } else {
        format!("{now} + 3600000 + (n * 7919) % 5184000000")
    };
    let spec = format!("replace(t.spec, 'template.{ZONE}', {name})");
    let series = series(sqlite, size);
    let tables: [(&str, Vec<(&str, &str)>); 7] = [
        (
            "certificates",
            vec![
                ("id", &certificate),
                ("name", &name),
                ("spec", &spec),
                ("order_id", &order),
                ("renewal_time", &when),
                ("next_action_at", &when),
            ],
        ),
        ("certificate_names", vec![("certificate_id", &certificate), ("name", &name)]),
        (
            "requests",
            vec![("id", &request), ("certificate_id", &certificate), ("order_id", &order)],
        ),
        (
            "revisions",
            vec![("certificate_id", &certificate), ("request_id", &request), ("order_id", &order)],
        ),
        (
            "orders",
            vec![("id", &order), ("certificate_id", &certificate), ("request_id", &request)],
        ),
        (
            "challenges",
            vec![("id", &challenge), ("order_id", &order), ("token", "t.token || '-' || n")],
        ),
        (
            "events",
            vec![
                ("id", &event),
                ("certificate_id", &certificate),
                ("resource_id", &certificate),
                // Places in the stream are given once.
                ("position", "t.position + n * 1000"),
            ],
        ),
    ];
    let mut connection = Connection::to(&database.url).await?;
    for (table, changed) in tables {
        connection.multiply(table, &changed, &series).await?;
    }
    if !sqlite {
        connection.run("ANALYZE").await?;
    }
    connection.close().await
}

/// The numbers from 1 to `size`, as a table `series` with the column `n`.
fn series(sqlite: bool, size: usize) -> String {
    if sqlite {
        format!(
            "(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {size}) SELECT n FROM s) AS series"
        )
    } else {
        format!("(SELECT generate_series(1, {size}::bigint) AS n) AS series")
    }
}

enum Connection {
    Sqlite(Box<SqliteConnection>),
    Postgres(Box<PgConnection>),
}

impl Connection {
    async fn to(url: &str) -> anyhow::Result<Self> {
        if url.starts_with("sqlite") {
            let options = SqliteConnectOptions::from_str(url)?.pragma("synchronous", "OFF");
            return Ok(Self::Sqlite(Box::new(SqliteConnection::connect_with(&options).await?)));
        }
        Ok(Self::Postgres(Box::new(PgConnection::connect(url).await?)))
    }

    async fn run(&mut self, text: &str) -> anyhow::Result<()> {
        let query = AssertSqlSafe(text.to_owned());
        match self {
            Self::Sqlite(connection) => {
                sqlx::query(query).execute(&mut **connection).await?;
            }
            Self::Postgres(connection) => {
                sqlx::query(query).execute(&mut **connection).await?;
            }
        }
        Ok(())
    }

    /// Adds a copy of each row of the template in this table for each number, with some columns changed.
    async fn multiply(
        &mut self,
        table: &str,
        changed: &[(&str, &str)],
        series: &str,
    ) -> anyhow::Result<()> {
        let columns = self.columns(table).await?;
        let value = |column: &String| {
            let new = changed.iter().find(|(name, _)| name == column).map(|(_, new)| *new);
            new.map_or_else(|| format!("t.{column}"), ToOwned::to_owned)
        };
        let values: Vec<_> = columns.iter().map(value).collect();
        let (names, values) = (columns.join(", "), values.join(", "));
        let of_certificates =
            if table == "events" { "WHERE t.certificate_id IS NOT NULL" } else { "" };
        let copy = format!(
            "INSERT INTO {table} ({names}) SELECT {values} FROM {table} t, {series} {of_certificates}"
        );
        self.run(&copy).await
    }

    async fn columns(&mut self, table: &str) -> anyhow::Result<Vec<String>> {
        Ok(match self {
            Self::Sqlite(connection) => {
                sqlx::query_scalar("SELECT name FROM pragma_table_info($1)")
                    .bind(table)
                    .fetch_all(&mut **connection)
                    .await?
            }
            Self::Postgres(connection) => {
                sqlx::query_scalar(
                    "SELECT column_name::text FROM information_schema.columns
                     WHERE table_schema = 'public' AND table_name = $1",
                )
                .bind(table)
                .fetch_all(&mut **connection)
                .await?
            }
        })
    }

    async fn close(self) -> anyhow::Result<()> {
        match self {
            Self::Sqlite(connection) => connection.close().await?,
            Self::Postgres(connection) => connection.close().await?,
        }
        Ok(())
    }
}

/// Everything wants to be renewed at once; how many certificates a second that came to.
pub async fn mass_renewal(
    ground: &Ground,
    count: usize,
    kind: Kind,
    title: &str,
    report: &mut Report,
) -> anyhow::Result<f64> {
    eprintln!("{title}");
    let database = kind.empty().await;
    let key = template(ground, &database).await;
    multiply(&database, count, true).await?;
    let calls = ground.cloudflare.calls().total();
    let issued = ground.pebble.certificates_issued();
    let setup = Setup {
        database: &database.url,
        ground: Some(ground),
        keys: Some((&key, MASTER_KEY)),
        ..Setup::default()
    };
    let service = Service::start(&setup);
    let begun = Instant::now();
    let mut quarters = Vec::new();
    let mut last = (begun, 0);
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let done = ground.pebble.certificates_issued() - issued;
        if done >= (quarters.len() + 1) * count / 4 {
            let rate = (done - last.1) as f64 / last.0.elapsed().as_secs_f64();
            quarters.push(rate);
            last = (Instant::now(), done);
        }
        if done >= count {
            break;
        }
    }
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    super::issuance::settle(ground).await;
    let per = |total: f64| total / count as f64;
    let title = |what: &str| format!("{title}: {what}");
    for (quarter, rate) in quarters.into_iter().enumerate() {
        report.add(title(&format!("certificates/s, quarter {}", quarter + 1)), "/s", vec![rate]);
    }
    let calls = f64::from(ground.cloudflare.calls().total() - calls);
    report.add(title("Cloudflare calls/certificate"), "", vec![per(calls)]);
    report.add(title("CPU/certificate"), "ms", vec![per(service.cpu() * 1e3)]);
    report.add(title("peak memory"), "MiB", vec![service.peak_rss()]);
    Ok(rate)
}
