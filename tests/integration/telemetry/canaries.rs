//! Secrets of every kind through a whole life, with the most talkative log: none of them shows in the log, an answer,
//! an event, the audit log, a metric, a span, or the database and its write-ahead log.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use certwright::api;
use certwright::domain::issuer::Kind;
use certwright::secret::{Sealer, Secret};
use certwright::storage::{Db, issuers};
use rcgen::generate_simple_self_signed;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};

use crate::support::collector::Collector;
use crate::support::installation::{Installation, Program, items};
use crate::support::openbao::OpenBao;
use crate::support::openid_provider::{AUDIENCE, OpenIdProvider};
use crate::support::pebble::PebbleOptions;
use crate::support::postgres::OwnCluster;
use crate::support::receiver::Receiver;

/// The key of an external account: 32 bytes.
const EXTERNAL_ACCOUNT_KEY: &[u8; 32] = b"canary of the external account!!";
const KEYSTORE_PASSWORD: &str = "canary-keystore-password";
const CLIENT_SECRET: &str = "canary-client-secret";

/// What is not secret, and has to be found wherever a secret must not be: else nobody looked there.
const PUBLIC: &str = "canary-public";

#[tokio::test]
async fn no_secret_shows_anywhere_on_sqlite() {
    let pebble = PebbleOptions { external_accounts: external_accounts(), ..Default::default() };
    let installation = Installation::with(None, pebble).await;
    let path = installation.database_url.trim_start_matches("sqlite://").to_owned();
    let files = async || -> Vec<PathBuf> {
        ["", "-wal"].iter().map(|end| PathBuf::from(format!("{path}{end}"))).collect()
    };
    assert_silent(installation, files).await;
}

#[tokio::test]
async fn no_secret_shows_anywhere_on_postgres() {
    let cluster = OwnCluster::start().await;
    let pebble = PebbleOptions { external_accounts: external_accounts(), ..Default::default() };
    let installation = Installation::with(Some(cluster.url()), pebble).await;
    let files = async || {
        let mut connection = PgConnection::connect(&cluster.url()).await.unwrap();
        sqlx::query("CHECKPOINT").execute(&mut connection).await.unwrap();
        [files_below(&cluster.folder().join("base")), files_below(&cluster.folder().join("pg_wal"))]
            .concat()
    };
    assert_silent(installation, files).await;
}

async fn assert_silent(mut installation: Installation, files: impl AsyncFn() -> Vec<PathBuf>) {
    let provider = OpenIdProvider::start().await;
    installation.set("LOG_LEVEL", "trace");
    let issuers = format!(
        "[{{issuer = \"{}\", audience = \"{AUDIENCE}\", rules = [{{match = {{groups = \"root\"}}, role = \"admin\", namespaces = [\"*\"]}}]}}]",
        provider.issuer()
    );
    installation.set("OIDC_ISSUERS", &issuers);
    let collector = Collector::start().await;
    installation.set("TELEMETRY_OTLP_ENDPOINT", &collector.url());
    let bao = OpenBao::start().await;
    let around = [wrapped_by(&bao, &mut installation).await, listening(&mut installation)];
    let mut program = installation.start().await;

    let mut secrets = live(&installation, &mut program, &provider).await;
    secrets.extend(around);
    let answers = every_answer(&installation, &program).await;
    let mut database: Vec<_> = files().await.iter().map(|file| read(file)).collect();
    program.send(rustix::process::Signal::TERM);
    assert!(program.end().await.success());
    database.extend(files().await.iter().map(|file| read(file)));
    secrets.push(account_key(&installation).await);

    let shown = vec![program.log().into_bytes(), program.out().into_bytes()];
    let answers = answers.into_iter().map(String::into_bytes).collect();
    let spans = vec![collector.raw()];
    for (place, contents) in
        [("log", shown), ("answers", answers), ("database", database), ("spans", spans)]
    {
        let contents: Vec<_> = contents.iter().map(|content| searchable(content)).collect();
        let holds =
            |form: &[u8]| contents.iter().any(|content| content.contains(&searchable(form)));
        assert!(holds(PUBLIC.as_bytes()), "nobody looked at the {place}");
        for Canary { kind, forms } in &secrets {
            for form in forms {
                assert!(
                    !holds(form),
                    "the {place} shows the {kind}: {}",
                    String::from_utf8_lossy(form)
                );
            }
        }
    }
}

/// A secret, in all forms in which it might show.
struct Canary {
    kind: &'static str,
    forms: Vec<Vec<u8>>,
}

impl Canary {
    fn of(kind: &'static str, text: &str) -> Self {
        Self::of_bytes(kind, text.as_bytes())
    }

