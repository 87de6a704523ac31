//! The audit log: entries, and the seals that chain them. Nothing of it is ever changed, so that a role which may
//! only read and add rows is enough for the service.
//!
//! A transaction with an [`Author`] leaves an entry for each resource that it is about, as the last of its writes:
//! no function that changes something has to remember it. Seals are made later, by whoever comes first: two that
//! give the same number to different entries cannot both commit.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::audit::{Call, Entry, Head, Outcome, Seal};
use crate::domain::certificate::Transition;
use crate::domain::failure::{Failure, code};
use crate::domain::id::AuditId;
use crate::domain::principal::{PrincipalKind, PrincipalRef};
use crate::storage::engine::query::Filter;
use crate::storage::engine::tx::Hook;
use crate::storage::engine::{
    Page, Read, Rows, StorageError, Stored, Tx, fetch, millis, moment, statements, table, write,
};

table! {
    struct Row of audit_entries {
        id: Uuid,
        at: i64,
        principal_kind: Option<String>,
        principal_id: Option<Uuid>,
        principal_name: Option<String>,
        address: Option<String>,
        action: String,
        resource: String,
        namespace: String,
        outcome: String,
        reason: Option<String>,
        request_id: String,
        count: i64,
    }
}

table! {
    struct SealRow of audit_seals {
        seq: i64,
        entry_id: Uuid,
        previous: Vec<u8>,
        hash: Vec<u8>,
    }
}

