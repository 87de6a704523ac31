//! Lists of certificates: which are wanted, and in which order.

use time::OffsetDateTime;
use uuid::Uuid;

use super::Row;
use crate::domain::certificate::{Certificate, Phase};
use crate::domain::issuer;
use crate::domain::scope::Scope;
use crate::domain::selector::{Condition, Selector};
use crate::storage::engine::query::{Filter, Value};
use crate::storage::engine::{Page, Read, Rows, StorageError, millis};
use crate::storage::tables::certificates::{end, never};

/// Which certificates are wanted; everything that is given must hold.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Of this namespace.
    pub namespace: Option<String>,
    /// Of this name.
    pub name: Option<String>,
    /// Served and valid (or not) at this moment.
    pub ready: Option<(bool, OffsetDateTime)>,
    /// In this phase at this moment.
    pub phase: Option<(Phase, OffsetDateTime)>,
    /// Of the issuer of this name, perhaps of one kind only.
    pub issuer: Option<(Option<issuer::Kind>, String)>,
    /// For this DNS name or IP address.
    pub dns_name: Option<String>,
    /// Ending before this moment.
    pub expires_before: Option<OffsetDateTime>,
    /// Ending after this moment.
    pub expires_after: Option<OffsetDateTime>,
    /// Admitted in this way ([`AdmittedBy::parts`](crate::domain::policy::AdmittedBy::parts)).
    pub admitted_way: Option<&'static str>,
    /// With labels that it takes.
    pub selector: Selector,
}

/// An order of certificates other than by age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// By name.
    Name,
    /// By the end of what is served; those without come after all others.
    NotAfter,
}

/// Where a certificate stands in an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Position {
    Name(String, Uuid),
    /// In milliseconds.
    NotAfter(i64, Uuid),
}

impl Position {
    /// The position of a certificate.
    pub fn of(certificate: &Certificate, sort: Sort) -> Self {
        let id = certificate.id.0;
        match sort {
            Sort::Name => Self::Name(certificate.name.clone(), id),
            Sort::NotAfter => {
                let end = certificate.current.as_ref().map(|issued| millis(issued.not_after));
                Self::NotAfter(end.unwrap_or(i64::MAX), id)
            }
        }
    }
}

impl Sort {
    /// What an index is on; PostgreSQL compares texts by the rules of a language otherwise.
    fn column(self, on_sqlite: bool) -> &'static str {
        match self {
            Self::Name if on_sqlite => "name",
            Self::Name => "name COLLATE \"C\"",
            Self::NotAfter => end!(),
        }
    }
}

/// A page of certificates, by identifier, and so by age.
pub async fn list(
    read: &mut Read,
    scope: &Scope,
    wanted: &Wanted,
    page: Page,
) -> Result<Rows<Certificate>, StorageError> {
    let rows: Rows<Row> = wanted.filter(scope).page(read, &Row::select(""), "id", page).await?;
    rows.map(|row| row.into_domain().map(|(certificate, _)| certificate))
}

/// A page of certificates in another order, after this position; `page.after` is of no account.
pub async fn list_by(
    read: &mut Read,
    scope: &Scope,
    wanted: &Wanted,
    (sort, after): (Sort, Option<Position>),
    page: Page,
) -> Result<Rows<Certificate>, StorageError> {
    let column = sort.column(read.is_sqlite());
    let after = after.map(|position| match position {
        Position::Name(name, id) => (Value::Text(name), id),
        Position::NotAfter(end, id) => (Value::Integer(end), id),
    });
    let filter = wanted.filter(scope);
    let rows: Rows<Row> = filter.page_by(read, &Row::select(""), column, after, page).await?;
    rows.map(|row| row.into_domain().map(|(certificate, _)| certificate))
}

