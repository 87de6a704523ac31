//! Client certificates, over the real listener: who is let in, who is not, and until when.

use std::fs;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use certwright::api::CallerLimits;
use certwright::clock::{Clock as _, SystemClock};
use certwright::config::{CertificateSource, ClientAuth, Https};
use certwright::domain::access_rule::{Namespaces, Rule};
use certwright::domain::role::Role;
use certwright::pki;
use certwright::server::{Limits, Server};
use certwright::server_certificate::ServerCertificate;
use rcgen::ExtendedKeyUsagePurpose::ServerAuth;
use rcgen::{CertificateParams, DnType};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::policies::allow;
use crate::support::client_ca::{ClientCa, ClientIdentity};
use crate::support::patience::{until, within};
use crate::support::world::{World, certificate, id, on_every_database};

const NEVER: Duration = Duration::from_hours(24);
const PATIENT: Limits = Limits { connections: 100, head: NEVER, idle: NEVER, untaken: NEVER };
const DEPLOY: &str = "spiffe://example.org/ns/a/sa/deploy";

/// A world that is reached over TLS, and takes the certificates of one CA.
struct Place {
    world: World,
    ca: ClientCa,
    address: SocketAddr,
    own: String,
    listener: ServerCertificate,
    folder: TempDir,
}

impl Place {
    async fn around(world: World) -> Self {
        let (ca, folder) = (ClientCa::named("Clients"), TempDir::new().unwrap());
        let (own, key) = pki::self_signed(&["localhost".to_owned()]).unwrap();
        let file = |name: &str, text: &str| -> PathBuf {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let rules = vec![
            rule("uri", "spiffe://example.org/ns/{namespace}/sa/*", Role::Requester, None),
            rule("cn", "boss", Role::Admin, Some(Namespaces::All)),
        ];
        let world = world.recognising(Vec::new(), rules.clone());
        let https = Https {
            listen: "127.0.0.1:0".parse().unwrap(),
            certificate: CertificateSource::Files {
                chain: file("chain.pem", &own),
                key: file("key.pem", key.expose()),
            },
            client_auth: Some(ClientAuth { ca_file: file("clients.pem", &ca.pem()), rules }),
        };
        let listener = ServerCertificate::open(&https, &world.db, &world.sealer).await.unwrap();
        let socket = TcpListener::bind(https.listen).await.unwrap();
        let server = Server::new("test", socket, world.router.clone(), PATIENT);
        let server = server.over(listener.tls());
        let address = server.address().unwrap();
        tokio::spawn(server.run(CancellationToken::new()));
        Self { world, ca, address, own, listener, folder }
    }

    /// Somebody with this certificate, or none, at a program that speaks TLS 1.3, or 1.2.
    fn client(&self, identity: Option<&ClientIdentity>) -> Client {
        self.client_of(identity, reqwest::tls::Version::TLS_1_3)
    }

    fn client_of(
        &self,
        identity: Option<&ClientIdentity>,
        version: reqwest::tls::Version,
    ) -> Client {
        let root = reqwest::Certificate::from_pem(self.own.as_bytes()).unwrap();
        let mut builder = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([root])
            .tls_version_min(version)
            .tls_version_max(version)
            .resolve("localhost", self.address);
        if let Some(identity) = identity {
            let identity = reqwest::Identity::from_pem(identity.pem().as_bytes()).unwrap();
            builder = builder.identity(identity);
        }
        let server = format!("https://localhost:{}", self.address.port());
        Client { http: builder.build().unwrap(), server }
    }
}

fn rule(claim: &str, glob: &str, role: Role, namespaces: Option<Namespaces>) -> Rule {
    let namespaces = namespaces.unwrap_or_else(|| Namespaces::Part(claim.to_owned()));
    Rule { claims: vec![(claim.to_owned(), glob.to_owned())], role, namespaces }
}

struct Client {
    http: reqwest::Client,
    server: String,
}

impl Client {
    fn ask(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.server))
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        answer(self.ask(Method::GET, path)).await
    }

    /// The words of a handshake that fails.
    async fn refusal(&self) -> String {
        let sent = within("the refusal", self.ask(Method::GET, "/whoami").send()).await;
        format!("{:?}", sent.expect_err("it is not let in"))
    }
}

async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response: Response = within("the answer", request.send()).await.unwrap();
    let status = response.status().as_u16();
    (status, within("its body", response.json()).await.unwrap())
}

#[track_caller]
fn assert_refused((status, body): &(u16, Value), expected: u16, words: &str) {
    assert_eq!(*status, expected, "{body}");
    assert!(body["detail"].as_str().unwrap().contains(words), "{body}");
}

