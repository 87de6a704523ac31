//! Tickets for streams of events: browsers cannot send a header with `EventSource`.

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::domain::id::EventTicketId;
use crate::domain::principal::PrincipalKind;
use crate::domain::role::Role;

/// How long a ticket can be used.
pub const VALID_FOR: Duration = Duration::seconds(60);

/// A ticket that nobody has used yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventTicket {
    pub id: EventTicketId,
    pub holder: Holder,
    pub expires_at: OffsetDateTime,
}

/// The principal that a ticket is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Holder {
    /// The value of an API key, by its SHA-256: what it may do is looked up when the ticket is used.
    #[serde(rename_all = "camelCase")]
    ApiKey { hash: Vec<u8> },
    /// Somebody whose rights stand in a token, or follow from a client certificate.
    Granted(Granted),
}

/// Rights that hold until a time that is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Granted {
    pub kind: PrincipalKind,
    pub id: Uuid,
    pub name: String,
    /// The OIDC issuer of a token.
    pub issuer: Option<String>,
    pub role: Role,
    /// `None`: all of them.
    pub namespaces: Option<Vec<String>>,
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
}