impl Wanted {
    fn filter(&self, scope: &Scope) -> Filter {
        let mut filter = Filter::within("namespace", scope.namespaces());
        filter.and_if("namespace = ?", self.namespace.as_ref());
        filter.and_if("name = ?", self.name.as_ref());
        if let Some((kind, name)) = &self.issuer {
            filter.and_if("issuer_kind = ?", kind.map(issuer::Kind::as_str));
            filter.and("issuer_name = ?", Value::Text(name.clone()));
        }
        filter.and_if("admitted_way = ?", self.admitted_way);
        match self.ready {
            // Nearly all are: walking the index of ends, and sorting what it finds, would cost more than
            // passing over the others. The column by itself is in no index.
            Some((true, now)) => filter.and("not_after > ?", Value::Integer(millis(now))),
            // Few are not: the index has them at its two ends.
            Some((false, now)) => {
                let unready = concat!(
                    "id IN (SELECT id FROM certificates WHERE ",
                    end!(),
                    " = ",
                    never!(),
                    " UNION ALL SELECT id FROM certificates WHERE ",
                    end!(),
                    " <= ?)"
                );
                filter.and(unready, Value::Integer(millis(now)));
            }
            None => {}
        }
        if let Some((phase, now)) = self.phase {
            in_phase(&mut filter, phase, now);
        }
        if self.expires_before.is_some() || self.expires_after.is_some() {
            filter.and_that(concat!(end!(), " < ", never!()));
        }
        filter.and_if(concat!(end!(), " < ?"), self.expires_before.map(millis));
        filter.and_if(concat!(end!(), " > ?"), self.expires_after.map(millis));
        filter.and_if(
            "id IN (SELECT certificate_id FROM certificate_names WHERE name = ?)",
            self.dns_name.as_ref(),
        );
        selected(&mut filter, &self.selector);
        filter
    }
}

/// What [`Certificate::phase`] says, in SQL; a test compares the two.
fn in_phase(filter: &mut Filter, phase: Phase, now: OffsetDateTime) {
    const REVOKED: &str = "EXISTS (SELECT 1 FROM revocations WHERE certificate_id = certificates.id
        AND revocations.revision = certificates.revision AND revocations.state = 'done')";
    const NOT_REVOKED: &str =
        "NOT EXISTS (SELECT 1 FROM revocations WHERE certificate_id = certificates.id
        AND revocations.revision = certificates.revision AND revocations.state = 'done')";
    let now = Value::Integer(millis(now));
    match phase {
        Phase::Failed => return filter.and_that("state = 'backoff'"),
        Phase::Blocked => return filter.and_that("state = 'blocked'"),
        Phase::Issuing => filter.and_that(concat!(end!(), " = ", never!())),
        Phase::Expired => filter.and(concat!(end!(), " <= ?"), now),
        Phase::Ready | Phase::Renewing | Phase::Revoked => filter.and("not_after > ?", now),
    }
    match phase {
        Phase::Ready => filter.and_that("state = 'idle'"),
        Phase::Renewing => filter.and_that("state IN ('triggered', 'awaiting_issuer', 'ordering')"),
        _ => filter.and_that("state NOT IN ('backoff', 'blocked')"),
    }
    match phase {
        Phase::Revoked => filter.and_that(REVOKED),
        Phase::Ready | Phase::Renewing => filter.and_that(NOT_REVOKED),
        _ => {}
    }
}

fn selected(filter: &mut Filter, selector: &Selector) {
    for term in &selector.terms {
        let labels = |values: &[String]| -> Vec<String> {
            values.iter().map(|value| format!("{}={value}", term.key)).collect()
        };
        let key = || Value::Text(format!("{}=", term.key));
        match &term.condition {
            Condition::In(values) => filter.among(
                "id IN (SELECT certificate_id FROM certificate_labels WHERE label IN (?))",
                &labels(values),
            ),
            Condition::NotIn(values) => filter.among(
                "NOT EXISTS (SELECT 1 FROM certificate_labels
                    WHERE certificate_id = certificates.id AND label IN (?))",
                &labels(values),
            ),
            Condition::Exists => filter.and(
                "EXISTS (SELECT 1 FROM certificate_labels
                    WHERE certificate_id = certificates.id AND SUBSTR(label, 1, LENGTH(?)) = ?)",
                key(),
            ),
            Condition::Absent => filter.and(
                "NOT EXISTS (SELECT 1 FROM certificate_labels
                    WHERE certificate_id = certificates.id AND SUBSTR(label, 1, LENGTH(?)) = ?)",
                key(),
            ),
        }
    }
}
