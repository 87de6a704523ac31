//! Issuers and their accounts.

use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{audit, events, log, outbox};
use crate::domain::id::IssuerId;
use crate::domain::issuer::{Account, Issuer, Kind, State, Transition};
use crate::domain::scope::Scope;
use crate::secret::{Place, Sealed};
use crate::storage::Db;
use crate::storage::engine::query::Filter;
use crate::storage::engine::{
    Page, Read, Rows, StorageError, Stored, Tx, count, execute, fetch, json, millis, moment,
    statements, table, write,
};
use crate::storage::queue::lease::{Lease, Machine};

table! {
    struct Row of issuers {
        insert { id: Uuid, kind: String, namespace: String, name: String, created_at: i64 }
        save {
            acme: String,
            generation: i64,
            state: String,
            state_since: i64,
            account_url: Option<String>,
            account_server: Option<String>,
            account_email: Option<String>,
            account_change: Option<String>,
            tries: i64,
            last_error: Option<String>,
            next_action_at: Option<i64>,
        }
        read { lease_token: i64 }
    }
}

statements! {
    INSERT adds(issuers) = Row::insert(&[("account_key", "$1")]);
    FIND = Row::select("WHERE id = $1");
    FIND_BY_NAME = Row::select("WHERE kind = $1 AND namespace = $2 AND name = $3");
    WITH_ACCOUNT_KEY = format!("SELECT account_key, {} FROM issuers WHERE id = $1", Row::COLUMNS.names());
    ACCOUNT_KEY = "SELECT account_key FROM issuers WHERE id = $1";
    NEXT_ACCOUNT_KEY = "SELECT next_account_key FROM issuers WHERE id = $1";
    SET_ACCOUNT_KEY writes(issuers) = "UPDATE issuers SET account_key = $2, next_account_key = NULL WHERE id = $1";
    SET_NEXT_ACCOUNT_KEY writes(issuers) = "UPDATE issuers SET next_account_key = $2 WHERE id = $1";
    SAVE writes(issuers) = format!(
        "UPDATE issuers SET leased_by = NULL, lease_token = lease_token + 1, {}
         WHERE id = $1 AND lease_token = $2",
        Row::SAVED.assignments_after(2)
    );
    WAKE writes(issuers) = "UPDATE issuers SET next_action_at = $2, lease_token = lease_token + 1
        WHERE id = $1 AND leased_by IS NULL AND next_action_at > $2";
    DELETE writes(issuers) = "DELETE FROM issuers WHERE id = $1";
    OF_NAMESPACE = Row::select("WHERE namespace = $1 OR namespace = '' ORDER BY id");
}

/// Which issuers are wanted; everything that is given must hold.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Of this namespace.
    pub namespace: Option<String>,
    /// Of this name.
    pub name: Option<String>,
    /// Of this kind.
    pub kind: Option<Kind>,
}

/// The place that an account key is sealed for.
pub fn account_key_place(issuer: &Issuer) -> Place {
    Place::new(format!("issuers/account_key/{}", issuer.id), &issuer.namespace)
}

/// The place that an account's next key is sealed for.
pub fn next_account_key_place(issuer: &Issuer) -> Place {
    Place::new(format!("issuers/next_account_key/{}", issuer.id), &issuer.namespace)
}

/// Adds an issuer with the key of its account, which exists nowhere else yet.
pub async fn insert(
    tx: &mut Tx,
    issuer: &Issuer,
    account_key: &Sealed,
) -> Result<(), StorageError> {
    let row = Row::from(issuer);
    write!(tx, INSERT, account_key.0.as_slice(); row.bind_inserted);
    audit::changes(tx, "issuers", row.id, &issuer.namespace);
    tx.wake_workers();
    Ok(())
}

/// An issuer that the caller may see.
pub async fn find(
    read: &mut Read,
    id: IssuerId,
    scope: &Scope,
) -> Result<Option<(Issuer, Lease)>, StorageError> {
    let row: Option<Row> = fetch!(fetch_optional, read, FIND, id.0)?;
    row.filter(|row| scope.covers(&row.namespace)).map(Row::into_domain).transpose()
}

