//! What the rest of the service may rely on about the CA, told against Pebble.

use std::sync::Arc;
use std::time::Duration as Patience;

use certwright::ca::{
    Account, AuthorizationStatus, Ca, ChallengeKind, ChallengeStatus, Download, Order, OrderStatus,
};
use certwright::clock::{Clock as _, SystemClock};
use certwright::domain::ari::Answer;
use certwright::domain::failure::Class;
use certwright::domain::issuer::{Acme, RenewalInformationSource};
use certwright::pki;
use certwright::secret::Secret;
use time::Duration;

use crate::support::fault_proxy::{Fault, FaultProxy, Kind, Refusal, RetryAfter};
use crate::support::patience::within;
use crate::support::pebble::{Pebble, PebbleOptions};

#[tokio::test]
async fn renewal_information_is_what_the_ca_says_and_nonsense_is_no_answer() {
    let (pebble, ca) = (Pebble::start(always_valid()).await, ca());
    let account = account(&ca, &pebble).await;
    let mut order = account.new_order(&names(), Some("default")).await.unwrap();
    let csr = csr();
    accept_all(&mut order).await;
    until(OrderStatus::Ready, &mut order).await;
    order.finalize(&csr).await.unwrap();
    until(OrderStatus::Valid, &mut order).await;
    let chain = downloaded(&mut order).await.chain_pem;
    let now = SystemClock.now();
    let name = pki::check_chain(&chain, &csr, now).unwrap().leaf.ari.unwrap();
    let acme = acme(&pebble);

    let usual = ca.renewal_information(&acme, &name).await;
    let Answer::Suggested { window, retry_at, .. } = usual else { panic!("{usual:?}") };
    assert!(window.start > now && window.end > window.start, "{window:?}");
    assert!(retry_at.is_some(), "Pebble says when to ask again");

    let past =
        r#"{"suggestedWindow": {"start": "2020-01-01T00:00:00Z", "end": "2020-01-02T00:00:00Z"}}"#;
    pebble.set_renewal_info(&chain, past).await;
    let told = ca.renewal_information(&acme, &name).await;
    assert!(matches!(told, Answer::Suggested { window, .. } if window.end < now), "{told:?}");
    for nonsense in ["no", "{}", r#"{"suggestedWindow": {"start": "2020-01-01T00:00:00Z"}}"#] {
        pebble.set_renewal_info(&chain, nonsense).await;
        let told = ca.renewal_information(&acme, &name).await;
        assert!(matches!(told, Answer::Failed(_)), "{nonsense}: {told:?}");
    }
    let unknown = ca.renewal_information(&acme, "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE").await;
    assert!(matches!(unknown, Answer::Failed(_)), "{unknown:?}");
    let silent = Acme { renewal_information_source: RenewalInformationSource::None, ..acme };
    assert_eq!(ca.renewal_information(&silent, &name).await, Answer::NotOffered);

    let names = names();
    // With an end it is signed here, and says all of it.
    let end = Some(now + Duration::days(2));
    let replacing = account.new_order_replacing(&names, Some("default"), Some(&name), end).await;
    assert!(replacing.unwrap().state().status == OrderStatus::Pending);
    let strange = account.new_order_replacing(&names, Some("default"), Some("a.b"), None).await;
    assert!(strange.is_err(), "a certificate that the CA does not know is not replaced");
}

#[tokio::test]
async fn a_certificate_is_issued_step_by_step_from_nothing_but_urls() {
    let (pebble, ca) = (Pebble::start(always_valid()).await, ca());
    let account = account(&ca, &pebble).await;
    let order = account.new_order(&names(), Some("default")).await.unwrap();
    let url = order.url().to_owned();
    assert_eq!(order.state().status, OrderStatus::Pending);
    assert!(order.state().expires.is_some(), "the CA says when it will forget the order");

    accept_all(&mut taken_up(&account, &url).await).await;
    until(OrderStatus::Ready, &mut taken_up(&account, &url).await).await;
    taken_up(&account, &url).await.finalize(&csr()).await.unwrap();
    until(OrderStatus::Valid, &mut taken_up(&account, &url).await).await;
    let download = downloaded(&mut taken_up(&account, &url).await).await;

    assert_is_certificate(&download.chain_pem);
}

#[tokio::test]
async fn a_whole_issuance_survives_half_of_all_nonces_being_refused() {
    let pebble = Pebble::start(PebbleOptions { nonce_reject: 50, ..always_valid() }).await;
    let ca = ca();
    let account = account(&ca, &pebble).await;

    let mut order = account.new_order(&names(), None).await.unwrap();
    accept_all(&mut order).await;
    until(OrderStatus::Ready, &mut order).await;
    order.finalize(&csr()).await.unwrap();
    until(OrderStatus::Valid, &mut order).await;

    assert_is_certificate(&downloaded(&mut order).await.chain_pem);
}

