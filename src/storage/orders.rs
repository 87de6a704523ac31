//! ACME orders with their challenges: one aggregate, one lease.

use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::filter::{Filter, Value};
use super::lease::{LEASE, Lease, Machine, held, lease_end};
use super::{
    Page, Scope, StorageError, Tx, budgets, corrupt, count, document, execute, fetch, json, millis,
    moment, statements,
};
use crate::domain::challenge::{self, Challenge};
use crate::domain::id::{CertificateId, ChallengeId, IssuerId, OrderId, RequestId};
use crate::domain::order::{End, Order, Stage, State};

macro_rules! order_columns {
    () => {
        "id, certificate_id, request_id, issuer_id, namespace, names, profile, predecessors, state,
         url, expires, tries, stalled_since, attempts, last_error, created_at, handed_out_at,
         next_action_at, deadline, name, replaces, not_after, lease_token"
    };
}
macro_rules! challenge_columns {
    () => {
        "id, order_id, authorization_url, url, domain, wildcard, kind, solver, token,
         key_authorization, state, record, clean, tries, reason, observations, next_action_at,
         deadline"
    };
}
// With a holder, next_action_at is when its lease ends: by the database's clock where that is another.
macro_rules! insert {
    ($wake:expr) => {
        concat!("INSERT INTO orders
        (id, certificate_id, request_id, issuer_id, namespace, names, profile, predecessors, state,
         url, expires, tries, stalled_since, attempts, last_error, created_at, handed_out_at,
         next_action_at, deadline, leased_by, name, replaces, not_after)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, ", $wake, ",
                $19, $20, $21, $22, $23)")
    };
}
macro_rules! save {
    ($wake:expr) => {
        concat!(
            "UPDATE orders SET
        state = $3, url = $4, expires = $5, tries = $6, stalled_since = $7, attempts = $8,
        last_error = $9, handed_out_at = $10, next_action_at = ",
            $wake,
            ", deadline = $12, replaces = $14, not_after = $15,
        leased_by = CASE WHEN $13 THEN leased_by ELSE NULL END, lease_token = lease_token + 1
        WHERE id = $1 AND lease_token = $2"
        )
    };
}

statements! {
    INSERT = insert!("$18"),
        insert!(concat!("CASE WHEN $20::text IS NULL THEN $18 ELSE ", lease_end!("$18"), " END"));
    FIND = concat!("SELECT ", order_columns!(), " FROM orders WHERE id = $1");
    OPEN_OF_CERTIFICATE = concat!("SELECT ", order_columns!(), " FROM orders
        WHERE certificate_id = $1 AND state NOT IN ('valid', 'invalid', 'errored', 'expired')");
    UNDER_WAY_OF_ISSUER = "SELECT id FROM orders WHERE issuer_id = $1 AND next_action_at IS NOT NULL
        AND state NOT IN ('valid', 'invalid', 'errored', 'expired') LIMIT 1";
    OPEN_OF_ISSUER = "SELECT id FROM orders WHERE issuer_id = $1 AND next_action_at IS NOT NULL LIMIT 1";
    SAVE = save!("$11"),
        save!(concat!("CASE WHEN $13 THEN ", lease_end!("$11"), " ELSE $11 END"));
    CHALLENGES_OF = concat!("SELECT ", challenge_columns!(), " FROM challenges
        WHERE order_id = $1 ORDER BY position");
    FIND_CHALLENGE = concat!("SELECT ", challenge_columns!(), " FROM challenges WHERE id = $1");
    INSERT_CHALLENGE = "INSERT INTO challenges
        (id, order_id, position, authorization_url, url, domain, wildcard, kind, solver, token,
         key_authorization, state, record, clean, tries, reason, observations, next_action_at,
         deadline)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
                $19)";
    SAVE_CHALLENGE = "UPDATE challenges SET
        state = $2, record = $3, clean = $4, tries = $5, reason = $6, observations = $7,
        next_action_at = $8, deadline = $9
        WHERE id = $1";
    IS_SHARED = "SELECT id FROM challenges
        WHERE token = $1 AND id <> $2 AND NOT clean
          AND state IN ('pending', 'presented', 'visible', 'processing') LIMIT 1";
    NEEDS_PROOF = "SELECT id FROM challenges
        WHERE NOT clean AND state IN ('pending', 'presented', 'visible', 'processing')
          AND (id = $1 OR token = (SELECT token FROM challenges WHERE id = $1)) LIMIT 1";
    RETAKE = "UPDATE orders SET next_action_at = $2, leased_by = NULL, lease_token = lease_token + 1
        WHERE issuer_id = $1 AND next_action_at IS NOT NULL AND (leased_by IS NOT NULL OR state = 'new')";
    KEY_AUTHORIZATION = "SELECT key_authorization FROM challenges
        WHERE token = $1 AND kind = 'http-01' AND NOT clean LIMIT 1";
}

/// Which orders are wanted; everything that is given must hold.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Of this namespace.
    pub namespace: Option<String>,
    /// For this certificate.
    pub certificate: Option<CertificateId>,
    /// Of this name.
    pub name: Option<String>,
    /// In one of RFC 8555's states, or `expired` or `errored`.
    pub state: Option<String>,
}