    fn of_bytes(kind: &'static str, bytes: &[u8]) -> Self {
        assert!(bytes.len() >= 16, "{kind} is too short to be told from chance");
        let hexadecimal = bytes.iter().flat_map(|byte| format!("{byte:02x}").into_bytes());
        let mut forms = vec![bytes.to_vec(), hexadecimal.collect()];
        // By itself or within something longer, and without the last characters, which depend on what follows.
        for before in 0..3 {
            let rest = &bytes[before..];
            let whole = &rest[..rest.len() / 3 * 3];
            forms.push(STANDARD_NO_PAD.encode(whole).into_bytes());
            forms.push(URL_SAFE_NO_PAD.encode(whole).into_bytes());
        }
        Self { kind, forms }
    }
}

/// Has its master key wrapped by this engine; the engine's token.
async fn wrapped_by(bao: &OpenBao, installation: &mut Installation) -> Canary {
    let token = bao.token().await;
    installation.set("TRANSIT_ADDRESS", &bao.address);
    installation.set("TRANSIT_KEY", "certwright");
    installation.set("TRANSIT_TOKEN_FILE", bao.file("token", &token).to_str().unwrap());
    Canary::of("token of the transit engine", &token)
}

/// Has it listen with TLS; the key of the listener.
fn listening(installation: &mut Installation) -> Canary {
    let own = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = own.signing_key.serialize_pem();
    for (setting, file, pem) in [
        ("HTTPS_CERTIFICATE_FILE", "listener.pem", own.cert.pem()),
        ("HTTPS_KEY_FILE", "listener.key", key.clone()),
    ] {
        let path = installation.file(file);
        fs::write(&path, pem).unwrap();
        installation.set(setting, path.to_str().unwrap());
    }
    installation.set("HTTPS_LISTEN", "127.0.0.1:0");
    Canary::of("key of the TLS listener", key.lines().nth(2).unwrap())
}

/// The key of the account at the CA, which nothing ever shows: read as the service reads it.
async fn account_key(installation: &Installation) -> Canary {
    let master = Secret::new(installation.setting("MASTER_KEY"));
    let sealer = Sealer::from_text(&master).unwrap();
    let db = Db::connect(&installation.database_url).await.unwrap();
    let mut read = db.read().await.unwrap();
    let found = issuers::find_by_name(&mut read, Kind::ClusterIssuer, "", "dns").await.unwrap();
    let id = found.unwrap().0.id;
    let (issuer, key) = issuers::with_account_key(&mut read, id).await.unwrap().unwrap();
    let key = sealer.open(&issuers::account_key_place(&issuer), &key).unwrap();
    drop(read);
    db.close().await;
    // The secret number of a key of P-256 (PKCS #8, RFC 5915).
    Canary::of_bytes("account's key", &key.expose()[36..68])
}

/// Uses a secret of every kind; those that were used.
async fn live(
    site: &Installation,
    program: &mut Program,
    provider: &OpenIdProvider,
) -> Vec<Canary> {
    let post = async |program: &Program, path: &str, body: Value| -> Value {
        let answer = site.post(program, path, &body).await.unwrap();
        assert!(answer.status < 300, "{path}: {answer:?}");
        answer.body
    };
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let external = URL_SAFE_NO_PAD.encode(EXTERNAL_ACCOUNT_KEY);
    let stored =
        json!({"cloudflare": site.cloudflare.token(), "eab": external, "client": CLIENT_SECRET});
    let wanted = json!({"namespace": "certwright", "name": PUBLIC, "stringData": stored});
    post(program, "/secrets", wanted).await;
    post(program, "/issuers", issuer(site)).await;
    let receiver = Receiver::start().await;
    let hook = post(program, "/webhooks", json!({"url": receiver.url()})).await;
    let rotated =
        post(program, &format!("/webhooks/{}/rotate", text(&hook["id"])), json!({})).await;
    let key = post(program, "/api-keys", json!({"name": PUBLIC, "role": "admin"})).await;
    let next = post(program, &format!("/api-keys/{}/rotate", text(&key["id"])), json!({})).await;
    let token = provider.token(&json!({"groups": ["root"]})).await;

    let wanted = json!({"name": PUBLIC, "issuerRef": {"name": "dns", "kind": "ClusterIssuer"}, "dnsNames": [format!("{PUBLIC}.example.com")]});
    let made = send(program, Method::POST, "/certificates", &token, Some(&wanted)).await;
    let path =
        format!("/certificates/{}", text(&serde_json::from_str::<Value>(&made).unwrap()["id"]));
    site.until_all_ready(program, 1).await;
    receiver.until(1).await;
    let pem =
        send(program, Method::GET, &format!("{path}/privkey.pem"), &text(&key["key"]), None).await;
    for file in ["keystore.p12", "keystore.jks", "combined.pem"] {
        send(program, Method::GET, &format!("{path}/{file}"), &text(&next["key"]), None).await;
    }
    let ticket = async || text(&post(program, "/events/ticket", json!({})).await["ticket"]);
    let (used, unused) = (ticket().await, ticket().await);
    drop(follow(program, &used).await);
    // A secret at the wrong place is a secret all the same.
    for query in [&token, &text(&next["key"])] {
        send(program, Method::GET, &format!("/whoami?key={query}"), query, None).await;
    }
    let wrong = json!({"name": "a", "stringData": {"a": [CLIENT_SECRET]}});
    send(program, Method::POST, "/secrets", &text(&next["key"]), Some(&wrong)).await;

    let master = site.setting("MASTER_KEY");
    // The second line of a key's PEM holds most of its secret number.
    let secret_line = pem.lines().nth(2).unwrap();
    vec![
        Canary::of("configured API key", &site.setting("BOOTSTRAP_API_KEY")),
        Canary::of("API key", &text(&key["key"])),
        Canary::of("rotated API key", &text(&next["key"])),
        Canary::of("ticket that was used", &used),
        Canary::of("ticket that was not used", &unused),
        Canary::of("token", token.rsplit('.').next().unwrap()),
        Canary::of("Cloudflare token", site.cloudflare.token()),
        Canary::of("secret of an OIDC client", CLIENT_SECRET),
        Canary::of("password of a keystore", KEYSTORE_PASSWORD),
        Canary::of("private key in PEM", secret_line),
        Canary::of_bytes("private key", &STANDARD.decode(secret_line).unwrap()[..20]),
        Canary::of("external account's key in base64url", &external),
        Canary::of_bytes("external account's key", EXTERNAL_ACCOUNT_KEY),
        Canary::of("webhook's former secret", text(&hook["secret"]).trim_start_matches("whsec_")),
        Canary::of("webhook's secret", text(&rotated["secret"]).trim_start_matches("whsec_")),
        Canary::of("master key in base64", &master),
        Canary::of_bytes("master key", &STANDARD.decode(master.trim()).unwrap()),
    ]
}