#[tokio::test]
async fn fifteen_nonces_are_tried() {
    let options = PebbleOptions { nonce_reject: 100, ..PebbleOptions::default() };
    let (pebble, ca) = (Pebble::start(options).await, ca());
    let (acme, key) = (acme(&pebble), Ca::generate_account_key().unwrap());

    let refused = ca.register(&acme, &key).await.unwrap_err();

    assert_eq!(refused.code, "acme_bad_nonce", "{refused}");
    assert_eq!(ca.requests().all, 2 + 15, "the directory and the first nonce come before them");
}

#[tokio::test]
async fn no_request_is_spent_on_nonces_but_the_first_of_those_that_go_side_by_side() {
    let (pebble, ca) = (Pebble::start(always_valid()).await, ca());
    let account = account(&ca, &pebble).await;

    let mut order = account.new_order(&names(), None).await.unwrap();
    order.authorizations().await.unwrap();
    order.refresh().await.unwrap();

    let requests = ca.requests();
    assert_eq!(requests.for_nonces, 2, "one for each authorization");
    assert!(requests.all >= 7, "directory, nonce, account, order, two authorizations, order");
}

#[tokio::test]
async fn authorizations_say_what_has_to_be_proved() {
    let (pebble, ca) = (Pebble::start(PebbleOptions::default()).await, ca());
    let account = account(&ca, &pebble).await;
    let order = account.new_order(&names(), None).await.unwrap();

    let mut found = order.authorizations().await.unwrap();
    let asked = ca.requests();
    let again = order.authorizations().await.unwrap();

    assert_eq!(found, again);
    assert_eq!(asked, ca.requests(), "a second look is free");
    found.sort_by(|one, other| one.domain.cmp(&other.domain));
    assert_eq!([&*found[0].domain, &*found[1].domain], ["a.example.org", "example.org"]);
    assert_eq!([found[0].wildcard, found[1].wildcard], [false, true]);
    for authorization in &found {
        assert_eq!(authorization.status, AuthorizationStatus::Pending);
        assert!(authorization.expires.is_some());
        let challenge = authorization.challenges.iter().find(|it| it.kind == ChallengeKind::Dns01);
        let token = &challenge.expect("DNS-01 is always possible").token;
        assert!(account.key_authorization(token).starts_with(&format!("{token}.")));
    }
}

/// One missing answer in a hundred must not cost the other ninety-nine.
#[tokio::test]
async fn what_was_read_of_a_large_order_is_not_asked_for_again() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let proxy = FaultProxy::before(&pebble).await;
    let through =
        Acme { server: proxy.directory_url(), ca_bundle: Some(proxy.ca_bundle()), ..acme(&pebble) };
    let (ca, key) = (ca(), Ca::generate_account_key().unwrap());
    let url = ca.register(&through, &key).await.unwrap().url;
    let account = ca.account(&through, &key, &url).await.unwrap();
    let names: Vec<_> = (0..40).map(|n| format!("n{n}.example.org")).collect();
    let url = account.new_order(&names, None).await.unwrap().url().to_owned();
    proxy.replicas_behind(20);

    let mut rounds = 0;
    let found = loop {
        rounds += 1;
        assert!(rounds < 12);
        // A handle of its own each time, as in steps that come minutes apart.
        let found = match account.order(&url, Duration::ZERO).await {
            Ok(order) => order.authorizations().await,
            Err(failure) => Err(failure),
        };
        match found {
            Ok(found) => break found,
            Err(failure) => assert_eq!(failure.class, Class::Consistency, "{failure}"),
        }
    };

    assert_eq!(found.len(), 40);
    let lost = proxy.faults(Fault::NotThere);
    let asked = proxy.requests(Kind::Authorization) + proxy.requests(Kind::Order);
    assert!(lost > 4, "{lost} in {rounds} rounds");
    assert!(asked <= 40 + lost + rounds, "{asked} requests, {lost} without success");
}

#[tokio::test]
async fn a_proof_that_the_ca_does_not_find_is_a_validation_failure() {
    // Nobody serves the proof at this port.
    let (pebble, ca) = (Pebble::start(PebbleOptions::default()).await, ca());
    let account = account(&ca, &pebble).await;
    let mut order = account.new_order(&["localhost.example.org".into()], None).await.unwrap();

    accept(ChallengeKind::Http01, &mut order).await;
    until(OrderStatus::Invalid, &mut order).await;
    let authorizations = order.authorizations().await.unwrap();
    let challenges = &authorizations[0].challenges;
    let failed = challenges.iter().find(|it| it.status == ChallengeStatus::Invalid).unwrap();

    let failure = failed.error.as_ref().expect("the CA says what it found");
    assert_eq!(failure.class, Class::Validation);
    assert!(failure.detail.contains("localhost.example.org"), "{failure}");
}

