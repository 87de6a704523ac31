//! Rows to store, and the few questions that many tests ask.

use std::collections::BTreeMap;

use certwright::domain::ari::{self, Ari, Window};
use certwright::domain::backoff::Jitter;
use certwright::domain::certificate::{Certificate, State, Transition, Trigger};
use certwright::domain::challenge::{Challenge, Kind};
use certwright::domain::failure::{Failure, code};
use certwright::domain::id::{
    CertificateId, ChallengeId, IssuerId, OrderId, RequestId, RevocationId,
};
use certwright::domain::issuer::{self, Issuer};
use certwright::domain::order::Order;
use certwright::domain::revocation::{self, Reason, Revocation};
use certwright::secret::Sealed;
use certwright::storage::lease::{self, Lease, Machine};
use certwright::storage::requests::{self, Request, RequestState};
use certwright::storage::revisions::Revision;
use certwright::storage::{
    Db, Page, Scope, StorageError, Tx, certificates, challenges, orders, settings,
};
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

use crate::support::fixtures;

pub const NOW: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);

/// Whether the lease was lost; SQLite says so with the next question at the latest.
pub async fn is_lost(tx: &mut Tx, saved: Result<Lease, StorageError>) -> bool {
    let refused = match saved {
        Ok(_) => settings::find(tx, "anything").await.err(),
        Err(error) => Some(error),
    };
    matches!(refused, Some(StorageError::LeaseLost(_)))
}

/// On PostgreSQL leases go by the database's clock, so tests of them do, too.
pub async fn now(db: &Db) -> OffsetDateTime {
    db.clock().await.unwrap().unwrap_or(NOW)
}

pub async fn claim(db: &Db, now: OffsetDateTime, limit: usize) -> Vec<Lease> {
    let mut tx = db.begin();
    let leases = lease::claim(&mut tx, Machine::Certificate, "test", now, limit).await.unwrap();
    tx.commit().await.unwrap();
    leases
}

/// A certificate with a request, an order and a challenge on their way.
pub async fn under_way(tx: &mut Tx) -> (Certificate, Order, Lease) {
    let mut certificate = certificate("web");
    let mut order = order(certificate.id);
    certificate.state = State::Ordering(Trigger::DoesNotExist);
    certificate.order = Some(order.id);
    certificates::insert(tx, &certificate).await.unwrap();
    let request = request(&certificate, &order);
    requests::insert(tx, &request, &Sealed(vec![9])).await.unwrap();
    orders::insert(tx, &order, None).await.unwrap();
    challenges::insert(tx, order.id, &order.challenges).await.unwrap();
    order.challenges.truncate(1);
    let (_, lease) = certificates::find(tx, certificate.id, &all()).await.unwrap().unwrap();
    (certificate, order, lease)
}

pub fn request(certificate: &Certificate, order: &Order) -> Request {
    Request {
        name: "web-1".into(),
        id: order.request,
        certificate: certificate.id,
        namespace: "default".into(),
        revision: 1,
        csr: vec![8],
        state: RequestState::Pending,
        message: String::new(),
        order: order.id,
        requested_by: None,
        approval: None,
        created_at: NOW,
        finished_at: None,
    }
}

pub fn revocation(certificate: &Certificate, issuer: IssuerId) -> Revocation {
    Revocation {
        id: RevocationId::generate(NOW),
        certificate: certificate.id,
        namespace: "default".into(),
        issuer,
        revision: 1,
        reason: Reason::KeyCompromise,
        state: revocation::State::Pending,
        tries: 2,
        last_error: Some(failure()),
        created_at: NOW,
        next_action_at: Some(NOW),
        deadline: NOW + revocation::DEADLINE,
    }
}

pub fn ari() -> Ari {
    let validity = (NOW, NOW + Duration::days(90));
    let new = Ari::new("a.b".into(), "https://ca.example/1".into(), validity, NOW, Jitter::NONE);
    let window = Window { start: NOW, end: NOW + Duration::days(1) };
    let answer = ari::Answer::Suggested {
        window,
        explanation_url: Some("https://ca.example".into()),
        retry_at: None,
    };
    new.apply(answer, NOW, Jitter::NONE)
}

pub fn silent(certificate: &Certificate) -> Transition {
    Transition::silent(certificate.clone(), NOW)
}

pub fn all() -> Scope {
    Scope::Everything
}

pub fn page() -> Page {
    Page::first(50)
}

pub fn failure() -> Failure {
    Failure::of(code::ACME_UNAVAILABLE, "detail").with_status(503)
}

pub fn certificate(name: &str) -> Certificate {
    let spec =
        r#"{"issuerRef": {"name": "le", "kind": "ClusterIssuer"}, "dnsNames": ["a.example.com"]}"#;
    let spec = serde_json::from_str(spec).unwrap();
    let by = fixtures::by_the_administrator();
    Certificate {
        labels: BTreeMap::from([("team".into(), "web".into())]),
        ..Certificate::wanted(CertificateId::generate(NOW), ("default", name), spec, by, NOW)
    }
}

pub fn issuer() -> Issuer {
    let acme = r#"{"server": "https://ca.example/dir", "solvers": [{"http01": {}}]}"#;
    Issuer {
        id: IssuerId::generate(NOW),
        kind: issuer::Kind::ClusterIssuer,
        namespace: String::new(),
        name: "le".into(),
        acme: serde_json::from_str(acme).unwrap(),
        generation: 1,
        state: issuer::State::Pending,
        state_since: NOW,
        account: None,
        account_change: None,
        tries: 0,
        last_error: None,
        created_at: NOW,
        next_action_at: Some(NOW),
    }
}

pub fn order(certificate: CertificateId) -> Order {
    let challenge = Challenge {
        id: ChallengeId::generate(NOW),
        domain: "a.example.com".into(),
        kind: Kind::Http01,
        token: "token-1".into(),
        key_authorization: "token-1.thumbprint".into(),
        ..fixtures::challenge(1, NOW)
    };
    Order {
        id: OrderId::generate(NOW),
        name: "web-1-0badcafe".into(),
        certificate,
        request: RequestId::generate(NOW),
        issuer: IssuerId::generate(NOW),
        profile: Some("tlsserver".into()),
        replaces: Some("a.b".into()),
        not_after: Some(NOW),
        challenges: vec![challenge],
        ..fixtures::order(NOW)
    }
}

pub fn revision(certificate: &Certificate, order: &Order, number: i64) -> Revision {
    Revision {
        certificate: certificate.id,
        revision: number,
        request: order.request,
        order: order.id,
        chain: "PEM".into(),
        serial: format!("{number:02x}"),
        fingerprint: "f".into(),
        not_before: NOW,
        not_after: NOW + Duration::days(90),
        issued_at: NOW,
        revoked_at: None,
    }
}