/// Which challenges are wanted; everything that is given must hold.
#[derive(Debug, Clone, Default)]
pub struct WantedChallenges {
    /// Of this namespace.
    pub namespace: Option<String>,
    /// Of the order of this name.
    pub order_name: Option<String>,
    /// Of this order.
    pub order: Option<OrderId>,
    /// In this state.
    pub state: Option<String>,
}

/// Adds an order. With `hold` its first lease is the caller's, who goes on with it at once.
pub async fn insert(
    tx: &mut Tx,
    order: &Order,
    hold: Option<(&str, OffsetDateTime)>,
) -> Result<Lease, StorageError> {
    let row = Row::from(order);
    let wake = hold.map_or(row.next_action_at, |(_, now)| Some(millis(now + LEASE)));
    execute!(
        tx,
        INSERT,
        row.id,
        row.certificate_id,
        row.request_id,
        row.issuer_id,
        row.namespace,
        row.names,
        row.profile,
        row.predecessors,
        row.state,
        row.url,
        row.expires,
        row.tries,
        row.stalled_since,
        row.attempts,
        row.last_error,
        row.created_at,
        row.handed_out_at,
        wake,
        row.deadline,
        hold.map(|(owner, _)| owner),
        row.name,
        row.replaces,
        row.not_after,
    )?;
    if hold.is_none() {
        tx.wake_workers();
    }
    Ok(Lease { machine: Machine::Order, id: row.id, token: 0 })
}

/// An order that the caller may see, with its challenges.
pub async fn find(
    tx: &mut Tx,
    id: OrderId,
    scope: &Scope,
) -> Result<Option<(Order, Lease)>, StorageError> {
    let row: Option<Row> = fetch!(fetch_optional, tx, FIND, id.0)?;
    match row.filter(|row| scope.covers(&row.namespace)) {
        Some(row) => with_challenges(tx, row).await.map(Some),
        None => Ok(None),
    }
}

/// The orders that are still under way for a certificate.
pub async fn open_of_certificate(
    tx: &mut Tx,
    certificate: CertificateId,
) -> Result<Vec<(Order, Lease)>, StorageError> {
    let rows: Vec<Row> = fetch!(fetch_all, tx, OPEN_OF_CERTIFICATE, certificate.0)?;
    let mut orders = Vec::with_capacity(rows.len());
    for row in rows {
        orders.push(with_challenges(tx, row).await?);
    }
    Ok(orders)
}

/// An order that still needs this issuer, to be issued or to be cleaned up.
pub async fn any_open_of_issuer(
    tx: &mut Tx,
    issuer: IssuerId,
) -> Result<Option<OrderId>, StorageError> {
    let row: Option<(Uuid,)> = fetch!(fetch_optional, tx, OPEN_OF_ISSUER, issuer.0)?;
    Ok(row.map(|(id,)| OrderId(id)))
}

