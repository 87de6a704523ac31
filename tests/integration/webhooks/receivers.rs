//! Messages as receivers verify them: with the libraries of Python and Node.js, and with openssl.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use time::Duration;

use super::{deliveries, deliveries_path, hooked, ordered, renew, secret};
use crate::support::databases;
use crate::support::patience::PATIENCE;
use crate::support::process::{Server, output, output_with};
use crate::support::receiver::{Got, Receiver, Reply};
use crate::support::site::Site;
use crate::support::world::{World, on_every_database};

/// Tools that `scripts/setup` has installed.
fn tool(path: &str) -> PathBuf {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/receivers");
    let found = tools.join(path);
    assert!(found.exists(), "{} is missing: run scripts/setup", found.display());
    found
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/receivers").join(name)
}

mod the_example_of_the_documentation {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn in_python_takes_what_is_signed_and_nothing_else() {
        let mut command = Command::new(tool("python/bin/python3"));
        command.arg(example("receiver.py"));
        Box::pin(takes_what_is_signed(command)).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn in_typescript_takes_what_is_signed_and_nothing_else() {
        // Where the compiler and the program find the library: beside `node_modules`.
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(tool("node/node_modules"), folder.path().join("node_modules"))
            .unwrap();
        fs::copy(example("receiver.ts"), folder.path().join("receiver.ts")).unwrap();
        let mut compiler = Command::new(tool("node/node_modules/.bin/tsc"));
        compiler.args(["--strict", "--module", "nodenext", "--types", "node", "receiver.ts"]);
        let said = output(compiler.current_dir(folder.path()));
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stdout));
        let mut command = Command::new("node");
        command.arg(folder.path().join("receiver.js"));
        Box::pin(takes_what_is_signed(command)).await;
    }

    /// A real service sends to a real receiver; then a forger tries.
    async fn takes_what_is_signed(mut command: Command) {
        let (_folder, url) = databases::sqlite_url();
        let site = Site::on(&url).await;
        let port = crate::support::free_port();
        let address = format!("http://127.0.0.1:{port}/");
        let hook = site.post("/webhooks", &json!({"url": address})).await.expect_status(201);
        command.env("WEBHOOK_SECRET", secret(&hook)).env("PORT", port.to_string());
        let mut server = Server::start(tempfile::tempdir().unwrap(), "KILL", &command);
        let listens = async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok();
        server.until_ready(listens).await.unwrap();

        let path = format!("/webhooks/{}", hook["id"].as_str().unwrap());
        site.post(&format!("{path}/test"), &json!({})).await;
        site.until(&deliveries_path(&hook), |found| {
            found["items"][0]["state"] == "delivered" && found["items"][0]["responseStatus"] == 204
        })
        .await;
        assert!(server.log().contains("webhook.test"), "{}", server.log());

        let forged = reqwest::Client::new().post(&address).timeout(PATIENCE).body("{}");
        let forged = forged.header("webhook-id", "msg_1").header("webhook-timestamp", "1");
        let answer = forged.header("webhook-signature", "v1,AAAA").send().await.unwrap();
        assert_eq!(answer.status(), 401);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn with_openssl_tells_good_from_bad_also_while_the_secret_changes() {
        let (_folder, url) = databases::sqlite_url();
        let site = Site::on(&url).await;
        let receiver = Receiver::start().await;
        let wanted = json!({"url": receiver.url(), "events": ["webhook.test"]});
        let hook = site.post("/webhooks", &wanted).await.expect_status(201);
        let path = format!("/webhooks/{}", hook["id"].as_str().unwrap());
        let rotated = site.post(&format!("{path}/rotate"), &json!({})).await.body;
        site.post(&format!("{path}/test"), &json!({})).await;
        let got = receiver.until(1).await.remove(0);

        let other = format!("whsec_{}", "A".repeat(32));
        for (secret, body, is_good) in [
            (secret(&hook), got.body.as_str(), true),
            (secret(&rotated), got.body.as_str(), true),
            (other.as_str(), got.body.as_str(), false),
            (secret(&rotated), "{}", false),
        ] {
            let said = verify(secret, &got, body);
            assert_eq!(said.status.success(), is_good, "{said:?}");
        }
    }

    fn verify(secret: &str, got: &Got, body: &str) -> Output {
        let mut verify = Command::new(example("verify.sh"));
        verify
            .env("WEBHOOK_SECRET", secret)
            .env("WEBHOOK_ID", got.header("webhook-id"))
            .env("WEBHOOK_TIMESTAMP", got.header("webhook-timestamp"))
            .env("WEBHOOK_SIGNATURE", got.header("webhook-signature"));
        output_with(&mut verify, body.as_bytes())
    }
}