on_every_database! {
    async fn a_certificate_may_do_what_its_rule_grants_and_nothing_else(world: World) {
        let place = Place::around(world).await;
        let world = &place.world;
        world.create_issuer().await;
        allow(world, "a", "a", &["**.example.com"]).await;
        let identity = place.ca.sign(DEPLOY);
        for version in [reqwest::tls::Version::TLS_1_2, reqwest::tls::Version::TLS_1_3] {
            let (status, who) = place.client_of(Some(&identity), version).get("/whoami").await;
            assert_eq!(status, 200, "{who}");
            assert_eq!((&who["kind"], &who["name"]), (&json!("clientCertificate"), &json!(DEPLOY)));
            assert_eq!((&who["role"], &who["namespaces"]), (&json!("requester"), &json!(["a"])));
            assert!(who["expiresAt"].is_string(), "{who}");
        }
        let client = place.client(Some(&identity));
        let create = async |namespace: &str| {
            let mut wanted = certificate("web");
            wanted["namespace"] = json!(namespace);
            answer(client.ask(Method::POST, "/certificates").json(&wanted)).await
        };

        let (status, made) = create("a").await;
        assert_eq!(status, 202, "{made}");
        assert_refused(&create("b").await, 403, "The client certificate may not act in the namespace `b`");
        assert_refused(&client.get("/api-keys").await, 403, &format!("client certificate `{DEPLOY}` lacks"));
        let entries = world.get(&format!("/audit?resource=certificates/{}", id(&made))).await.json();
        let by = &entries["items"][0]["principal"];
        let (_, who) = client.get("/whoami").await;
        assert_eq!(*by, json!({"kind": "clientCertificate", "id": who["id"], "name": DEPLOY}), "{entries}");
    }

    async fn who_has_no_certificate_goes_on_with_a_key_and_a_key_counts_beside_one(world: World) {
        let place = Place::around(world).await;
        let identity = place.ca.sign(DEPLOY);
        let (with, without) = (place.client(Some(&identity)), place.client(None));

        assert_refused(&without.get("/whoami").await, 401, "client certificates");
        for client in [&with, &without] {
            let asked = client.ask(Method::GET, "/whoami").bearer_auth(&place.world.admin);
            let (status, who) = answer(asked).await;
            assert_eq!((status, &who["kind"]), (200, &json!("apiKey")), "{who}");
            let asked = client.ask(Method::GET, "/whoami").bearer_auth("cw_wrong");
            assert_refused(&answer(asked).await, 401, "not an API key");
        }
        // A browser shows its certificate whichever page asks for it.
        let forged = with.ask(Method::GET, "/whoami").header("sec-fetch-site", "cross-site");
        assert_refused(&answer(forged).await, 403, "a page of another site");
    }

    async fn names_without_a_rule_let_nobody_in(world: World) {
        let place = Place::around(world).await;
        for name in ["spiffe://example.com/ns/a/sa/deploy", "spiffe://example.org/ns/*/sa/deploy", "spiffe://example.org/ns/certwright/x"] {
            let client = place.client(Some(&place.ca.sign(name)));
            assert_refused(&client.get("/whoami").await, 403, "no rule matches its names");
        }
        let nameless = place.ca.sign_with("x", |params| {
            params.subject_alt_names.clear();
            params.distinguished_name = rcgen::DistinguishedName::new();
        });
        assert_refused(&place.client(Some(&nameless)).get("/whoami").await, 401, "has no name");
        // The Secrets of ClusterIssuers are out of reach.
        let own = place.ca.sign("spiffe://example.org/ns/certwright/sa/x");
        let (_, who) = place.client(Some(&own)).get("/whoami").await;
        assert_eq!(who["namespaces"], json!([]));
    }

    async fn a_name_counts_as_what_it_is_and_only_in_a_certificate_of_our_ca(world: World) {
        let place = Place::around(world).await;
        let named = |name: &str| rcgen::SanType::DnsName(name.try_into().unwrap());
        for (what, change) in [
            ("a common name is no URI", Box::new(|params: &mut CertificateParams| {
                params.distinguished_name.push(DnType::CommonName, DEPLOY);
            }) as Box<dyn FnOnce(&mut CertificateParams)>),
            ("a DNS name is no common name", Box::new(|params: &mut CertificateParams| {
                params.subject_alt_names = vec![named("boss")];
            })),
            ("a part of a name is not the name", Box::new(|params: &mut CertificateParams| {
                params.distinguished_name.push(DnType::CommonName, "boss ");
            })),
            ("case counts", Box::new(|params: &mut CertificateParams| {
                params.distinguished_name.push(DnType::CommonName, "BOSS");
            })),
        ] {
            let identity = place.ca.sign_with("spiffe://example.com/x", change);
            let refused = place.client(Some(&identity)).get("/whoami").await;
            assert_eq!(refused.0, 403, "{what}: {}", refused.1);
        }
        let boss = |params: &mut CertificateParams| params.distinguished_name.push(DnType::CommonName, "boss");
        let strange = ClientCa::named("Clients").sign_with("spiffe://example.com/x", boss);
        // A CA of the same name: `refusal` fails if the handshake does not.
        place.client(Some(&strange)).refusal().await;
        let known = place.client(Some(&place.ca.sign_with("spiffe://example.com/x", boss)));
        assert_eq!(known.get("/whoami").await.1["role"], "admin");
    }

    async fn names_without_a_rule_and_pages_of_another_site_count_as_failures(world: World) {
        let limits = CallerLimits::new(NonZeroU32::new(2), None);
        let place = Place::around(world.limited(limits)).await;
        let (nobody, known) = (place.client(Some(&place.ca.sign("spiffe://example.com/x"))), place.client(Some(&place.ca.sign(DEPLOY))));
        assert_refused(&nobody.get("/whoami").await, 403, "no rule matches its names");
        let forged = known.ask(Method::GET, "/whoami").header("sec-fetch-site", "cross-site");
        assert_refused(&answer(forged).await, 403, "a page of another site");
        assert_refused(&nobody.get("/whoami").await, 429, "from this address were wrong");
        assert_eq!(known.get("/whoami").await.0, 200, "who is let in is let in all the same");
    }

    async fn the_next_certificate_is_the_same_caller(world: World) {
        let place = Place::around(world).await;
        place.world.create_issuer().await;
        allow(&place.world, "a", "a", &["**.example.com"]).await;
        let create = async |identity: &ClientIdentity| {
            let mut wanted = certificate("web");
            wanted["namespace"] = json!("a");
            let ask = place.client(Some(identity)).ask(Method::POST, "/certificates");
            within("the answer", ask.header("idempotency-key", "one").json(&wanted).send()).await.unwrap()
        };

        let first = create(&place.ca.sign(DEPLOY)).await;
        let again = create(&place.ca.sign(DEPLOY)).await;
        assert_eq!(first.status().as_u16(), 202);
        assert_eq!(again.headers()["idempotency-replayed"], "true");
        let other = create(&place.ca.sign("spiffe://example.org/ns/a/sa/other")).await;
        assert_eq!(other.status().as_u16(), 409, "there is one of that name");
    }

    async fn an_open_connection_ends_with_its_certificate(world: World) {
        let place = Place::around(world).await;
        let client = place.client(Some(&place.ca.sign(DEPLOY)));
        assert_eq!(client.get("/whoami").await.0, 200);

        place.world.clock.advance(time::Duration::hours(2));
        assert_refused(&client.get("/whoami").await, 401, "has expired");
    }

    async fn other_cas_count_at_once_and_what_the_former_ones_let_in_is_closed(world: World) {
        let mut place = Place::around(world).await;
        let next = ClientCa::named("Next");
        let (former, new) = (place.ca.sign(DEPLOY), next.sign(DEPLOY));
        let (client, anybody) = (place.client(Some(&former)), place.client(None));
        assert_eq!(client.get("/whoami").await.0, 200);
        assert_eq!(anybody.get("/healthz").await.0, 200);
        let file = place.folder.path().join("clients.pem");

        for broken in ["", "no certificate", &former.key] {
            fs::write(&file, broken).unwrap();
            place.listener.refresh().await;
            assert_eq!(client.get("/whoami").await.0, 200, "the former CAs count on");
        }
        fs::write(&file, next.pem()).unwrap();
        place.listener.refresh().await;
        // Neither the connection nor its session is of use any more.
        until("the refusal", async || match client.ask(Method::GET, "/whoami").send().await {
            Err(error) => format!("{error:?}").contains("UnknownCA"),
            Ok(answer) => {
                assert_eq!(answer.status(), 401, "what was under way when it was closed");
                false
            }
        })
        .await;
        assert_eq!(anybody.get("/healthz").await.0, 200);
        assert_eq!(place.client(Some(&new)).get("/whoami").await.0, 200);
    }
}