/// An order that this issuer's account has yet to end, its clean-up aside.
pub async fn any_under_way_of_issuer(
    tx: &mut Tx,
    issuer: IssuerId,
) -> Result<Option<OrderId>, StorageError> {
    let row: Option<(Uuid,)> = fetch!(fetch_optional, tx, UNDER_WAY_OF_ISSUER, issuer.0)?;
    Ok(row.map(|(id,)| OrderId(id)))
}

/// Saves what may change in an order's life, if nobody else did since it was read; then the
/// challenges that differ from `before`.
///
/// With `hold` the worker goes on with it; the returned lease is the one that counts from now on.
pub async fn save(
    tx: &mut Tx,
    order: &Order,
    before: &[Challenge],
    lease: &Lease,
    hold: Option<OffsetDateTime>,
) -> Result<Lease, StorageError> {
    let row = Row::from(order);
    let wake = hold.map_or(row.next_action_at, |now| Some(millis(now + LEASE)));
    let changed = execute!(
        tx,
        SAVE,
        row.id,
        lease.token,
        row.state,
        row.url,
        row.expires,
        row.tries,
        row.stalled_since,
        row.attempts,
        row.last_error,
        row.handed_out_at,
        wake,
        row.deadline,
        hold.is_some(),
        row.replaces,
        row.not_after,
    )?;
    held(lease, changed)?;
    for challenge in &order.challenges {
        if before.iter().any(|known| known.id == challenge.id && known != challenge) {
            let row = ChallengeRow::from(challenge);
            execute!(
                tx,
                SAVE_CHALLENGE,
                row.id,
                row.state,
                row.record,
                row.clean,
                row.tries,
                row.reason,
                row.observations,
                row.next_action_at,
                row.deadline,
            )?;
        }
    }
    if order.is_over() {
        budgets::release(tx, order).await?;
    }
    tx.has_changed(row.id);
    if hold.is_none() && row.next_action_at.is_some() {
        tx.wake_workers();
    }
    Ok(Lease { token: lease.token + 1, ..*lease })
}

/// Adds the challenges of an order.
pub async fn insert_challenges(
    tx: &mut Tx,
    order: OrderId,
    challenges: &[Challenge],
) -> Result<(), StorageError> {
    for (position, challenge) in (0_i64..).zip(challenges) {
        let row = ChallengeRow::from(challenge);
        execute!(
            tx,
            INSERT_CHALLENGE,
            row.id,
            order.0,
            position,
            row.authorization_url,
            row.url,
            row.domain,
            row.wildcard,
            row.kind,
            row.solver,
            row.token,
            row.key_authorization,
            row.state,
            row.record,
            row.clean,
            row.tries,
            row.reason,
            row.observations,
            row.next_action_at,
            row.deadline,
        )?;
    }
    Ok(())
}

/// Whether another challenge still needs the same proof: a CA may hand out one authorization twice.
pub async fn is_shared(tx: &mut Tx, challenge: &Challenge) -> Result<bool, StorageError> {
    let token = challenge.token.as_str();
    let row: Option<(Uuid,)> = fetch!(fetch_optional, tx, IS_SHARED, token, challenge.id.0)?;
    Ok(row.is_some())
}

/// Whether what was shown for this challenge is still needed, by it or by another that has the same
/// proof. Of a challenge that nobody knows nothing is.
pub async fn needs_proof(tx: &mut Tx, challenge: ChallengeId) -> Result<bool, StorageError> {
    let row: Option<(Uuid,)> = fetch!(fetch_optional, tx, NEEDS_PROOF, challenge.0)?;
    Ok(row.is_some())
}

/// Has the steps repeated that orders of this issuer are just taking: what they go by has changed,
/// and the answer that is on its way would be to the old question. Orders that wait to be sent to the
/// CA look again at once: perhaps it is another CA, or other limits.
pub async fn retake_steps(
    tx: &mut Tx,
    issuer: IssuerId,
    now: OffsetDateTime,
) -> Result<(), StorageError> {
    execute!(tx, RETAKE, issuer.0, millis(now))?;
    tx.wake_workers();
    Ok(())
}

