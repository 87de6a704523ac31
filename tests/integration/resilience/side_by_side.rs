//! The same faults for this service and for other clients. `make reliability` runs it; it needs
//! lego and certbot, and holds nothing: what it prints is compared by people.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;

use crate::support::databases;
use crate::support::fault_proxy::{FaultProxy, Kind};
use crate::support::free_port;
use crate::support::pebble::{Pebble, PebbleOptions};
use crate::support::site::Site;

/// Certificates that each client asks for under each fault.
const COUNT: usize = 5;

type Fault = (&'static str, fn(&FaultProxy));

const FAULTS: &[Fault] = &[
    ("none", |_| {}),
    ("404 for 1.5 s on every new order, authorization and certificate", |proxy| {
        proxy.lag(Duration::from_millis(1_500));
    }),
    ("404 for 1.5 s on every new certificate", |proxy| {
        proxy.lag_of(Kind::Certificate, Duration::from_millis(1_500));
    }),
    ("an HTML page with 502 for one request in ten", |proxy| proxy.html_502(10)),
    ("no answer to finalize, ever, though the CA acts", |proxy| {
        proxy.lose_answers(Kind::Finalize, usize::MAX);
    }),
];

struct Row {
    issued: usize,
    orders: usize,
    took: Duration,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a comparison for people: `make reliability`"]
async fn the_same_faults_for_certwright_lego_and_certbot() {
    println!("| what goes wrong | client | issued | new orders | seconds |");
    println!("|---|---|---|---|---|");
    for (what, fault) in FAULTS {
        let rows = [
            ("certwright", ours(*fault).await),
            ("lego", theirs(*fault, lego).await),
            ("certbot", theirs(*fault, certbot).await),
        ];
        for (client, Row { issued, orders, took }) in rows {
            let seconds = took.as_secs_f64();
            println!("| {what} | {client} | {issued} of {COUNT} | {orders} | {seconds:.1} |");
        }
    }
}

fn pebble() -> PebbleOptions {
    PebbleOptions { always_valid: true, ..PebbleOptions::default() }
}

/// All at once, as clients of the service do.
async fn ours(fault: fn(&FaultProxy)) -> Row {
    let (_folder, url) = databases::sqlite_url();
    let site = Site::through_proxy(&url, pebble()).await;
    site.ready("dns").await;
    fault(site.proxy());
    let begun = Instant::now();
    let names: Vec<_> = (0..COUNT).map(|n| format!("n{n}.example.com")).collect();
    let asked = join_all(names.iter().map(|name| async {
        site.ask_for("dns", &[name], &json!({}), 280).await.expect_status(202)
    }));
    let ready = |one: &&serde_json::Value| one["status"]["phase"] == "Ready";
    let issued = asked.await.iter().filter(ready).count();
    Row { issued, orders: site.proxy().requests(Kind::NewOrder), took: begun.elapsed() }
}

/// One after the other, each run once, as a timer or an operator would.
async fn theirs(fault: fn(&FaultProxy), client: fn(&FaultProxy, &Path, &str) -> Command) -> Row {
    let pebble = Pebble::start(pebble()).await;
    let proxy = FaultProxy::before(&pebble).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ca.pem"), proxy.ca_pem()).unwrap();
    // The account is made while all is well.
    let first = run(client(&proxy, folder.path(), "first.example.com")).await;
    assert_eq!(first, Ok(()), "without any fault");
    let before = proxy.requests(Kind::NewOrder);
    fault(&proxy);
    let begun = Instant::now();
    let mut issued = 0;
    for n in 0..COUNT {
        let name = format!("n{n}.example.com");
        issued += usize::from(run(client(&proxy, folder.path(), &name)).await.is_ok());
    }
    Row { issued, orders: proxy.requests(Kind::NewOrder) - before, took: begun.elapsed() }
}

/// What the client said, where it did not succeed.
async fn run(mut command: Command) -> Result<(), String> {
    command.stdin(Stdio::null());
    let ended = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
    let ended = ended.expect("timeout, lego and certbot are installed");
    let said = String::from_utf8_lossy(&ended.stdout) + String::from_utf8_lossy(&ended.stderr);
    if ended.status.success() { Ok(()) } else { Err(said.into_owned()) }
}

/// A command that has not ended after a while counts as failed.
fn within_five_minutes(client: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args(["300", client]);
    command
}

fn lego(proxy: &FaultProxy, folder: &Path, name: &str) -> Command {
    let mut command = within_five_minutes("lego");
    command.env("LEGO_CA_CERTIFICATES", folder.join("ca.pem"));
    command.args(["--server", &proxy.directory_url(), "--accept-tos", "--email"]);
    command.args(["user@example.com", "--domains", name, "--path"]).arg(folder.join("lego"));
    command.args(["--http", "--http.port", &format!("127.0.0.1:{}", free_port()), "run"]);
    command
}

fn certbot(proxy: &FaultProxy, folder: &Path, name: &str) -> Command {
    let mut command = within_five_minutes("certbot");
    command.env("REQUESTS_CA_BUNDLE", folder.join("ca.pem"));
    command.args(["certonly", "--standalone", "--non-interactive", "--agree-tos"]);
    command.args(["--email", "user@example.com", "--domain", name]);
    command.args(["--server", &proxy.directory_url(), "--http-01-address", "127.0.0.1"]);
    command.args(["--http-01-port", &free_port().to_string()]);
    for (flag, place) in [("--config-dir", "etc"), ("--work-dir", "lib"), ("--logs-dir", "log")] {
        command.arg(flag).arg(folder.join(place));
    }
    command
}
