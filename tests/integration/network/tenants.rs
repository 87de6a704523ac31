//! What a tenant's API key can have this service connect to: nothing inside. And no way leads to the
//! Secrets of `ClusterIssuer`s.

use axum::http::Method;
use certwright::outbound::{Sender, SenderSettings};
use serde_json::{Value, json};

use super::guarded::{ALLOWED, SAID, as_name_server, guard, inside};
use crate::support::cloudflare::Cloudflare;
use crate::support::databases::on_both_databases;
use crate::support::hostile::{NAMES, Trap, ZONE, hostile_names, inner_urls};
use crate::support::world::{World, cluster_issuer, id, on_every_database};

fn sender(cloudflare: &Cloudflare, trap: &Trap) -> Sender {
    let ports = [trap.port, 443].into();
    Sender::new(guard(cloudflare, &[ALLOWED]), SenderSettings { allow_http: false, ports }).unwrap()
}

fn issuer_at(name: &str, server: &str, solver: &Value) -> Value {
    json!({"kind": "Issuer", "namespace": "team", "name": name,
        "acme": {"server": server, "skipTLSVerify": true, "solvers": [solver]}})
}

mod tenant {
    use super::*;

    on_both_databases! {
        async fn a_tenant_who_may_everything_reaches_nothing_inside(db: Db) {
            let (cloudflare, trap) = (Cloudflare::start(&[ZONE]).await, inside().await);
            hostile_names(&cloudflare);
            let world = World::posting(db, sender(&cloudflare, &trap)).await.with_account_keys();
            let key = world.key(&["*"], &["team"]).await;
            let ask = async |path: &str, body: &Value| {
                world.ask(Method::POST, path).with_key(&key).json(body).send().await
            };
            let http01 = json!({"http01": {}});
            let dns01 = |more: Value| {
                let mut solver = json!({"cloudflare": {"apiTokenSecretRef": {"name": "token"}}});
                for (name, value) in more.as_object().unwrap() {
                    solver[name] = value.clone();
                }
                json!({"dns01": solver})
            };

            let mut registered = 0;
            for (place, url) in inner_urls(trap.port).iter().enumerate() {
                let name = format!("issuer-{place}");
                let answer = ask("/issuers", &issuer_at(&name, url, &http01)).await;
                match answer.status {
                    // Where a name leads is seen when it is asked.
                    202 => registered += 1,
                    _ => {
                        answer.is_problem(422, "validation_failed");
                    }
                }
                let base = dns01(json!({"cloudflare": {"apiTokenSecretRef": {"name": "token"}, "baseURL": url}}));
                let server = dns01(json!({"nameservers": [as_name_server(url)]}));
                for solver in [base, server] {
                    let answer = ask("/issuers", &issuer_at(&name, "https://ca.example.org/", &solver)).await;
                    answer.is_problem(422, "validation_failed");
                }
                let hook = json!({"namespace": "team", "url": url});
                ask("/webhooks", &hook).await.is_problem(422, "validation_failed");
            }
            assert_eq!(registered, NAMES.len(), "only names need a look-up");
            let worker = world.worker();
            while worker.work_due().await.unwrap() > 0 {}

            let issuers = world.ask(Method::GET, "/issuers?limit=500").with_key(&key).send().await.json();
            for issuer in issuers["items"].as_array().unwrap() {
                let condition = issuer["status"]["conditions"][0].to_string();
                assert!(condition.contains("is not public"), "{condition}");
            }
            for path in ["/events?limit=500", "/webhooks", "/issuers?limit=500"] {
                world.ask(Method::GET, path).with_key(&key).send().await;
            }
            assert_eq!(trap.count(), 0, "somebody was connected to");
            let answers = world.answers.lock().unwrap();
            assert!(answers.iter().all(|(_, text)| !text.contains(SAID)));
        }
    }
}