/// What the HTTP-01 responder answers for a token.
pub async fn key_authorization(tx: &mut Tx, token: &str) -> Result<Option<String>, StorageError> {
    let row: Option<(String,)> = fetch!(fetch_optional, tx, KEY_AUTHORIZATION, token)?;
    Ok(row.map(|(text,)| text))
}

/// A page of orders, newest first, with their challenges.
pub async fn list(
    tx: &mut Tx,
    scope: &Scope,
    wanted: &Wanted,
    page: Page,
) -> Result<Vec<Order>, StorageError> {
    let mut filter = Filter::default();
    filter.within("namespace", scope);
    if let Some(namespace) = &wanted.namespace {
        filter.and("namespace = ?", Value::Text(namespace.clone()));
    }
    if let Some(certificate) = wanted.certificate {
        filter.and("certificate_id = ?", Value::Id(certificate.0));
    }
    if let Some(name) = &wanted.name {
        filter.and("name = ?", Value::Text(name.clone()));
    }
    match wanted.state.as_deref() {
        Some("pending") => {
            filter.and_that(
                "state IN ('new', 'authorizing', 'presenting', 'accepting', 'validating')",
            );
        }
        Some("ready") => filter.and_that("state = 'finalizing'"),
        Some("valid") => filter.and_that("state IN ('downloading', 'valid')"),
        Some(state) => filter.and("state = ?", Value::Text(state.to_owned())),
        None => {}
    }
    let select = concat!("SELECT ", order_columns!(), " FROM orders");
    let rows: Vec<Row> = filter.page(tx, select, "id", page).await?;
    let mut orders = Vec::with_capacity(rows.len());
    for row in rows {
        orders.push(with_challenges(tx, row).await?.0);
    }
    Ok(orders)
}

/// The order that a challenge belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// Our name for it.
    pub id: OrderId,
    /// The name that people type.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
}

/// One challenge that the caller may see, with the order that it belongs to.
pub async fn find_challenge(
    tx: &mut Tx,
    id: ChallengeId,
    scope: &Scope,
) -> Result<Option<(Challenge, Parent)>, StorageError> {
    let row: Option<ChallengeRow> = fetch!(fetch_optional, tx, FIND_CHALLENGE, id.0)?;
    let Some(row) = row else { return Ok(None) };
    let order = OrderId(row.order_id);
    match find(tx, order, scope).await? {
        Some((Order { id, name, namespace, .. }, _)) => {
            Ok(Some((row.into_domain()?, Parent { id, name, namespace })))
        }
        None => Ok(None),
    }
}

/// A page of challenges, newest first, each with its order.
pub async fn list_challenges(
    tx: &mut Tx,
    scope: &Scope,
    wanted: &WantedChallenges,
    page: Page,
) -> Result<Vec<(Challenge, Parent)>, StorageError> {
    let mut filter = Filter::default();
    filter.within("(SELECT namespace FROM orders WHERE orders.id = order_id)", scope);
    if let Some(namespace) = &wanted.namespace {
        let of_namespace = "(SELECT namespace FROM orders WHERE orders.id = order_id) = ?";
        filter.and(of_namespace, Value::Text(namespace.clone()));
    }
    if let Some(name) = &wanted.order_name {
        let of_name = "order_id IN (SELECT id FROM orders WHERE name = ?)";
        filter.and(of_name, Value::Text(name.clone()));
    }
    if let Some(order) = wanted.order {
        filter.and("order_id = ?", Value::Id(order.0));
    }
    if let Some(state) = &wanted.state {
        filter.and("state = ?", Value::Text(state.clone()));
    }
    let select = concat!(
        "SELECT ",
        challenge_columns!(),
        ", (SELECT name FROM orders WHERE orders.id = order_id) AS order_name,
           (SELECT namespace FROM orders WHERE orders.id = order_id) AS order_namespace
         FROM challenges"
    );
    let rows: Vec<ListedRow> = filter.page(tx, select, "id", page).await?;
    rows.into_iter()
        .map(|ListedRow { row, order_name, order_namespace }| {
            let id = OrderId(row.order_id);
            let parent = Parent { id, name: order_name, namespace: order_namespace };
            row.into_domain().map(|challenge| (challenge, parent))
        })
        .collect()
}