/// Certificates, and events for each: 1,000 messages.
const CERTIFICATES: usize = 200;
const TIMES: usize = 5;

on_every_database! {
    async fn a_thousand_messages_outlive_a_receiver_that_fails_and_dies(world: World) {
        let (mut receiver, hook) = hooked(&world, json!({"events": ["certificate.issued", "certificate.renewed"]})).await;
        let mut certificates = Vec::new();
        for n in 0..CERTIFICATES {
            certificates.push(ordered(&world, &format!("storm-{n}")).await);
        }
        let mut got = Vec::new();
        for round in 0..TIMES {
            for certificate in &certificates {
                renew(&world, certificate).await;
            }
            fails_three_in_ten(&receiver, round);
            world.deliver().await;
            // It is killed with whatever it has not answered, and comes back at the same place.
            got.extend(receiver.got());
            receiver = receiver.restart().await;
        }
        let count = CERTIFICATES * TIMES;
        for round in 0..200 {
            if deliveries(&world, &hook, "?state=pending&limit=1").await.is_empty()
                && deliveries(&world, &hook, "?state=queued&limit=1").await.is_empty()
            {
                break;
            }
            fails_three_in_ten(&receiver, round);
            world.clock.advance(Duration::minutes(6));
            world.deliver().await;
        }
        got.extend(receiver.got());

        let mut bodies: HashMap<&str, &str> = HashMap::new();
        for one in &got {
            let before = bodies.insert(one.header("webhook-id"), &one.body);
            assert!(before.is_none_or(|before| before == one.body), "{before:?}");
        }
        assert_eq!(bodies.len(), count, "each came at least once, and nothing else");
        assert!(got.len() > count, "some came again: {}", got.len());
        assert_in_order(&got);
        assert!(deliveries(&world, &hook, "?state=dead").await.is_empty());
        verified_by_everybody(&got, secret(&hook));
    }
}

/// Three of ten requests to come are refused, in an order that is the same in every run.
fn fails_three_in_ten(receiver: &Receiver, round: usize) {
    let pattern = [200, 500, 204, 200, 503, 204, 200, 404, 204, 200];
    let script = (0..500).map(|n| Reply::Status(pattern[(n * 7 + round) % pattern.len()]));
    receiver.will_answer(script);
}

/// A later message about a certificate first comes after every earlier one has.
fn assert_in_order(got: &[Got]) {
    let mut last: HashMap<String, i64> = HashMap::new();
    for one in got {
        let data = one.json()["data"].clone();
        let (name, revision) =
            (data["id"].to_string(), data["status"]["revision"].as_i64().unwrap());
        let last = last.entry(name).or_default();
        assert!(revision <= *last + 1, "revision {revision} came after {last}");
        *last = revision.max(*last);
    }
}

fn verified_by_everybody(got: &[Got], secret: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("messages");
    let line = |one: &Got| {
        let names = ["webhook-id", "webhook-timestamp", "webhook-signature"];
        let headers: HashMap<_, _> = names.map(|name| (name, one.header(name))).into();
        json!({"headers": headers, "body": one.body}).to_string()
    };
    fs::write(&file, got.iter().map(line).collect::<Vec<_>>().join("\n")).unwrap();
    let check =
        |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/receivers").join(name);
    let mut python = Command::new(tool("python/bin/python3"));
    python.arg(check("check.py"));
    let mut node = Command::new("node");
    node.arg(check("check.cjs")).env("NODE_MODULES", tool("node/node_modules"));
    for library in [&mut python, &mut node] {
        let said = output(library.arg(secret).arg(&file));
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        let good: Value = serde_json::from_slice(&said.stdout).unwrap();
        assert_eq!(good, got.len(), "all are good");
    }
}
