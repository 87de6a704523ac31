//! Tickets as credentials: `GET /events?ticket=…`, for browsers, whose `EventSource` sends no headers.
//!
//! A ticket is used up by being shown, whatever comes of the request. What its holder may do is looked up then: an API
//! key that has ended lets nobody in, also not by a ticket.

use axum::http::request::Parts;
use axum::http::{Method, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::{Grant, Principal, Subject, api_key, refused};
use crate::api::audit::Caller;
use crate::api::problem::ApiError;
use crate::api::{AppState, retrying};
use crate::domain::api_key::hash_key;
use crate::domain::event_ticket::{EventTicket, Granted, Holder};
use crate::domain::id::PrincipalId;
use crate::domain::principal::PrincipalKind;
use crate::domain::role::Role;
use crate::secret::{SealError, Secret};
use crate::storage::{Scope, event_tickets};

/// Random bytes of a ticket: nobody guesses one within a minute.
const LENGTH: usize = 32;

/// The holder of a ticket that a token or a client certificate was exchanged for.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(super) id: PrincipalId,
    pub(super) kind: PrincipalKind,
    pub(super) issuer: Option<String>,
    pub(super) expires_at: OffsetDateTime,
    pub(super) role: Role,
    pub(super) scope: Scope,
}

/// A new ticket.
pub(crate) fn generate() -> Result<Secret<String>, SealError> {
    let mut bytes = Zeroizing::new([0_u8; LENGTH]);
    aws_lc_rs::rand::fill(&mut *bytes).map_err(|_| SealError::Encryption)?;
    Ok(Secret::new(URL_SAFE_NO_PAD.encode(*bytes)))
}

/// The ticket of a request for events that says in no header who sends it.
pub(super) fn of(parts: &Parts) -> Option<String> {
    let is_for_events = parts.method == Method::GET && parts.uri.path() == "/events";
    if !is_for_events || parts.headers.contains_key(header::AUTHORIZATION) {
        return None;
    }
    let query = parts.uri.query().unwrap_or_default().as_bytes();
    let mut pairs = url::form_urlencoded::parse(query);
    pairs.find(|(name, _)| name == "ticket").map(|(_, ticket)| ticket.into_owned())
}

/// The holder of a ticket, which is used up by this.
pub(super) async fn authenticate(text: &str, app: &AppState) -> Result<Principal, ApiError> {
    let hash = hash_key(text);
    let found = retrying(|| async {
        let mut tx = app.db.begin();
        let found = event_tickets::take(&mut tx, &hash).await?;
        tx.commit().await?;
        Ok::<_, ApiError>(found)
    });
    let in_time = found.await?.filter(|ticket: &EventTicket| app.now() < ticket.expires_at);
    let ticket = in_time.ok_or_else(|| refused(USELESS))?;
    let pepper = app.sealer.mac(&format!("requests of ticket {}", ticket.id));
    let granted = match ticket.holder {
        Holder::ApiKey { hash } => return api_key::recognised(hash, pepper, app).await,
        Holder::Granted(granted) => granted,
    };
    let Granted { kind, id, name, issuer, role, namespaces, expires_at } = granted;
    let scope = namespaces.map_or(Scope::Everything, Scope::Namespaces);
    let known = Known { id: PrincipalId(id), kind, issuer, expires_at, role, scope };
    let Grant { permissions, scope } =
        known.grant(app).ok_or_else(|| refused("Whoever the ticket was made for has ended."))?;
    Ok(Principal {
        subject: Subject::Ticket(known),
        name,
        permissions,
        scope,
        pepper,
        caller: Caller::default(),
    })
}

const USELESS: &str =
    "The ticket was used, has expired, or never was one. Ask for a new one: POST /events/ticket.";

impl Known {
    pub(super) fn grant(&self, app: &AppState) -> Option<Grant> {
        let counts = app.now() < self.expires_at;
        counts.then(|| Grant::new(app, Some(self.role), &[], self.scope.clone()))
    }
}