/// An issuer with the sealed key of its account, for whoever works for it.
pub async fn with_account_key(
    read: &mut Read,
    id: IssuerId,
) -> Result<Option<(Issuer, Sealed)>, StorageError> {
    let row: Option<WithKey> = fetch!(fetch_optional, read, WITH_ACCOUNT_KEY, id.0)?;
    row.map(|row| Ok((row.row.into_domain()?.0, Sealed(row.account_key)))).transpose()
}

/// Like [`with_account_key`], from memory where it was read lately and nobody else can have changed it.
pub async fn cached_with_account_key(
    db: &Db,
    id: IssuerId,
) -> Result<Option<(Issuer, Sealed)>, StorageError> {
    let read = async || with_account_key(&mut db.read().await?, id).await;
    db.cache.issuers.get(id, read).await
}

/// Like [`find_by_name`], from memory where it was read lately and nobody else can have changed it.
pub async fn cached_by_name(
    db: &Db,
    kind: Kind,
    namespace: &str,
    name: &str,
) -> Result<Option<Issuer>, StorageError> {
    let read = async || {
        let found = find_by_name(&mut db.read().await?, kind, namespace, name).await?;
        Ok(found.map(|(issuer, _)| issuer))
    };
    let key = (kind, namespace.to_owned(), name.to_owned());
    db.cache.named_issuers.get(key, read).await
}

/// The issuer that a certificate of `namespace` means by kind and name.
pub async fn find_by_name(
    read: &mut Read,
    kind: Kind,
    namespace: &str,
    name: &str,
) -> Result<Option<(Issuer, Lease)>, StorageError> {
    let namespace = match kind {
        Kind::Issuer => namespace,
        Kind::ClusterIssuer => "",
    };
    let row: Option<Row> =
        fetch!(fetch_optional, read, FIND_BY_NAME, kind.as_str(), namespace, name)?;
    row.map(Row::into_domain).transpose()
}

/// Every issuer that may use secrets of this namespace.
pub async fn of_namespace(
    read: &mut Read,
    namespace: &str,
) -> Result<Vec<(Issuer, Lease)>, StorageError> {
    let rows: Vec<Row> = fetch!(fetch_all, read, OF_NAMESPACE, namespace)?;
    rows.into_iter().map(Row::into_domain).collect()
}

/// The sealed key of its account.
pub async fn account_key(read: &mut Read, id: IssuerId) -> Result<Sealed, StorageError> {
    let row: Option<(Vec<u8>,)> = fetch!(fetch_optional, read, ACCOUNT_KEY, id.0)?;
    row.map(|(key,)| Sealed(key)).ok_or_else(|| Stored("issuers", id.0).corrupt("the row is gone"))
}

/// The sealed key that is to follow the present one, while there is one. The CA may know it already.
pub async fn next_account_key(
    read: &mut Read,
    id: IssuerId,
) -> Result<Option<Sealed>, StorageError> {
    let row: Option<(Option<Vec<u8>>,)> = fetch!(fetch_optional, read, NEXT_ACCOUNT_KEY, id.0)?;
    Ok(row.and_then(|(key,)| key).map(Sealed))
}

/// Stores the key that is to follow, before the CA hears of it; or forgets it.
pub async fn set_next_account_key(
    tx: &mut Tx,
    id: IssuerId,
    key: Option<&Sealed>,
) -> Result<(), StorageError> {
    execute!(tx, SET_NEXT_ACCOUNT_KEY, id.0, key.map(|key| key.0.as_slice()))?;
    Ok(())
}

/// The next key takes the present one's place.
pub async fn set_account_key(tx: &mut Tx, id: IssuerId, key: &Sealed) -> Result<(), StorageError> {
    execute!(tx, SET_ACCOUNT_KEY, id.0, key.0.as_slice())?;
    Ok(())
}