statements! {
    INSERT adds(audit_entries) = format!(
        "INSERT INTO audit_entries ({}) VALUES ({})", Row::COLUMNS.names(), Row::COLUMNS.placeholders_after(0)
    );
    SEAL adds(audit_seals) = "INSERT INTO audit_seals (seq, entry_id, previous, hash) VALUES ($1, $2, $3, $4)";
    HEAD = "SELECT seq, hash FROM audit_seals ORDER BY seq DESC LIMIT 1";
    UNSEALED = Row::select("WHERE id >= $1 AND NOT EXISTS (SELECT 1 FROM audit_seals WHERE entry_id = audit_entries.id)
        ORDER BY id LIMIT $2");
    SEALS = SealRow::select("WHERE seq > $1 ORDER BY seq LIMIT $2");
    SEALED = Row::select("WHERE id IN (SELECT entry_id FROM audit_seals WHERE seq > $1 AND seq <= $2)");
}

/// Whoever a transaction is written for.
#[derive(Debug, Clone)]
pub struct Author {
    pub principal: PrincipalRef,
    pub call: Arc<Call>,
    pub at: OffsetDateTime,
}

/// A resource that a transaction is about.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Subject {
    collection: &'static str,
    id: Uuid,
    namespace: String,
    /// What is done to it, where that is not what the request's address says; with the details.
    deed: Option<(&'static str, String)>,
}

/// The entries of a transaction, written as the last of it.
#[derive(Default)]
struct AuditLog {
    author: Option<Author>,
    subjects: Vec<Subject>,
    /// What the service refuses by itself.
    refusals: Vec<Entry>,
}

/// From here on the transaction leaves entries, with this author.
pub fn attribute(tx: &mut Tx, author: Author) {
    tx.hook::<AuditLog>().author = Some(author);
}

/// The transaction changes this resource.
pub fn changes(tx: &mut Tx, collection: &'static str, id: Uuid, namespace: &str) {
    note(tx, Subject { collection, id, namespace: namespace.to_owned(), deed: None });
}

/// The transaction hands out what must not be unseen: an entry is left although nothing is changed.
pub fn hands_out(
    tx: &mut Tx,
    (collection, id): (&'static str, Uuid),
    namespace: &str,
    verb: &'static str,
    what: String,
) {
    let deed = Some((verb, what));
    note(tx, Subject { collection, id, namespace: namespace.to_owned(), deed });
}

/// A certificate that the service judges anew, and that no policy allows any more, leaves an entry when it is blocked.
pub(in crate::storage) fn of_certificate(tx: &mut Tx, transition: &Transition) {
    let Transition { certificate, events, trouble, at, .. } = transition;
    let is_refusal = |failure: &&Failure| failure.is(code::NAME_NOT_ALLOWED);
    let is_news = trouble.as_ref().is_some_and(|failure| is_refusal(&failure))
        || events.iter().any(|event| event.reason == "NameNotAllowed");
    let Some(failure) = certificate.last_error.as_ref().filter(is_refusal).filter(|_| is_news)
    else {
        return;
    };
    let (kind, reason) = (PrincipalKind::Service, failure.detail.clone());
    let entry = Entry {
        resource: format!("certificates/{}", certificate.id),
        namespace: certificate.namespace.clone(),
        outcome: Outcome::Refused,
        ..Entry::without_request(kind, "policies", "certificates.block", reason, *at)
    };
    tx.hook::<AuditLog>().refusals.push(entry);
}

fn note(tx: &mut Tx, subject: Subject) {
    let known = &mut tx.hook::<AuditLog>().subjects;
    if !known.contains(&subject) {
        known.push(subject);
    }
}

impl AuditLog {
    /// One for each resource that was asked for. What else was touched, such as issuers that a Secret wakes, was not.
    fn entries(&self, has_written: bool) -> Vec<Entry> {
        // Whoever asks is told, and so is the log.
        let Some(author) = &self.author else { return self.refusals.clone() };
        let collection = &author.call.collection;
        let mut entries = Vec::new();
        for subject in &self.subjects {
            if collection.is_empty() || subject.collection == collection {
                entries.push(author.entry(Some(subject)));
            }
        }
        if entries.is_empty() && has_written {
            entries.push(author.entry(None));
        }
        entries
    }
}

impl Hook for AuditLog {
    fn before_commit<'t>(&'t mut self, tx: &'t mut Tx) -> BoxFuture<'t, Result<(), StorageError>> {
        async move {
            for entry in self.entries(tx.has_written()) {
                insert(tx, &entry).await?;
            }
            Ok(())
        }
        .boxed()
    }
}

impl Author {
    fn entry(&self, subject: Option<&Subject>) -> Entry {
        let Self { principal, call, at } = self;
        let (collection, resource, namespace) = match subject {
            None => (&*call.collection, call.resource.clone(), String::new()),
            Some(Subject { collection, id, namespace, .. }) => {
                (*collection, format!("{collection}/{id}"), namespace.clone())
            }
        };
        let deed = subject.and_then(|subject| subject.deed.clone());
        let verb = deed.as_ref().map_or(&*call.verb, |(verb, _)| verb);
        Entry {
            id: AuditId::generate(*at).0,
            at: *at,
            principal: Some(principal.clone()),
            from: call.from.map(|from| from.to_string()),
            action: format!("{collection}.{verb}").trim_start_matches('.').to_owned(),
            resource,
            namespace,
            outcome: Outcome::Allowed,
            reason: deed.map(|(_, what)| what),
            request_id: call.request_id.clone(),
            count: 1,
        }
    }
}

/// Adds an entry.
pub async fn insert(tx: &mut Tx, entry: &Entry) -> Result<(), StorageError> {
    let principal = entry.principal.as_ref();
    write!(
        tx,
        INSERT,
        entry.id,
        millis(entry.at),
        principal.map(|it| it.kind.as_str()),
        principal.and_then(|it| it.id),
        principal.map(|it| it.name.as_str()),
        entry.from.as_deref(),
        entry.action.as_str(),
        entry.resource.as_str(),
        entry.namespace.as_str(),
        entry.outcome.as_str(),
        entry.reason.as_deref(),
        entry.request_id.as_str(),
        entry.count,
    );
    Ok(())
}

/// Entries without a seal, by age, from this identifier on.
pub async fn unsealed(read: &mut Read, from: Uuid, limit: u32) -> Result<Vec<Entry>, StorageError> {
    let rows: Vec<Row> = fetch!(fetch_all, read, UNSEALED, from, i64::from(limit))?;
    rows.into_iter().map(Row::into_domain).collect()
}

/// The last seal.
pub async fn head(read: &mut Read) -> Result<Head, StorageError> {
    let found: Option<(i64, Vec<u8>)> = fetch!(fetch_optional, read, HEAD)?;
    Ok(found.map_or_else(Head::beginning, |(seq, hash)| Head { seq, hash }))
}

/// Seals an entry. That somebody else has given the same number is told with the commit:
/// [`StorageError::Conflict`].
pub async fn seal(tx: &mut Tx, entry: Uuid, seal: &Seal) -> Result<(), StorageError> {
    write!(tx, SEAL, seal.seq, entry, seal.previous.as_slice(), seal.hash.as_slice());
    Ok(())
}

/// Seals after this one, in order, each with its entry if that is there.
pub async fn chain(
    read: &mut Read,
    after: i64,
    limit: u32,
) -> Result<Vec<(Seal, Option<Entry>)>, StorageError> {
    let seals: Vec<SealRow> = fetch!(fetch_all, read, SEALS, after, i64::from(limit))?;
    let last = seals.last().map_or(after, |seal| seal.seq);
    let entries: Vec<Row> = fetch!(fetch_all, read, SEALED, after, last)?;
    let mut entries = entries
        .into_iter()
        .map(|row| row.into_domain().map(|entry| (entry.id, entry)))
        .collect::<Result<std::collections::HashMap<_, _>, _>>()?;
    let with_entry = |SealRow { seq, entry_id, previous, hash }| {
        (Seal { seq, previous, hash }, entries.remove(&entry_id))
    };
    Ok(seals.into_iter().map(with_entry).collect())
}

/// Which entries are wanted; everything that is given must hold.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    pub since: Option<OffsetDateTime>,
    /// A principal's identifier or name.
    pub principal: Option<String>,
    pub action: Option<String>,
    /// `collection/id`.
    pub resource: Option<String>,
}

#[derive(FromRow)]
struct ListedRow {
    #[sqlx(flatten)]
    entry: Row,
    seq: Option<i64>,
    previous: Option<Vec<u8>>,
    hash: Option<Vec<u8>>,
}

/// A page of entries, by identifier, and so by age; each with its seal, if it has one yet.
pub async fn list(
    read: &mut Read,
    wanted: &Wanted,
    page: Page,
) -> Result<Rows<(Entry, Option<Seal>)>, StorageError> {
    let mut filter = Filter::default();
    filter.and_if("at >= ?", wanted.since.map(millis));
    if let Some(principal) = &wanted.principal {
        match principal.parse::<Uuid>() {
            Ok(id) => filter.and("principal_id = ?", id.into()),
            Err(_) => filter.and("principal_name = ?", principal.into()),
        }
    }
    filter.and_if("action = ?", wanted.action.as_ref());
    filter.and_if("resource = ?", wanted.resource.as_ref());
    let select = format!(
        "SELECT {}, seq, previous, hash FROM audit_entries LEFT JOIN audit_seals ON entry_id = id",
        Row::COLUMNS.names()
    );
    let rows: Rows<ListedRow> = filter.page(read, &select, "id", page).await?;
    rows.map(ListedRow::into_domain)
}

impl ListedRow {
    fn into_domain(self) -> Result<(Entry, Option<Seal>), StorageError> {
        let seal = match (self.seq, self.previous, self.hash) {
            (Some(seq), Some(previous), Some(hash)) => Some(Seal { seq, previous, hash }),
            _ => None,
        };
        Ok((self.entry.into_domain()?, seal))
    }
}

impl Row {
    fn into_domain(self) -> Result<Entry, StorageError> {
        let stored = Stored("audit_entries", self.id);
        let kind = |word: String| stored.known("principal_kind", PrincipalKind::parse(&word));
        let kind = self.principal_kind.map(kind).transpose()?;
        let (id, name) = (self.principal_id, self.principal_name.unwrap_or_default());
        Ok(Entry {
            id: self.id,
            at: moment(self.at),
            principal: kind.map(|kind| PrincipalRef { kind, id, name }),
            from: self.address,
            action: self.action,
            resource: self.resource,
            namespace: self.namespace,
            outcome: stored.known("outcome", Outcome::parse(&self.outcome))?,
            reason: self.reason,
            request_id: self.request_id,
            count: self.count,
        })
    }
}
