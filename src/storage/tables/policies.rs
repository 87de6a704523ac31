//! Name policies. Each row has a MAC over all that it says: a policy without the right one allows nothing.

use std::sync::Arc;

use time::OffsetDateTime;
use uuid::Uuid;

use super::grants::Grant;
use super::{audit, policy_reviews};
use crate::domain::id::PolicyId;
use crate::domain::policy::{Policies, Policy};
use crate::storage::Db;
use crate::storage::engine::query::Filter;
use crate::storage::engine::{
    Page, Read, Rows, StorageError, Stored, Tx, execute, fetch, json, millis, moment, statements,
    table, write,
};

table! {
    struct Row of policies {
        id: Uuid,
        name: String,
        spec: String,
        generation: i64,
        created_at: i64,
        updated_at: i64,
        mac: Option<Vec<u8>>,
    }
}

statements! {
    INSERT adds(policies) = "INSERT INTO policies (id, name, spec, generation, created_at, updated_at, mac) VALUES ($1, $2, $3, $4, $5, $6, $7)";
    // A list travels as JSON: the two databases have no other form of it in common.
    INSERT_NAMESPACES adds(policy_namespaces) = "INSERT INTO policy_namespaces (policy_id, namespace) SELECT $1, value FROM json_each($2)",
        "INSERT INTO policy_namespaces (policy_id, namespace) SELECT $1, json_array_elements_text($2::json)";
    DELETE_NAMESPACES writes(policy_namespaces) = "DELETE FROM policy_namespaces WHERE policy_id = $1";
    FIND = Row::select("WHERE id = $1");
    PAGE = Row::select("WHERE id > $1 ORDER BY id LIMIT $2");
    SIGN writes(policies) = "UPDATE policies SET mac = $3 WHERE id = $1 AND mac IS NOT DISTINCT FROM $2";
    FIND_BY_NAME = Row::select("WHERE name = $1");
    OF_NAMESPACE = Row::select("WHERE id IN (SELECT policy_id FROM policy_namespaces WHERE namespace IN ($1, '*'))");
    SAVE writes(policies) = "UPDATE policies SET spec = $3, generation = $4, updated_at = $5, mac = $6 WHERE id = $1 AND generation = $2";
    DELETE writes(policies, policy_namespaces) = "DELETE FROM policies WHERE id = $1 AND generation = $2";
}

/// Which policies are wanted; everything that is given must hold.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Of this name.
    pub name: Option<String>,
    /// For this namespace, perhaps among others.
    pub namespace: Option<String>,
}

/// Adds a policy, and has the certificates judged anew that it is about.
pub async fn insert(tx: &mut Tx, policy: &Policy) -> Result<(), StorageError> {
    audit::changes(tx, "policies", policy.id.0, "");
    let row = Row::of(policy);
    let mac = tx.sign(&row.text())?;
    let Row { id, name, spec, generation, created_at, updated_at, .. } = row;
    write!(tx, INSERT, id, name, spec, generation, created_at, updated_at, mac);
    write!(tx, INSERT_NAMESPACES, policy.id.0, json(&policy.spec.namespaces));
    policy_reviews::begin(tx, &policy.spec.namespaces, policy.updated_at).await
}

/// The policy of this identifier, for those who manage policies: also one that is refused.
pub async fn find(read: &mut Read, id: PolicyId) -> Result<Option<Policy>, StorageError> {
    let row: Option<Row> = fetch!(fetch_optional, read, FIND, id.0)?;
    row.map(Row::into_domain).transpose()
}

/// The policy of this name; the same way.
pub async fn find_by_name(read: &mut Read, name: &str) -> Result<Option<Policy>, StorageError> {
    let row: Option<Row> = fetch!(fetch_optional, read, FIND_BY_NAME, name)?;
    row.map(Row::into_domain).transpose()
}

/// The policies that a namespace is judged by. Rows that the service did not write are left out.
pub async fn of_namespace(read: &mut Read, namespace: &str) -> Result<Policies, StorageError> {
    let rows: Vec<Row> = fetch!(fetch_all, read, OF_NAMESPACE, namespace)?;
    let mut policies = Vec::with_capacity(rows.len());
    for row in rows {
        if row.is_authentic(read)? {
            policies.push(row.into_domain()?);
        }
    }
    Ok(Policies::of(namespace, policies))
}

/// Like [`of_namespace`], from memory where they were read lately and nobody else can have changed them.
pub async fn cached(db: &Db, namespace: &str) -> Result<Arc<Policies>, StorageError> {
    let read = async || {
        let found = of_namespace(&mut db.read().await?, namespace).await?;
        Ok(Some(Arc::new(found)))
    };
    let found = db.cache.policies.get(namespace.to_owned(), read).await?;
    Ok(found.unwrap_or_else(|| Arc::new(Policies::of(namespace, Vec::new()))))
}

