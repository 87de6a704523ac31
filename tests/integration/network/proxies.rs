//! Two replicas behind a proxy, as deploy/ has it: TLS, long waits, streams, addresses, and a replica that dies.

use serde_json::{Value, json};

use crate::support::installation::{Database, Installation};
use crate::support::patience::{PATIENCE, until, within};
use crate::support::proxies::{ApiProxy, Replicas};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_behind_nginx() {
    two_replicas_behind(async |replicas| ApiProxy::nginx(&replicas).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_behind_caddy() {
    two_replicas_behind(async |replicas| ApiProxy::caddy(&replicas).await).await;
}

async fn two_replicas_behind(start: impl AsyncFn(Replicas) -> ApiProxy) {
    let mut site = Installation::on(Database::Postgres).await;
    site.set("HTTP_TRUSTED_PROXIES", "127.0.0.1/32");
    let (one, other) = (site.start().await, site.start().await);
    site.set_up(&one).await;
    let replicas = Replicas {
        api: [one.api.clone(), other.api.clone()],
        http01: [one.responder(), other.responder()],
    };
    let proxy = start(replicas).await;
    let (http, key) = (proxy.client(), site.setting("BOOTSTRAP_API_KEY"));
    let get = |path: &str| http.get(proxy.url(path)).bearer_auth(&key).timeout(PATIENCE);

    // A stream is passed on event by event, while it goes on.
    let mut stream = get("/events").header("accept", "text/event-stream").send().await.unwrap();
    assert_eq!(stream.status(), 200);
    let wanted = json!({"name": "www", "issuerRef": {"name": "dns", "kind": "ClusterIssuer"},
        "dnsNames": ["www.example.com"]});
    let asked = http.post(proxy.url("/certificates")).bearer_auth(&key).timeout(PATIENCE);
    // What the client says of itself is not believed.
    let asked = asked.header("x-forwarded-for", "192.0.2.66").header("prefer", "wait=240");
    let asked = asked.header("forwarded", "for=192.0.2.66");
    let issued = asked.json(&wanted).send().await.unwrap();
    assert!(issued.status().is_success(), "{issued:?}");
    let issued: Value = serde_json::from_str(&issued.text().await.unwrap()).unwrap();
    assert_eq!(issued["status"]["phase"], "Ready", "the answer was waited for: {issued:#}");
    let mut told = String::new();
    within("the event", async {
        while !told.contains("successfully issued") {
            told.push_str(std::str::from_utf8(&stream.chunk().await.unwrap().unwrap()).unwrap());
        }
    })
    .await;
    let audit = get("/audit?action=certificates.create").send().await.unwrap();
    let audit: Value = serde_json::from_str(&audit.text().await.unwrap()).unwrap();
    assert_eq!(audit["items"][0]["from"], "127.0.0.1", "{audit:#}");
    if let Some(responder) = proxy.http01 {
        let path = format!("http://{responder}/.well-known/acme-challenge/nothing");
        let nothing = http.get(path).send().await.unwrap();
        assert_eq!(
            (nothing.status().as_u16(), nothing.headers().get("via").is_some()),
            (404, false)
        );
    }
    drop(stream);

    one.kill();

    for _ in 0..20 {
        let answer = get("/certificates").send().await.unwrap();
        assert_eq!(answer.status(), 200, "the other one answers");
    }
    let again = json!({"name": "again", "issuerRef": wanted["issuerRef"], "dnsNames": ["again.example.com"]});
    let asked = http.post(proxy.url("/certificates")).bearer_auth(&key).json(&again);
    let asked = asked.timeout(PATIENCE).send().await.unwrap();
    assert_eq!(asked.status(), 202);
    until("the certificate", async || {
        let found = get("/certificates/by-name/default/again").send().await.unwrap();
        let found: Value = serde_json::from_str(&found.text().await.unwrap()).unwrap();
        found["status"]["phase"] == "Ready"
    })
    .await;
}
