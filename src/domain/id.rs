//! Identifiers: UUIDv7, so that they sort by the time of creation.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use parking_lot::Mutex;
use time::OffsetDateTime;
use uuid::{ContextV7, Timestamp, Uuid};

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new identifier that sorts after those of earlier moments.
            pub fn generate(now: OffsetDateTime) -> Self {
                Self(generate(now))
            }

            /// The end of it, eight hexadecimal digits: what makes a name that people type unique.
            pub fn tail(&self) -> String {
                let [.., a, b, c, d] = *self.0.as_bytes();
                format!("{:08x}", u32::from_be_bytes([a, b, c, d]))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

ids! {
    /// An API key's row, not the key itself.
    ApiKeyId
    /// Whoever sends requests, however that was authenticated.
    PrincipalId
    /// A stored credential.
    SecretId
    /// An `Issuer` or `ClusterIssuer`.
    IssuerId
    /// The wish for a certificate.
    CertificateId
    /// One attempt to obtain it: a key and a CSR.
    RequestId
    /// An ACME order.
    OrderId
    /// An ACME challenge.
    ChallengeId
    /// A certificate's revocation.
    RevocationId
    /// An entry of the history.
    EventId
    /// A ticket for a stream of events.
    EventTicketId
    /// An entry of the audit log.
    AuditId
    /// A process that works.
    WorkerId
    /// A periodic task.
    TaskId
    /// A webhook.
    WebhookId
    /// A message for webhooks.
    MessageId
    /// A message on its way to one webhook.
    DeliveryId
    /// A name policy.
    PolicyId
    /// Certificates that are to be judged anew.
    PolicyReviewId
    /// A CA's "later", for everybody who shares a limit.
    ThrottleId
}

impl PrincipalId {
    /// The subject of an OIDC issuer: the same with each of its tokens (UUIDv8, RFC 9562).
    pub fn of_token(issuer: &str, subject: &str) -> Self {
        Self::derived(issuer, subject.as_bytes())
    }

    /// A name of this kind in client certificates: the same with each of them. No issuer's identifier begins like this.
    pub fn of_client_certificate(kind: &str, name: &[u8]) -> Self {
        Self::derived(&format!("client certificate {kind}"), name)
    }

    fn derived(realm: &str, name: &[u8]) -> Self {
        let hash = digest(&SHA256, &[realm.as_bytes(), b"\n", name].concat());
        let (first, _) = hash.as_ref().split_first_chunk().unwrap_or((&[0; 16], &[]));
        Self(uuid::Builder::from_custom_bytes(*first).into_uuid())
    }
}

/// A UUIDv7 of the given moment; those of one moment sort in the order in which they were made.
fn generate(now: OffsetDateTime) -> Uuid {
    static ORDER: Mutex<ContextV7> = Mutex::new(ContextV7::new());
    let order = ORDER.lock();
    let seconds = u64::try_from(now.unix_timestamp()).unwrap_or_default();
    Uuid::new_v7(Timestamp::from_unix(&*order, seconds, now.nanosecond()))
}