/// Saves what may change in an issuer's life, if nobody else did since it was read; with it the
/// history of what happened, and what is told of it.
pub async fn save(tx: &mut Tx, transition: &Transition, lease: &Lease) -> Result<(), StorageError> {
    let Transition { issuer, events, at, .. } = transition;
    let row = Row::from(issuer);
    write!(tx, lease => SAVE, row.id, lease.token; row.bind_saved);
    audit::changes(tx, "issuers", row.id, &issuer.namespace);
    outbox::of_issuer(tx, transition);
    log::of_issuer(tx, transition);
    events::record(tx, &issuer.namespace, None, events, *at);
    tx.wake_workers();
    Ok(())
}

/// Has an issuer that waits look again at once.
pub async fn wake(tx: &mut Tx, id: IssuerId, now: OffsetDateTime) -> Result<(), StorageError> {
    execute!(tx, WAKE, id.0, millis(now))?;
    tx.wake_workers();
    Ok(())
}

/// Forgets an issuer and its account key.
pub async fn delete(tx: &mut Tx, id: IssuerId) -> Result<(), StorageError> {
    execute!(tx, DELETE, id.0)?;
    Ok(())
}

/// A page of issuers, by identifier, and so by age.
pub async fn list(
    read: &mut Read,
    scope: &Scope,
    wanted: &Wanted,
    page: Page,
) -> Result<Rows<Issuer>, StorageError> {
    let mut filter = Filter::within("namespace", scope.namespaces());
    filter.and_if("namespace = ?", wanted.namespace.as_ref());
    filter.and_if("name = ?", wanted.name.as_ref());
    filter.and_if("kind = ?", wanted.kind.map(Kind::as_str));
    let rows: Rows<Row> = filter.page(read, &Row::select(""), "id", page).await?;
    rows.map(|row| row.into_domain().map(|(issuer, _)| issuer))
}

#[derive(FromRow)]
struct WithKey {
    #[sqlx(flatten)]
    row: Row,
    account_key: Vec<u8>,
}

impl From<&Issuer> for Row {
    fn from(issuer: &Issuer) -> Self {
        let account = issuer.account.as_ref();
        Self {
            id: issuer.id.0,
            kind: issuer.kind.as_str().to_owned(),
            namespace: issuer.namespace.clone(),
            name: issuer.name.clone(),
            acme: json(&issuer.acme),
            generation: issuer.generation,
            state: issuer.state.as_str().to_owned(),
            state_since: millis(issuer.state_since),
            account_url: account.map(|account| account.url.clone()),
            account_server: account.map(|account| account.server.clone()),
            account_email: account.and_then(|account| account.email.clone()),
            tries: issuer.tries.into(),
            last_error: issuer.last_error.as_ref().map(json),
            created_at: millis(issuer.created_at),
            next_action_at: issuer.next_action_at.map(millis),
            account_change: issuer.account_change.as_ref().map(json),
            lease_token: 0,
        }
    }
}

impl Row {
    fn into_domain(self) -> Result<(Issuer, Lease), StorageError> {
        let row = Stored("issuers", self.id);
        let account = match (self.account_url, self.account_server) {
            (Some(url), Some(server)) => Some(Account { url, server, email: self.account_email }),
            _ => None,
        };
        let issuer = Issuer {
            id: IssuerId(self.id),
            kind: row.known("kind", Kind::parse(&self.kind))?,
            namespace: self.namespace,
            name: self.name,
            acme: row.document(&self.acme)?,
            generation: self.generation,
            state: row.known("state", State::parse(&self.state))?,
            state_since: moment(self.state_since),
            account,
            account_change: row.document_if(self.account_change)?,
            tries: count(self.tries),
            last_error: row.document_if(self.last_error)?,
            created_at: moment(self.created_at),
            next_action_at: self.next_action_at.map(moment),
        };
        let lease = Lease { machine: Machine::Issuer, id: self.id, token: self.lease_token };
        Ok((issuer, lease))
    }
}