fn issuer(site: &Installation) -> Value {
    json!({"kind": "ClusterIssuer", "name": "dns", "acme": {
        "server": site.pebble.directory_url(), "caBundle": site.pebble.ca_bundle(), "email": "user@example.com",
        "externalAccountBinding": {"keyID": "kid-1", "keySecretRef": {"name": PUBLIC, "key": "eab"}},
        "solvers": [{"dns01": {"cloudflare": {
            "baseURL": site.cloudflare.base_url(),
            "apiTokenSecretRef": {"name": PUBLIC, "key": "cloudflare"}}}}],
    }})
}

fn external_accounts() -> Vec<(String, String)> {
    vec![("kid-1".to_owned(), URL_SAFE_NO_PAD.encode(EXTERNAL_ACCOUNT_KEY))]
}

/// The text of an answer, whatever its status is.
async fn send(
    program: &Program,
    method: Method,
    path: &str,
    credential: &str,
    body: Option<&Value>,
) -> String {
    let client = Client::builder().no_proxy().build().unwrap();
    let request =
        client.request(method, format!("http://{}{path}", program.api)).bearer_auth(credential);
    let request = request.header("x-keystore-password", KEYSTORE_PASSWORD);
    let request = match body {
        Some(body) => request.json(body),
        None => request,
    };
    request.send().await.unwrap().text().await.unwrap()
}

/// A stream of events that a ticket opens.
async fn follow(program: &Program, ticket: &str) -> reqwest::Response {
    let client = Client::builder().no_proxy().build().unwrap();
    let asked = client.get(format!("http://{}/events?ticket={ticket}", program.api));
    let stream = asked.header("accept", "text/event-stream").send().await.unwrap();
    assert_eq!(stream.status(), 200);
    stream
}

/// What every GET of the description answers, about everything that is listed; downloads of keys aside.
async fn every_answer(site: &Installation, program: &Program) -> Vec<String> {
    let document = serde_json::to_value(api::document()).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let paths: Vec<_> =
        paths.iter().filter(|(_, item)| item.get("get").is_some()).map(|(path, _)| path).collect();
    let mut answers = Vec::new();
    for list in paths.iter().filter(|path| !path.contains('{')) {
        let answer = site.get(program, list).await.unwrap();
        assert_eq!(answer.status, 200, "{list}");
        let below = format!("{list}/{{id}}");
        let about_one: Vec<_> = paths
            .iter()
            .filter(|path| path.starts_with(&below) && !path.contains("{delivery}"))
            .collect();
        for item in items(&answer.body) {
            let id = item["id"].as_str().unwrap_or_default();
            for path in
                about_one.iter().filter(|path| !HOLD_A_KEY.iter().any(|end| path.ends_with(end)))
            {
                let answer = site.get(program, &path.replace("{id}", id)).await.unwrap();
                assert_eq!(answer.status, 200, "{path}: {answer:?}");
                answers.push(answer.body.to_string());
            }
        }
        answers.push(answer.body.to_string());
    }
    assert!(answers.len() > 30, "{}", answers.len());
    answers
}

/// Downloads that are there to hand out a key.
const HOLD_A_KEY: &[&str] = &["privkey.pem", "combined.pem", "keystore.p12", "keystore.jks"];

/// Each byte as a character: texts are searched quickly, whatever build this is.
fn searchable(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

/// A file's content; nothing if there is no such file (any more).
fn read(file: &Path) -> Vec<u8> {
    fs::read(file).unwrap_or_default()
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}
