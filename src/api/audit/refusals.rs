//! What was refused, or failed, counted: the first of its kind within a minute is an entry at once, and the others
//! are one entry together when the minute is over. Nobody fills the log by being refused.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::audit::{Entry, Outcome};
use crate::domain::id::AuditId;
use crate::storage::{Db, StorageError, audit};

/// Kinds that are told apart within a minute; beyond that all others are one.
const MOST: usize = 10_000;

/// The refusals of the present minute. A cheap handle.
#[derive(Clone, Default)]
pub struct Refusals(Arc<Mutex<Minute>>);

#[derive(Default)]
struct Minute {
    number: i64,
    kinds: HashMap<Kind, Repeated>,
}

/// Refusals that are counted together. Whoever is not authenticated may ask for anything, so that the action is told
/// apart for principals only.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    /// The address, of IPv6 a /64.
    pub(super) network: Option<IpAddr>,
    pub(super) principal: Option<(Uuid, String)>,
    pub(super) outcome: Outcome,
}

/// What came after the first of its kind.
#[derive(Debug)]
struct Repeated {
    last: Entry,
    more: i64,
}

impl Repeated {
    /// Another one of the kind. A namespace is told where all of them are of it.
    fn add(&mut self, entry: Entry) {
        let is_elsewhere = self.more > 0 && self.last.namespace != entry.namespace;
        let namespace = if is_elsewhere { String::new() } else { entry.namespace.clone() };
        self.more += 1;
        self.last = Entry { namespace, ..entry };
    }
}

impl Refusals {
    /// Counts a refusal, and writes down what is to be written now.
    pub(super) async fn count(&self, db: &Db, kind: Kind, entry: Entry) {
        let now = entry.at;
        let entries = self.0.lock().count(kind, entry);
        write_or_tell(db, now, &entries).await;
    }

    /// Writes down what was counted in minutes that are over; at the end of the service, whatever was counted.
    pub async fn write_counted(&self, db: &Db, now: OffsetDateTime, is_last: bool) {
        let entries = self.0.lock().ended(now, is_last);
        write_or_tell(db, now, &entries).await;
    }
}

impl Minute {
    /// The entries to be written now that this one has come.
    fn count(&mut self, kind: Kind, entry: Entry) -> Vec<Entry> {
        let mut due = self.ended(entry.at, false);
        let outcome = kind.outcome;
        let kind = if self.kinds.len() < MOST || self.kinds.contains_key(&kind) {
            kind
        } else {
            Kind { network: None, principal: None, outcome }
        };
        if let Some(known) = self.kinds.get_mut(&kind) {
            known.add(entry);
        } else {
            self.kinds.insert(kind, Repeated { last: entry.clone(), more: 0 });
            due.push(entry);
        }
        due
    }

    /// Begins a new minute unless it is still the same; returns what the former has counted.
    fn ended(&mut self, now: OffsetDateTime, is_last: bool) -> Vec<Entry> {
        let number = now.unix_timestamp().div_euclid(60);
        if number == self.number && !is_last {
            return Vec::new();
        }
        self.number = number;
        let counted = std::mem::take(&mut self.kinds);
        let repeated = counted.into_values().filter(|repeated| repeated.more > 0);
        repeated.map(|Repeated { last, more }| Entry { count: more, ..last }).collect()
    }
}

async fn write_or_tell(db: &Db, now: OffsetDateTime, entries: &[Entry]) {
    if entries.is_empty() {
        return;
    }
    if let Err(error) = write(db, now, entries).await {
        let error = &error as &dyn std::error::Error;
        let lost = entries.len();
        tracing::error!(error, lost, "refusals could not be written to the audit log");
    }
}

async fn write(db: &Db, now: OffsetDateTime, entries: &[Entry]) -> Result<(), StorageError> {
    let mut tx = db.begin();
    for entry in entries {
        // By the time when it is written: whoever seals looks at the latest identifiers.
        let id = AuditId::generate(now).0;
        audit::insert(&mut tx, &Entry { id, ..entry.clone() }).await?;
    }
    tx.commit().await
}

#[cfg(test)]
mod tests {
    use time::Duration;
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);

    fn entry(at: OffsetDateTime) -> Entry {
        Entry {
            id: Uuid::nil(),
            at,
            principal: None,
            from: None,
            action: "certificates.read".into(),
            resource: String::new(),
            namespace: String::new(),
            outcome: Outcome::Refused,
            reason: None,
            request_id: String::new(),
            count: 1,
        }
    }

    fn from(address: u32) -> Kind {
        let network = Some(IpAddr::V4(address.into()));
        Kind { network, principal: None, outcome: Outcome::Refused }
    }

    fn counts(entries: &[Entry]) -> Vec<i64> {
        entries.iter().map(|entry| entry.count).collect()
    }

    #[test]
    fn the_first_is_told_at_once_and_the_others_when_their_minute_is_over() {
        let mut minute = Minute::default();
        let told: Vec<_> = (0..5).map(|_| counts(&minute.count(from(1), entry(NOW)))).collect();
        assert_eq!(told, [vec![1], vec![], vec![], vec![], vec![]]);
        assert_eq!(counts(&minute.count(from(2), entry(NOW))), [1], "another address");
        assert!(minute.ended(NOW + Duration::seconds(59), false).is_empty());

        let next = NOW + Duration::minutes(1);
        assert_eq!(counts(&minute.count(from(1), entry(next))), [4, 1]);
        assert!(minute.ended(next, true).is_empty(), "nothing came after the first");
    }

    #[test]
    fn what_is_counted_together_has_a_namespace_if_all_of_it_is_of_one() {
        for (namespaces, told) in
            [(&["a", "b", "b"][..], "b"), (&["a", "b", "c", "b"], ""), (&["a", "b", "b", "c"], "")]
        {
            let mut minute = Minute::default();
            for namespace in namespaces {
                minute.count(from(1), Entry { namespace: (*namespace).into(), ..entry(NOW) });
            }
            assert_eq!(minute.ended(NOW, true)[0].namespace, told, "{namespaces:?}");
        }
    }

    #[test]
    fn an_end_of_the_service_tells_of_a_minute_that_is_not_over() {
        let mut minute = Minute::default();
        for _ in 0..3 {
            minute.count(from(1), entry(NOW));
        }
        assert_eq!(counts(&minute.ended(NOW, true)), [2]);
    }

    #[test]
    fn a_flood_from_everywhere_is_bounded() {
        let mut minute = Minute::default();
        let flood = 3 * u32::try_from(MOST).unwrap();
        let told: usize = (0..flood).map(|n| minute.count(from(n), entry(NOW)).len()).sum();
        assert_eq!((told, minute.kinds.len()), (MOST + 1, MOST + 1));
    }
}
