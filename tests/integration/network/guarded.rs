//! What issuers, and the CAs that they name, can have this service connect to: nothing that is not public,
//! unless the operator says so.

use std::net::UdpSocket;
use std::sync::Arc;

use axum::http::Method;
use certwright::ca::{Account, Authorities, Ca};
use certwright::clock::{Clock, SystemClock};
use certwright::domain::challenge::{Proof, in_words};
use certwright::domain::failure::{Failure, code};
use certwright::domain::id::ChallengeId;
use certwright::domain::issuer::{self, Acme, DnsProvider, Kind};
use certwright::outbound::{Allow, Client, Guard};
use certwright::secret::Secret;
use certwright::solver::{Readiness, SolverSettings, Solvers};
use serde_json::json;
use url::Url;

use crate::support::cloudflare::Cloudflare;
use crate::support::hostile::{HostileCa, Lures, Trap, ZONE, hostile_names, inner_urls};

/// Where the hostile CA is: on this machine, and allowed.
pub(super) const ALLOWED: &str = "127.3.3.3";

/// What the listeners inside say to whoever comes.
pub(super) const SAID: &str = "canary-inside";

pub(super) async fn inside() -> Trap {
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

pub(super) fn guard(cloudflare: &Cloudflare, allow: &[&str]) -> Guard {
    Guard::asking(&[cloudflare.dns_addr()], Allow::parse(allow).unwrap()).unwrap()
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
    let Some(offered) = authorizations[0].challenges.first() else {
        // One whose URL cannot be kept is not offered at all.
        let why = authorizations[0].unusable.join(" ");
        return Err(Failure::of(code::ACME_UNREADABLE_ANSWER, why));
    };
    order.accept(std::slice::from_ref(&offered.url)).await?;
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
pub(super) fn as_name_server(url: &str) -> String {
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