on_every_database! {
    async fn only_a_cluster_issuer_lists_origins(world: World) {
        let mut cluster = cluster_issuer("private");
        cluster["acme"]["allowedOrigins"] = json!(["https://downloads.ca.example:8443"]);
        let made = world.post("/issuers", cluster.clone()).await.accepted();
        assert_eq!(made["acme"]["allowedOrigins"], json!(["https://downloads.ca.example:8443"]));

        let mut own = issuer_at("own", "https://ca.example/directory", &json!({"http01": {}}));
        own["acme"]["allowedOrigins"] = json!(["https://downloads.ca.example"]);
        cluster["name"] = json!("other");
        cluster["acme"]["allowedOrigins"] = json!(["http://downloads.ca.example"]);
        for (issuer, pointer) in
            [(own, "/acme/allowedOrigins"), (cluster, "/acme/allowedOrigins/0")]
        {
            let problem = world.post("/issuers", issuer).await.is_problem(422, "validation_failed");
            assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
        }
    }

    async fn only_an_unbound_key_with_secrets_says_where_a_token_is_sent(world: World) {
        let tenant = world.key(&["*"], &["team"]).await;
        let operator = json!({"name": "operator", "role": "operator"});
        let operator = world.post("/api-keys", operator).await.accepted();
        let solver = json!({"dns01": {"cloudflare": {"apiTokenSecretRef": {"name": "token"},
            "baseURL": "https://127.0.0.1:9/"}}});
        let own = issuer_at("own", "https://ca.example/directory", &solver);
        let pointer = "/acme/solvers/0/dns01/cloudflare/baseURL";

        for key in [tenant.as_str(), operator["key"].as_str().unwrap()] {
            let refused = world.ask(Method::POST, "/issuers").with_key(key).json(&own).send().await;
            let problem = refused.is_problem(422, "validation_failed");
            assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
        }

        let made = world.post("/issuers", own.clone()).await.accepted();
        let path = format!("/issuers/{}", id(&made));
        let refused = world.ask(Method::PUT, &path).with_key(&tenant).json(&own).send().await;
        refused.is_problem(422, "validation_failed");
    }

    async fn no_bound_key_reaches_the_secrets_of_cluster_issuers(world: World) {
        let secret = json!({"namespace": "certwright", "name": "token", "stringData": {"api-token": "x"}});
        let path = format!("/secrets/{}", id(&world.post("/secrets", secret.clone()).await.accepted()));
        let bound = json!({"name": "cluster", "permissions": ["*"], "namespaces": ["team", "certwright"]});
        let problem = world.post("/api-keys", bound).await.is_problem(422, "validation_failed");
        assert!(problem["detail"].to_string().contains("ClusterIssuers"), "{problem}");

        // One that was bound there before the namespace became theirs.
        let former = world.key(&["*"], &["certwright", "team"]).await;
        let ask = async |method: Method, path: &str, body: &Value| {
            world.ask(method, path).with_key(&former).json(body).send().await
        };
        let listed = ask(Method::GET, "/secrets", &json!({})).await.json();
        assert_eq!(listed["items"], json!([]));
        let values = json!({"stringData": {"api-token": "y"}});
        ask(Method::PUT, &path, &values).await.is_problem(404, "not_found");
        ask(Method::DELETE, &path, &json!({})).await.is_problem(404, "not_found");
        let certificate = json!({"namespace": "certwright", "issuerRef": {"name": "own"}, "dnsNames": ["a.example.com"]});
        let mut own = issuer_at("own", "https://ca.example/directory", &json!({"http01": {}}));
        own["namespace"] = json!("certwright");
        let hook = json!({"namespace": "certwright", "url": "https://hooks.example/"});
        let broad = json!({"namespace": "team", "namespaces": ["certwright"], "url": "https://hooks.example/"});
        for (path, body) in [
            ("/secrets", &secret), ("/certificates", &certificate), ("/issuers", &own),
            ("/webhooks", &hook), ("/webhooks", &broad),
        ] {
            ask(Method::POST, path, body).await.is_problem(403, "permission_denied");
        }
        let manifest = json!({"apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "token", "namespace": "certwright"}, "stringData": {"api-token": "y"}});
        for path in ["/apply", "/import"] {
            let manifest = manifest.to_string();
            let ask = world.ask(Method::POST, path).with_key(&former).text(&manifest);
            ask.header("content-type", "application/yaml").send().await.is_problem(403, "permission_denied");
        }
        let whoami = ask(Method::GET, "/whoami", &json!({})).await.json();
        assert_eq!(whoami["namespaces"], json!(["team"]), "{whoami}");
    }

    async fn a_secret_that_is_still_in_default_is_to_be_moved(world: World) {
        let world = world.with_account_keys();
        let secret = json!({"name": "eab", "stringData": {"secret": "c2VjcmV0"}});
        world.post("/secrets", secret).await.accepted();
        let mut issuer = cluster_issuer("bound");
        issuer["acme"]["externalAccountBinding"] = json!({"keyID": "1", "keySecretRef": {"name": "eab"}});
        let path = format!("/issuers/{}", id(&world.post("/issuers", issuer).await.accepted()));

        world.worker().work_due().await.unwrap();

        let shown = world.get(&path).await.json();
        let told = shown["status"]["conditions"][0]["message"].as_str().unwrap();
        assert!(told.contains("certwright secrets create eab -n certwright --from-file secret=FILE"), "{told}");

        let mut imported = cluster_issuer("imported");
        imported["acme"]["privateKeySecretRef"] = json!({"name": "eab"});
        let problem = world.post("/issuers", imported).await.is_problem(422, "validation_failed");
        assert!(problem["detail"].to_string().contains("-n certwright"), "{problem}");
    }

    async fn what_an_endpoint_says_is_shown_to_no_tenant(world: World) {
        let trap = inside().await;
        let tenant = world.key(&["*"], &["team"]).await;
        let hook = json!({"namespace": "team", "url": format!("http://127.0.0.1:{}/", trap.port)});
        let path = format!("/webhooks/{}", id(&world.post("/webhooks", hook).await.accepted()));
        world.post(&format!("{path}/test"), json!({})).await.accepted();
        world.deliver().await;

        let deliveries = format!("{path}/deliveries");
        let all = world.get(&deliveries).await.json()["items"][0].clone();
        assert!(all["responseBody"].as_str().unwrap().contains(SAID), "{all}");
        let theirs = world.ask(Method::GET, &deliveries).with_key(&tenant).send().await;
        assert!(!theirs.text.contains(SAID), "{}", theirs.text);
        let theirs = theirs.json()["items"][0].clone();
        assert_eq!((&theirs["responseStatus"], &theirs["responseBody"]), (&json!(403), &json!(null)));
    }
}