#[tokio::test]
async fn a_certificate_that_does_not_count_is_refused_in_the_handshake_with_the_reason() {
    let (_folder, url) = crate::support::world::sqlite();
    let place = Place::around(World::on(&url).await).await;
    let now = SystemClock.now();
    let (day, hour) = (time::Duration::days(1), time::Duration::hours(1));
    let expired = place.ca.sign_with(DEPLOY, |params| {
        params.not_before = now - day;
        params.not_after = now - hour;
    });
    let future = place.ca.sign_with(DEPLOY, |params| {
        params.not_before = now + hour;
        params.not_after = now + day;
    });
    let for_servers =
        place.ca.sign_with(DEPLOY, |params| params.extended_key_usages = vec![ServerAuth]);
    for version in [reqwest::tls::Version::TLS_1_2, reqwest::tls::Version::TLS_1_3] {
        for (identity, alert) in [
            (&expired, "CertificateExpired"),
            (&future, "CertificateExpired"),
            (&for_servers, "UnsupportedCertificate"),
            (&ClientCa::named("Others").sign(DEPLOY), "UnknownCA"),
        ] {
            let refusal = place.client_of(Some(identity), version).refusal().await;
            assert!(refusal.contains(alert), "{alert} {version:?}: {refusal}");
        }
    }
}