async fn with_challenges(tx: &mut Tx, row: Row) -> Result<(Order, Lease), StorageError> {
    let challenges: Vec<ChallengeRow> = fetch!(fetch_all, tx, CHALLENGES_OF, row.id)?;
    let challenges =
        challenges.into_iter().map(ChallengeRow::into_domain).collect::<Result<_, _>>()?;
    row.into_domain(challenges)
}

#[derive(FromRow)]
struct Row {
    id: Uuid,
    name: String,
    certificate_id: Uuid,
    request_id: Uuid,
    issuer_id: Uuid,
    namespace: String,
    names: String,
    profile: Option<String>,
    predecessors: i64,
    state: String,
    url: Option<String>,
    expires: Option<i64>,
    tries: i64,
    stalled_since: Option<i64>,
    attempts: i64,
    last_error: Option<String>,
    created_at: i64,
    handed_out_at: i64,
    next_action_at: Option<i64>,
    deadline: i64,
    replaces: Option<String>,
    not_after: Option<i64>,
    lease_token: i64,
}

impl From<&Order> for Row {
    fn from(order: &Order) -> Self {
        let (state, url) = match &order.state {
            State::New => ("new", None),
            State::Open { url, stage } => (stage_word(*stage), Some(url)),
            State::Done { url, end } => (end_word(*end), url.as_ref()),
        };
        Self {
            id: order.id.0,
            name: order.name.clone(),
            certificate_id: order.certificate.0,
            request_id: order.request.0,
            issuer_id: order.issuer.0,
            namespace: order.namespace.clone(),
            names: json(&order.names),
            profile: order.profile.clone(),
            predecessors: order.predecessors.into(),
            state: state.to_owned(),
            url: url.cloned(),
            expires: order.expires.map(millis),
            tries: order.tries.into(),
            stalled_since: order.stalled_since.map(millis),
            attempts: order.attempts.into(),
            last_error: order.last_error.as_ref().map(json),
            created_at: millis(order.created_at),
            handed_out_at: millis(order.handed_out_at),
            next_action_at: order.next_action_at.map(millis),
            deadline: millis(order.deadline),
            replaces: order.replaces.clone(),
            not_after: order.not_after.map(millis),
            lease_token: 0,
        }
    }
}

const STAGES: [Stage; 7] = [
    Stage::Authorizing,
    Stage::Presenting,
    Stage::Accepting,
    Stage::Validating,
    Stage::Finalizing,
    Stage::Processing,
    Stage::Downloading,
];
const ENDS: [End; 4] = [End::Valid, End::Invalid, End::Errored, End::Expired];

fn stage_word(stage: Stage) -> &'static str {
    match stage {
        Stage::Authorizing => "authorizing",
        Stage::Presenting => "presenting",
        Stage::Accepting => "accepting",
        Stage::Validating => "validating",
        Stage::Finalizing => "finalizing",
        Stage::Processing => "processing",
        Stage::Downloading => "downloading",
    }
}

fn end_word(end: End) -> &'static str {
    match end {
        End::Valid => "valid",
        End::Invalid => "invalid",
        End::Errored => "errored",
        End::Expired => "expired",
    }
}

