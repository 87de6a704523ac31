//! What a tenant's issuers, and the CAs that they name, can have this service connect to: nothing that
//! is not public, unless the operator says so. And no way leads to the Secrets of `ClusterIssuer`s.

use std::net::UdpSocket;
use std::sync::Arc;

use axum::http::Method;
use certwright::ca::{Account, Authorities, Ca};
use certwright::clock::{Clock, SystemClock};
use certwright::domain::challenge::{Proof, in_words};
use certwright::domain::failure::Failure;
use certwright::domain::id::ChallengeId;
use certwright::domain::issuer::{self, Acme, DnsProvider, Kind};
use certwright::outbound::{Allow, Client, Guard, Sender, SenderSettings};
use certwright::secret::Secret;
use certwright::solver::{Readiness, SolverSettings, Solvers};
use serde_json::{Value, json};
use url::Url;

use crate::support::cloudflare::Cloudflare;
use crate::support::databases::on_both_databases;
use crate::support::hostile::{HostileCa, Lures, NAMES, Trap, ZONE, hostile_names, inner_urls};
use crate::support::world::{World, cluster_issuer, id, on_every_database};

/// Where the hostile CA is: on this machine, and allowed.
const ALLOWED: &str = "127.3.3.3";

/// What the listeners inside say to whoever comes.
const SAID: &str = "canary-inside";

async fn inside() -> Trap {
    Trap::answering(
        "HTTP/1.1 403 Forbidden\r\ncontent-type: application/problem+json\r\ncontent-length: 26\r\n\r\n{\"detail\":\"canary-inside\"}",
    )
    .await
}

/// The same, and a socket on the same port that takes questions to name servers.
async fn inside_with_datagrams() -> (Trap, UdpSocket) {
    loop {
        let trap = inside().await;
        // The port may be somebody's for datagrams.
        if let Ok(datagrams) = UdpSocket::bind(("127.0.0.1", trap.port)) {
            datagrams.set_nonblocking(true).unwrap();
            return (trap, datagrams);
        }
    }
}

fn guard(cloudflare: &Cloudflare, allow: &[&str]) -> Guard {
    Guard::asking(&[cloudflare.dns_addr()], Allow::parse(allow).unwrap()).unwrap()
}

fn sender(cloudflare: &Cloudflare, trap: &Trap) -> Sender {
    let ports = [trap.port, 443].into();
    Sender::new(guard(cloudflare, &[ALLOWED]), SenderSettings { allow_http: false, ports }).unwrap()
}

fn acme(server: &str) -> Acme {
    let solvers = json!([{"http01": {}}]);
    let given = json!({"server": server, "skipTLSVerify": true, "solvers": solvers});
    serde_json::from_value(given).unwrap()
}

/// A new account at the CA.
async fn account(
    authorities: &Authorities,
    kind: Kind,
    acme: &Acme,
) -> Result<Arc<Account>, Failure> {
    let key = Ca::generate_account_key()?;
    let registered = authorities.of(kind).register(acme, &key).await?;
    authorities.of(kind).account(acme, &key, &registered.url).await
}

/// Goes through an order as far as the CA's URLs let it; why it ended.
async fn order(account: &Account) -> Result<(), Failure> {
    let names = ["app.example.org".to_owned()];
    let placed = account.new_order(&names, None).await?;
    let mut order = account.order(placed.url(), time::Duration::ZERO).await?;
    let authorizations = order.authorizations().await?;
    order.accept(&[authorizations[0].challenges[0].url.clone()]).await?;
    order.finalize(b"csr").await?;
    let download = order.certificate().await?.expect("the order is valid");
    match download.alternates.first() {
        Some(alternate) => order.alternate(alternate).await.map(drop),
        None => Ok(()),
    }
}