#[tokio::test]
async fn after_a_challenge_was_turned_away_its_authorization_is_not_read_again() {
    let pebble = Pebble::start(always_valid()).await;
    let proxy = FaultProxy::before(&pebble).await;
    let through =
        Acme { server: proxy.directory_url(), ca_bundle: Some(proxy.ca_bundle()), ..acme(&pebble) };
    let (ca, key) = (ca(), Ca::generate_account_key().unwrap());
    let url = ca.register(&through, &key).await.unwrap().url;
    let account = ca.account(&through, &key, &url).await.unwrap();
    let order = account.new_order(&["a.example.org".into()], None).await.unwrap();
    let challenges = order.authorizations().await.unwrap().remove(0).challenges;
    let chosen = challenges.into_iter().find(|it| it.kind == ChallengeKind::Dns01).unwrap().url;
    let pause = Patience::from_secs(1);
    let busy = Refusal { status: 503, html: false, form: RetryAfter::Seconds, pause };
    proxy.refuse(Kind::Challenge, &[busy]);

    let refused = order.accept(std::slice::from_ref(&chosen)).await.unwrap_err();
    order.accept(&[chosen]).await.unwrap();

    assert_eq!(refused.class, Class::Throttle, "{refused}");
    assert_eq!(proxy.requests(Kind::Challenge), 2);
    assert_eq!(proxy.requests(Kind::Authorization), 1, "it is not read again for that");
}

#[tokio::test]
async fn a_ca_that_is_still_signing_says_when_to_look_again() {
    let pebble = Pebble::start(PebbleOptions { retry_after: 30, ..always_valid() }).await;
    let account = account(&ca(), &pebble).await;
    let mut order = account.new_order(&names(), None).await.unwrap();
    accept_all(&mut order).await;
    until(OrderStatus::Ready, &mut order).await;
    let sent = SystemClock.now();

    order.finalize(&csr()).await.unwrap();

    let state = order.state();
    assert_eq!(state.status, OrderStatus::Processing);
    // As a date it has whole seconds.
    assert!(state.retry_at.is_some_and(|at| at - sent > Duration::seconds(28)), "{state:?}");
}

#[tokio::test]
async fn a_challenge_can_be_accepted_again_when_the_answer_was_lost() {
    let (pebble, ca) = (Pebble::start(always_valid()).await, ca());
    let account = account(&ca, &pebble).await;
    let mut order = account.new_order(&names(), None).await.unwrap();

    // The second call still takes them for pending, as after a lost answer.
    accept(ChallengeKind::Dns01, &mut order).await;
    accept(ChallengeKind::Dns01, &mut order).await;

    until(OrderStatus::Ready, &mut order).await;
}

#[tokio::test]
async fn an_unknown_profile_is_answered_with_the_known_ones() {
    let (pebble, ca) = (Pebble::start(PebbleOptions::default()).await, ca());
    let account = account(&ca, &pebble).await;
    let known = ca.profiles(&acme(&pebble)).await.unwrap();

    let failure = account.new_order(&names(), Some("nonesuch")).await.err().unwrap();

    assert_eq!((failure.class, &*failure.code), (Class::Blocked, "acme_unknown_profile"));
    assert!(!known.is_empty());
    for profile in known.keys() {
        assert!(failure.detail.contains(profile), "{failure}");
    }
}

#[tokio::test]
async fn a_name_that_the_ca_will_not_have_is_named() {
    let blocked_domains = vec!["blocked.example".into()];
    let pebble = Pebble::start(PebbleOptions { blocked_domains, ..Default::default() }).await;
    let account = account(&ca(), &pebble).await;
    let names = ["a.example".into(), "www.blocked.example".into()];

    let failure = account.new_order(&names, None).await.err().unwrap();

    assert_eq!((failure.class, &*failure.code), (Class::Blocked, "acme_rejected_identifier"));
    assert!(failure.detail.contains("blocked.example"), "{failure}");
}

#[tokio::test]
async fn an_order_that_is_not_there_is_not_there_yet_or_not_any_more() {
    let (pebble, ca) = (Pebble::start(PebbleOptions::default()).await, ca());
    let account = account(&ca, &pebble).await;
    let order = account.new_order(&names(), None).await.unwrap();
    let lost = format!("{}0", order.url());

    let young = account.order(&lost, Duration::seconds(30)).await.err().unwrap();
    let old = account.order(&lost, Duration::hours(2)).await.err().unwrap();

    assert_eq!((young.class, young.http_status), (Class::Consistency, Some(404)));
    assert_eq!((old.class, &*old.code), (Class::Gone, "acme_gone"));
}

