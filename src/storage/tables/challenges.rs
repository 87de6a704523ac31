//! The challenges of orders: part of their aggregate, and shown by themselves.

use sqlx::FromRow;
use uuid::Uuid;

use super::orders;
use crate::domain::challenge;
use crate::domain::challenge::Challenge;
use crate::domain::id::{ChallengeId, OrderId};
use crate::domain::order::Order;
use crate::domain::scope::Scope;
use crate::storage::engine::query::Filter;
use crate::storage::engine::{
    Page, Read, Rows, StorageError, Stored, Tx, count, fetch, json, millis, moment, statements,
    table, write,
};

table! {
    pub(in crate::storage) struct Row of challenges {
        insert {
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
        }
        save {
            state: String,
            record: Option<String>,
            clean: bool,
            tries: i64,
            reason: Option<String>,
            observations: Option<String>,
            next_action_at: Option<i64>,
            deadline: i64,
        }
        read {}
    }
}

statements! {
    OF_ORDER = Row::select("WHERE order_id = $1 ORDER BY position");
    FIND = Row::select("WHERE id = $1");
    INSERT adds(challenges) = Row::insert(&[("position", "$1")]);
    SAVE writes(challenges) =
        format!("UPDATE challenges SET {} WHERE id = $1", Row::SAVED.assignments_after(1));
    NEEDS_PROOF = "SELECT id FROM challenges
        WHERE NOT clean AND state IN ('pending', 'presented', 'visible', 'processing')
          AND (id = $1 OR token = (SELECT token FROM challenges WHERE id = $1)) LIMIT 1";
    KEY_AUTHORIZATION = "SELECT key_authorization FROM challenges
        WHERE token = $1 AND kind = 'http-01' AND NOT clean LIMIT 1";
}

/// Which challenges are wanted; everything that is given must hold.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Of this namespace.
    pub namespace: Option<String>,
    /// Of the order of this name.
    pub order_name: Option<String>,
    /// Of this order.
    pub order: Option<OrderId>,
    /// In this state.
    pub state: Option<challenge::State>,
}

/// Adds the challenges of an order.
pub async fn insert(
    tx: &mut Tx,
    order: OrderId,
    challenges: &[Challenge],
) -> Result<(), StorageError> {
    for (position, challenge) in (0_i64..).zip(challenges) {
        let row = Row { order_id: order.0, ..Row::from(challenge) };
        write!(tx, INSERT, position; row.bind_inserted);
    }
    Ok(())
}

/// Those of an order, in their order.
pub(in crate::storage) async fn of_order(
    read: &mut Read,
    order: Uuid,
) -> Result<Vec<Challenge>, StorageError> {
    let rows: Vec<Row> = fetch!(fetch_all, read, OF_ORDER, order)?;
    rows.into_iter().map(Row::into_domain).collect()
}

/// Saves those that are not what they were before.
pub(in crate::storage) async fn save_changed(
    tx: &mut Tx,
    challenges: &[Challenge],
    before: &[Challenge],
) -> Result<(), StorageError> {
    for challenge in challenges {
        if before.iter().any(|known| known.id == challenge.id && known != challenge) {
            let row = Row::from(challenge);
            write!(tx, SAVE, row.id; row.bind_saved);
        }
    }
    Ok(())
}

/// Whether what was shown for this challenge is still needed, by it or by another that has the same
/// proof. Of a challenge that nobody knows nothing is.
pub async fn needs_proof(read: &mut Read, challenge: ChallengeId) -> Result<bool, StorageError> {
    let row: Option<(Uuid,)> = fetch!(fetch_optional, read, NEEDS_PROOF, challenge.0)?;
    Ok(row.is_some())
}

/// What the HTTP-01 responder answers for a token.
pub async fn key_authorization(
    read: &mut Read,
    token: &str,
) -> Result<Option<String>, StorageError> {
    let row: Option<(String,)> = fetch!(fetch_optional, read, KEY_AUTHORIZATION, token)?;
    Ok(row.map(|(text,)| text))
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
pub async fn find(
    read: &mut Read,
    id: ChallengeId,
    scope: &Scope,
) -> Result<Option<(Challenge, Parent)>, StorageError> {
    let row: Option<Row> = fetch!(fetch_optional, read, FIND, id.0)?;
    let Some(row) = row else { return Ok(None) };
    let order = OrderId(row.order_id);
    match orders::find(read, order, scope).await? {
        Some((Order { id, name, namespace, .. }, _)) => {
            Ok(Some((row.into_domain()?, Parent { id, name, namespace })))
        }
        None => Ok(None),
    }
}

/// A page of challenges, newest first, each with its order.
pub async fn list(
    read: &mut Read,
    scope: &Scope,
    wanted: &Wanted,
    page: Page,
) -> Result<Rows<(Challenge, Parent)>, StorageError> {
    let mut filter = Filter::within(
        "(SELECT namespace FROM orders WHERE orders.id = order_id)",
        scope.namespaces(),
    );
    filter.and_if(
        "(SELECT namespace FROM orders WHERE orders.id = order_id) = ?",
        wanted.namespace.as_ref(),
    );
    filter.and_if("order_id IN (SELECT id FROM orders WHERE name = ?)", wanted.order_name.as_ref());
    filter.and_if("order_id = ?", wanted.order.map(|it| it.0));
    filter.and_if("state = ?", wanted.state.map(challenge::State::as_str));
    let select = format!(
        "SELECT {}, (SELECT name FROM orders WHERE orders.id = order_id) AS order_name,
           (SELECT namespace FROM orders WHERE orders.id = order_id) AS order_namespace
         FROM challenges",
        Row::COLUMNS.names()
    );
    let rows: Rows<ListedRow> = filter.page(read, &select, "id", page).await?;
    rows.map(|ListedRow { row, order_name, order_namespace }| {
        let id = OrderId(row.order_id);
        let parent = Parent { id, name: order_name, namespace: order_namespace };
        row.into_domain().map(|challenge| (challenge, parent))
    })
}

#[derive(FromRow)]
struct ListedRow {
    #[sqlx(flatten)]
    row: Row,
    order_name: String,
    order_namespace: String,
}

impl From<&Challenge> for Row {
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

impl Row {
    pub(in crate::storage) fn order_id(&self) -> Uuid {
        self.order_id
    }

    pub(in crate::storage) fn into_domain(self) -> Result<Challenge, StorageError> {
        let row = Stored("challenges", self.id);
        Ok(Challenge {
            id: ChallengeId(self.id),
            kind: row.known("kind", challenge::Kind::parse(&self.kind))?,
            state: row.known("state", challenge::State::parse(&self.state))?,
            record: row.document_if(self.record)?,
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
            observations: row.document_if(self.observations)?.unwrap_or_default(),
            next_action_at: self.next_action_at.map(moment),
            deadline: moment(self.deadline),
        })
    }
}