/// Each place of a URL in a CA's answers, filled with this one.
fn lures(url: &str) -> [Lures; 6] {
    let url = Some(url.to_owned());
    [
        Lures { order: url.clone(), ..Lures::default() },
        Lures { authorization: url.clone(), ..Lures::default() },
        Lures { challenge: url.clone(), ..Lures::default() },
        Lures { finalize: url.clone(), ..Lures::default() },
        Lures { certificate: url.clone(), ..Lures::default() },
        Lures { alternate: url, ..Lures::default() },
    ]
}

#[tokio::test]
async fn nothing_is_sent_where_only_an_answer_of_the_ca_leads() {
    let (cloudflare, trap, ca) =
        (Cloudflare::start(&[ZONE]).await, inside().await, HostileCa::at(ALLOWED).await);
    hostile_names(&cloudflare);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let authorities = Authorities::new(&clock, guard(&cloudflare, &[ALLOWED]));
    let acme = acme(&ca.directory_url());
    ca.lure(Lures::default());
    let tenants = account(&authorities, Kind::Issuer, &acme).await.unwrap();
    // To the addresses of a ClusterIssuer no rule applies, to its origins the same.
    let administrators = account(&authorities, Kind::ClusterIssuer, &acme).await.unwrap();
    for account in [&tenants, &administrators] {
        order(account).await.expect("a CA that names its own URLs is used");
    }

    let urls = inner_urls(trap.port);
    assert!(urls.len() >= 60, "{}", urls.len());
    for url in &urls {
        for lures in lures(url) {
            ca.lure(lures.clone());
            for account in [&tenants, &administrators] {
                let Err(failure) = order(account).await else {
                    // What no header can carry was not named at all.
                    assert!(!url.is_ascii() || url.contains(['\t', '\n']), "{url}: {lures:?}");
                    continue;
                };
                let refused = ["acme_url_foreign", "acme_url_refused", "acme_unreadable_answer"];
                assert!(refused.contains(&&*failure.code), "{url} {lures:?}: {failure:?}");
                assert!(!format!("{failure:?}").contains(SAID), "{failure:?}");
            }
        }
    }

    assert_eq!(trap.count(), 0, "somebody was connected to");
}

#[tokio::test]
async fn a_foreign_url_costs_no_request_and_no_nonce() {
    let (cloudflare, ca) = (Cloudflare::start(&[ZONE]).await, HostileCa::at(ALLOWED).await);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let authorities = Authorities::new(&clock, guard(&cloudflare, &[ALLOWED]));
    let account = account(&authorities, Kind::Issuer, &acme(&ca.directory_url())).await.unwrap();

    let before = ca.requests();
    for _ in 0..3 {
        let foreign = "https://elsewhere.example.org/order";
        let failure = account.order(foreign, time::Duration::ZERO).await.err().unwrap();
        assert_eq!(failure.code, "acme_url_foreign");
    }
    assert_eq!(ca.requests(), before, "nothing was sent");
    account.new_order(&["app.example.org".to_owned()], None).await.unwrap();
    assert_eq!(ca.requests(), before + 1, "the nonce was still there");
}

#[tokio::test]
async fn an_administrator_lists_further_hosts_of_a_ca() {
    let (cloudflare, ca, second) = (
        Cloudflare::start(&[ZONE]).await,
        HostileCa::at(ALLOWED).await,
        HostileCa::at("127.4.4.4").await,
    );
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let authorities = Authorities::new(&clock, guard(&cloudflare, &[]));
    let origin = format!("https://{}", second.address);
    ca.lure(Lures { certificate: Some(format!("{origin}/certificate")), ..Lures::default() });

    let without = acme(&ca.directory_url());
    let with = Acme { allowed_origins: vec![origin], ..without.clone() };
    let account = async |acme| account(&authorities, Kind::ClusterIssuer, acme).await.unwrap();
    let refused = order(&*account(&without).await).await.unwrap_err();
    assert_eq!((&*refused.code, second.requests()), ("acme_url_foreign", 0));
    assert!(refused.detail.contains("allowedOrigins"), "{refused}");

    order(&*account(&with).await).await.unwrap();
    assert_eq!(second.requests(), 1);
}