#[tokio::test]
async fn finalizing_too_early_is_a_conflict() {
    let (pebble, ca) = (Pebble::start(PebbleOptions::default()).await, ca());
    let account = account(&ca, &pebble).await;
    let mut order = account.new_order(&names(), None).await.unwrap();

    let failure = order.finalize(&csr()).await.unwrap_err();

    assert_eq!((failure.class, &*failure.code), (Class::Conflict, "acme_order_not_ready"));
}

#[tokio::test]
async fn every_chain_can_be_downloaded_by_its_url() {
    let pebble = Pebble::start(PebbleOptions { alternate_roots: 1, ..always_valid() }).await;
    let ca = ca();
    let account = account(&ca, &pebble).await;
    let mut order = account.new_order(&names(), None).await.unwrap();
    accept_all(&mut order).await;
    until(OrderStatus::Ready, &mut order).await;
    order.finalize(&csr()).await.unwrap();
    until(OrderStatus::Valid, &mut order).await;
    let url = order.state().certificate.clone().expect("a valid order names its certificate");

    let first = downloaded(&mut order).await;
    let again = order.alternate(&url).await.unwrap();

    assert_eq!(first.chain_pem, again);
    assert_eq!(first.alternates.len(), 1);
    let other = order.alternate(&first.alternates[0]).await.unwrap();
    assert_is_certificate(&other);
    assert_ne!(first.chain_pem, other);
}

#[tokio::test]
async fn handles_can_be_moved_between_threads() {
    let (pebble, ca) = (Pebble::start(always_valid()).await, Arc::new(ca()));
    let account = account(&ca, &pebble).await;

    let issued = tokio::spawn(async move {
        let mut order = account.new_order(&names(), None).await.unwrap();
        accept_all(&mut order).await;
        until(OrderStatus::Ready, &mut order).await;
        order.finalize(&csr()).await.unwrap();
        until(OrderStatus::Valid, &mut order).await;
        downloaded(&mut order).await
    });

    assert_is_certificate(&issued.await.unwrap().chain_pem);
}

fn always_valid() -> PebbleOptions {
    PebbleOptions { always_valid: true, ..PebbleOptions::default() }
}

pub(super) fn ca() -> Ca {
    Ca::new(Arc::new(SystemClock))
}

pub(super) fn acme(pebble: &Pebble) -> Acme {
    super::acme(&pebble.directory_url(), &pebble.ca_bundle())
}

async fn account(ca: &Ca, pebble: &Pebble) -> Arc<Account> {
    let (acme, key): (_, Secret<_>) = (acme(pebble), Ca::generate_account_key().unwrap());
    let url = ca.register(&acme, &key).await.unwrap().url;
    ca.account(&acme, &key, &url).await.unwrap()
}

fn names() -> Vec<String> {
    vec!["*.example.org".into(), "a.example.org".into()]
}

/// A CSR for [`names`] with a key of its own.
fn csr() -> Vec<u8> {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(names()).unwrap();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.serialize_request(&key).unwrap().der().to_vec()
}

/// The order as another replica finds it.
async fn taken_up(account: &Account, url: &str) -> Order {
    account.order(url, Duration::ZERO).await.unwrap()
}

async fn accept_all(order: &mut Order) {
    accept(ChallengeKind::Dns01, order).await;
}

async fn accept(kind: ChallengeKind, order: &mut Order) {
    let authorizations = order.authorizations().await.unwrap();
    let challenges = authorizations.into_iter().flat_map(|authorization| authorization.challenges);
    let urls: Vec<_> = challenges.filter(|it| it.kind == kind).map(|it| it.url).collect();
    order.accept(&urls).await.unwrap();
}

/// Asks until the order has got so far; Pebble needs moments.
async fn until(status: OrderStatus, order: &mut Order) {
    let mut tick = tokio::time::interval(Patience::from_millis(50));
    let looked = async {
        while order.state().status != status {
            tick.tick().await;
            order.refresh().await.unwrap();
        }
    };
    within(&format!("{status:?}"), looked).await;
}

async fn downloaded(order: &mut Order) -> Download {
    order.certificate().await.unwrap().expect("the order is valid")
}

fn assert_is_certificate(chain_pem: &str) {
    let (_, leaf) = x509_parser::pem::parse_x509_pem(chain_pem.as_bytes()).unwrap();
    let leaf = leaf.parse_x509().unwrap();
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert_eq!(names.value.general_names.len(), 2, "{:?}", names.value);
}
