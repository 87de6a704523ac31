//! One certificate, its order and a challenge. The library's own tests are compiled with this file, too: see
//! `domain::fixtures`.

use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::certificate::Certificate;
use crate::domain::challenge::{Challenge, Kind, State};
use crate::domain::id::{CertificateId, ChallengeId, IssuerId, OrderId, RequestId};
use crate::domain::order::{ORDER_DEADLINE, Order};
use crate::domain::policy::AdmittedBy;

/// The certificate `default/web` for `a.example.com`, which is to be issued for the first time.
pub fn certificate(now: OffsetDateTime) -> Certificate {
    let spec = r#"{"issuerRef": {"name": "le"}, "dnsNames": ["a.example.com"]}"#;
    let spec = serde_json::from_str(spec).unwrap();
    let by = by_the_administrator();
    Certificate::wanted(CertificateId(Uuid::nil()), ("default", "web"), spec, by, now)
}

/// The right of what was wanted with the administrator's key.
pub fn by_the_administrator() -> AdmittedBy {
    AdmittedBy::Administrator("admin".into())
}

/// The certificate's first order, of which the CA has not heard yet.
pub fn order(now: OffsetDateTime) -> Order {
    let (request, issuer) = (RequestId(Uuid::nil()), IssuerId(Uuid::nil()));
    Order::placed(OrderId(Uuid::nil()), &certificate(now), request, issuer, now)
}

/// A challenge for `<number>.example.com` whose record is still to be written.
pub fn challenge(number: u128, now: OffsetDateTime) -> Challenge {
    Challenge {
        id: ChallengeId(Uuid::from_u128(number)),
        authorization_url: format!("https://ca.example/authz/{number}"),
        url: format!("https://ca.example/chall/{number}"),
        domain: format!("{number}.example.com"),
        wildcard: false,
        kind: Kind::Dns01,
        solver: 0,
        token: "token".into(),
        key_authorization: "token.thumbprint".into(),
        state: State::Pending,
        record: None,
        clean: false,
        tries: 0,
        reason: None,
        observations: Vec::new(),
        next_action_at: Some(now),
        deadline: now + ORDER_DEADLINE,
    }
}