#[tokio::test]
async fn endpoints_of_a_directory_are_no_way_inside() {
    let (cloudflare, trap, ca) =
        (Cloudflare::start(&[ZONE]).await, inside().await, HostileCa::at(ALLOWED).await);
    hostile_names(&cloudflare);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);

    for url in inner_urls(trap.port) {
        ca.lure(Lures { endpoints: Some(url.clone()), ..Lures::default() });
        let authorities = Authorities::new(&clock, guard(&cloudflare, &[ALLOWED]));
        let failure = account(&authorities, Kind::Issuer, &acme(&ca.directory_url())).await;
        let failure = failure.err().unwrap();
        let refused = ["acme_address_forbidden", "acme_url_refused", "acme_not_a_directory"];
        assert!(refused.contains(&&*failure.code), "{url}: {failure:?}");
    }

    assert_eq!(trap.count(), 0, "somebody was connected to");
}

fn solvers(cloudflare: &Cloudflare, authority_port: u16, allow: &[&str]) -> Solvers {
    Solvers::new(SolverSettings {
        clock: Arc::new(SystemClock),
        installation: "tests".to_owned(),
        nameservers: vec![cloudflare.dns_addr()],
        authority_port,
        self_check_port: 80,
        guard: guard(cloudflare, allow),
    })
    .unwrap()
}

fn provider(base: &str) -> issuer::Cloudflare {
    serde_json::from_value(json!({"apiTokenSecretRef": {"name": "token"}, "baseURL": base}))
        .unwrap()
}

#[tokio::test]
async fn a_token_of_an_issuer_goes_to_no_host_that_is_not_listed() {
    let (cloudflare, trap) = (Cloudflare::start(&[ZONE]).await, inside().await);
    hostile_names(&cloudflare);
    let solvers = solvers(&cloudflare, 53, &[]);
    let token = Secret::new(cloudflare.token().to_owned());

    let mut urls = inner_urls(trap.port);
    urls.extend(urls.clone().iter().map(|url| url.replacen("https:", "http:", 1)));
    urls.extend(["https://1.2.3.4/".to_owned(), "https://[2606:4700::1111]/".to_owned()]);
    for url in urls {
        let failure = match solvers.dns_provider(
            Kind::Issuer,
            DnsProvider::Cloudflare(&provider(&url)),
            &token,
        ) {
            Ok(provider) => provider.zones().await.unwrap_err(),
            Err(failure) => failure,
        };
        let refused = ["cloudflare_invalid_base_url", "cloudflare_address_forbidden"];
        assert!(refused.contains(&&*failure.code), "{url}: {failure:?}");
        assert!(!format!("{failure:?}").contains(SAID), "{failure:?}");
    }

    assert_eq!(trap.count(), 0, "somebody was connected to");
}

#[tokio::test]
async fn a_listed_host_gets_the_token_and_a_clear_text_one_does_not() {
    let cloudflare = Cloudflare::start(&[ZONE]).await;
    let token = Secret::new(cloudflare.token().to_owned());
    let base = provider(&cloudflare.base_url());

    let listed = solvers(&cloudflare, 53, &["127.0.0.1"]);
    let zones = listed
        .dns_provider(Kind::Issuer, DnsProvider::Cloudflare(&base), &token)
        .unwrap()
        .zones()
        .await
        .unwrap();
    assert_eq!(zones.len(), 1);

    let clear = provider("http://api.example.org/");
    for kind in [Kind::Issuer, Kind::ClusterIssuer] {
        let failure =
            listed.dns_provider(kind, DnsProvider::Cloudflare(&clear), &token).err().unwrap();
        assert!(failure.detail.contains("https"), "{failure}");
    }
}

/// The address of a URL as name servers are written.
fn as_name_server(url: &str) -> String {
    url.trim_start_matches("https:").trim_matches(['/', '\\']).to_owned()
}

fn proof() -> Proof {
    Proof {
        challenge: ChallengeId::generate(SystemClock.now()),
        domain: format!("app.{ZONE}"),
        token: "token".to_owned(),
        key_authorization: "token.thumbprint".to_owned(),
    }
}