/// Gives the policy `present` another specification, unless somebody else did; and has the certificates judged anew
/// that it is, or was, about. A row that the service did not write gets none: its name would count again.
pub async fn respecify(tx: &mut Tx, present: &Policy, next: &Policy) -> Result<(), StorageError> {
    let id = present.id.0;
    audit::changes(tx, "policies", id, "");
    let row: Option<Row> = fetch!(fetch_optional, tx, FIND, id)?;
    if let Some(row) = row
        && !row.is_authentic(tx)?
    {
        return Err(StorageError::NotAuthentic { table: "policies", id });
    }
    let row = Row::of(next);
    let mac = tx.sign(&row.text())?;
    let Row { spec, generation, updated_at, .. } = row;
    let changed = execute!(tx, SAVE, id, present.generation, spec, generation, updated_at, mac)?;
    must_be_present(present, changed)?;
    execute!(tx, DELETE_NAMESPACES, id)?;
    write!(tx, INSERT_NAMESPACES, id, json(&next.spec.namespaces));
    let namespaces = [&*present.spec.namespaces, &*next.spec.namespaces].concat();
    policy_reviews::begin(tx, &namespaces, next.updated_at).await
}

/// Withdraws a policy, unless somebody else changed it; and has the certificates judged anew that it was about.
pub async fn delete(
    tx: &mut Tx,
    present: &Policy,
    now: OffsetDateTime,
) -> Result<(), StorageError> {
    audit::changes(tx, "policies", present.id.0, "");
    let changed = execute!(tx, DELETE, present.id.0, present.generation)?;
    must_be_present(present, changed)?;
    policy_reviews::begin(tx, &present.spec.namespaces, now).await
}

/// The generation is the fence: every change raises it.
fn must_be_present(present: &Policy, changed: u64) -> Result<(), StorageError> {
    if changed == 1 { Ok(()) } else { Err(StorageError::LeaseLost(present.id.0)) }
}

/// A page of policies, by identifier, and so by age.
pub async fn list(
    read: &mut Read,
    wanted: &Wanted,
    page: Page,
) -> Result<Rows<Policy>, StorageError> {
    let mut filter = Filter::default();
    filter.and_if("name = ?", wanted.name.as_ref());
    filter.and_if(
        "id IN (SELECT policy_id FROM policy_namespaces WHERE namespace IN (?, '*'))",
        wanted.namespace.as_ref(),
    );
    let rows: Rows<Row> = filter.page(read, &Row::select(""), "id", page).await?;
    rows.map(Row::into_domain)
}

/// The policies that come after this one, as they are signed.
pub(super) async fn grants(
    read: &mut Read,
    after: Uuid,
    limit: u32,
) -> Result<Vec<Grant>, StorageError> {
    let rows: Vec<Row> = fetch!(fetch_all, read, PAGE, after, i64::from(limit))?;
    let grant =
        |row: Row| Grant { id: row.id, text: row.text(), name: row.name.clone(), mac: row.mac };
    Ok(rows.into_iter().map(grant).collect())
}

/// Gives a policy's row this MAC in place of the one that it had.
pub(super) async fn sign(tx: &mut Tx, grant: &Grant, mac: &[u8]) -> Result<bool, StorageError> {
    Ok(execute!(tx, SIGN, grant.id, grant.mac.as_deref(), mac)? == 1)
}

impl Row {
    fn of(policy: &Policy) -> Self {
        Self {
            id: policy.id.0,
            name: policy.name.clone(),
            spec: json(&policy.spec),
            generation: policy.generation,
            created_at: millis(policy.created_at),
            updated_at: millis(policy.updated_at),
            mac: None,
        }
    }

    /// All that the row says. The namespaces are in the specification; those of `policy_namespaces` are its index.
    fn text(&self) -> String {
        let Self { id, name, spec, generation, created_at, updated_at, .. } = self;
        json(&("policies", id, name, spec, generation, created_at, updated_at))
    }

    fn is_authentic(&self, read: &Read) -> Result<bool, StorageError> {
        read.is_authentic(Stored("policies", self.id), &self.text(), self.mac.as_deref())
    }

    fn into_domain(self) -> Result<Policy, StorageError> {
        Ok(Policy {
            id: PolicyId(self.id),
            name: self.name,
            spec: Stored("policies", self.id).document(&self.spec)?,
            generation: self.generation,
            created_at: moment(self.created_at),
            updated_at: moment(self.updated_at),
        })
    }
}