impl Row {
    fn into_domain(self, challenges: Vec<Challenge>) -> Result<(Order, Lease), StorageError> {
        let wrong = |problem: &str| corrupt("orders", self.id, problem);
        let word = self.state.as_str();
        let open = STAGES.into_iter().find(|stage| stage_word(*stage) == word);
        let end = ENDS.into_iter().find(|end| end_word(*end) == word);
        let state = match (word, open, end, self.url) {
            ("new", None, None, None) => State::New,
            (_, Some(stage), None, Some(url)) => State::Open { url, stage },
            (_, None, Some(end), url) => State::Done { url, end },
            _ => return Err(wrong("state and url disagree")),
        };
        let order = Order {
            id: OrderId(self.id),
            name: self.name,
            certificate: CertificateId(self.certificate_id),
            request: RequestId(self.request_id),
            issuer: IssuerId(self.issuer_id),
            namespace: self.namespace,
            names: document(&self.names, "orders", self.id)?,
            profile: self.profile,
            predecessors: count(self.predecessors),
            state,
            expires: self.expires.map(moment),
            challenges,
            tries: count(self.tries),
            stalled_since: self.stalled_since.map(moment),
            attempts: count(self.attempts),
            last_error: self
                .last_error
                .map(|text| document(&text, "orders", self.id))
                .transpose()?,
            created_at: moment(self.created_at),
            handed_out_at: moment(self.handed_out_at),
            next_action_at: self.next_action_at.map(moment),
            deadline: moment(self.deadline),
            replaces: self.replaces,
            not_after: self.not_after.map(moment),
        };
        let lease = Lease { machine: Machine::Order, id: self.id, token: self.lease_token };
        Ok((order, lease))
    }
}

#[derive(FromRow)]
struct ChallengeRow {
    id: Uuid,
    order_id: Uuid,
    authorization_url: String,
    url: String,
    domain: String,
    wildcard: bool,
    kind: String,
    solver: i64,
    token: String,
    key_authorization: String,
    state: String,
    record: Option<String>,
    clean: bool,
    tries: i64,
    reason: Option<String>,
    observations: Option<String>,
    next_action_at: Option<i64>,
    deadline: i64,
}

#[derive(FromRow)]
struct ListedRow {
    #[sqlx(flatten)]
    row: ChallengeRow,
    order_name: String,
    order_namespace: String,
}

impl From<&Challenge> for ChallengeRow {
    fn from(challenge: &Challenge) -> Self {
        Self {
            id: challenge.id.0,
            order_id: Uuid::nil(),
            authorization_url: challenge.authorization_url.clone(),
            url: challenge.url.clone(),
            domain: challenge.domain.clone(),
            wildcard: challenge.wildcard,
            kind: challenge.kind.as_str().to_owned(),
            solver: challenge.solver.into(),
            token: challenge.token.clone(),
            key_authorization: challenge.key_authorization.clone(),
            state: challenge.state.as_str().to_owned(),
            record: challenge.record.as_ref().map(json),
            clean: challenge.clean,
            tries: challenge.tries.into(),
            reason: challenge.reason.clone(),
            observations: (!challenge.observations.is_empty())
                .then(|| json(&challenge.observations)),
            next_action_at: challenge.next_action_at.map(millis),
            deadline: millis(challenge.deadline),
        }
    }
}

impl ChallengeRow {
    fn into_domain(self) -> Result<Challenge, StorageError> {
        let wrong = |problem: &str| corrupt("challenges", self.id, problem);
        Ok(Challenge {
            id: ChallengeId(self.id),
            kind: challenge::Kind::parse(&self.kind).ok_or_else(|| wrong("kind is not known"))?,
            state: challenge::State::parse(&self.state)
                .ok_or_else(|| wrong("state is not a known word"))?,
            record: self.record.map(|text| document(&text, "challenges", self.id)).transpose()?,
            authorization_url: self.authorization_url,
            url: self.url,
            domain: self.domain,
            wildcard: self.wildcard,
            solver: count(self.solver),
            token: self.token,
            key_authorization: self.key_authorization,
            clean: self.clean,
            tries: count(self.tries),
            reason: self.reason,
            observations: self
                .observations
                .map(|text| document(&text, "challenges", self.id))
                .transpose()?
                .unwrap_or_default(),
            next_action_at: self.next_action_at.map(moment),
            deadline: moment(self.deadline),
        })
    }
}