#[tokio::test]
async fn no_name_server_inside_is_asked_for_an_issuer() {
    let (cloudflare, (trap, datagrams)) =
        (Cloudflare::start(&[ZONE]).await, inside_with_datagrams().await);
    let solvers = solvers(&cloudflare, trap.port, &[]);
    let token = Secret::new(cloudflare.token().to_owned());

    for url in inner_urls(trap.port) {
        let server = as_name_server(&url);
        let given = json!({"dns01": {"cloudflare": {"apiTokenSecretRef": {"name": "token"}},
            "nameservers": [server], "propagation": {"mode": "recursive"}}});
        let config: issuer::Solver = serde_json::from_value(given).unwrap();
        let failure = solvers.solver(Kind::Issuer, &config, Some(&token)).err();
        let failure = failure.unwrap_or_else(|| panic!("{server} would be asked"));
        assert!(
            ["dns_address_forbidden", "solver_invalid"].contains(&&*failure.code),
            "{failure:?}"
        );
    }

    assert_eq!(trap.count(), 0, "somebody was connected to");
    assert!(datagrams.recv(&mut [0; 512]).is_err(), "somebody was asked");
}

#[tokio::test]
async fn a_zone_names_no_servers_inside() {
    let (cloudflare, (trap, datagrams)) =
        (Cloudflare::start(&[ZONE]).await, inside_with_datagrams().await);
    let solvers = solvers(&cloudflare, trap.port, &[]);
    let token = Secret::new(cloudflare.token().to_owned());
    for (place, inside) in ["127.0.0.2", "::1", "10.0.0.1", "169.254.169.254"].iter().enumerate() {
        let server = format!("ns{place}.{ZONE}");
        cloudflare.add_nameserver(ZONE, &server, inside.parse().unwrap());
    }
    let given = json!({"dns01": {"cloudflare": {"apiTokenSecretRef": {"name": "token"}}}});
    let config: issuer::Solver = serde_json::from_value(given).unwrap();
    let solver = solvers.solver(Kind::ClusterIssuer, &config, Some(&token)).unwrap();

    let Readiness::NotYet { observed } = solver.is_ready(&proof(), None).await.unwrap() else {
        panic!("nobody has written anything")
    };

    let words = in_words(&observed);
    assert!(words.contains("not public") && !words.contains("10.0.0.1"), "{words}");
    assert_eq!(trap.count(), 0, "somebody was connected to");
    assert!(datagrams.recv(&mut [0; 512]).is_err(), "somebody was asked");
}

#[tokio::test]
async fn a_guarded_client_asks_no_proxy() {
    let (cloudflare, trap, proxy) =
        (Cloudflare::start(&[ZONE]).await, inside().await, inside().await);
    let through = reqwest::Proxy::all(format!("http://127.0.0.1:{}", proxy.port)).unwrap();
    let builder = reqwest::Client::builder().proxy(through);
    let client = Client::guarded(builder, guard(&cloudflare, &["127.0.0.1"])).unwrap();
    let url: Url = format!("http://127.0.0.1:{}/", trap.port).parse().unwrap();

    let answer = client.request(Method::GET, &url).unwrap().send().await.unwrap();

    assert_eq!((answer.status().as_u16(), trap.count(), proxy.count()), (403, 1, 0));
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

    async fn only_an_unbound_key_says_where_a_token_is_sent(world: World) {
        let tenant = world.key(&["*"], &["team"]).await;
        let solver = json!({"dns01": {"cloudflare": {"apiTokenSecretRef": {"name": "token"},
            "baseURL": "https://127.0.0.1:9/"}}});
        let own = issuer_at("own", "https://ca.example/directory", &solver);
        let pointer = "/acme/solvers/0/dns01/cloudflare/baseURL";

        let refused = world.ask(Method::POST, "/issuers").with_key(&tenant).json(&own).send().await;
        let problem = refused.is_problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");

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
