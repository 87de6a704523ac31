//! Writing the records of one zone, as many as are wanted at a time in one call.
//!
//! What is wanted goes into a queue; one task per zone takes everything from it, makes one call,
//! and hands each caller its own answer. It lives only while there is something to do. Nobody
//! holds a lock during a call, and a caller that goes away takes only its own answer with it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

use super::api::Api;
use super::error::ApiError;
use super::pace::{Pace, Waiting};
use super::records;
use crate::solver::Upcoming;

/// Records in one call: what Cloudflare's free plan takes.
const MAX_RECORDS: usize = 200;

/// More than Cloudflare would take within the time that a caller waits.
const MAX_QUEUE: usize = 20_000;

/// A TXT record to write.
#[derive(Debug, Clone, Serialize)]
pub(super) struct NewRecord {
    #[serde(rename = "type")]
    kind: &'static str,
    name: String,
    content: String,
    ttl: u32,
    comment: String,
}

impl NewRecord {
    /// A TXT record; content is quoted, because Cloudflare stores it so.
    pub(super) fn txt(name: &str, value: &str, comment: String) -> Self {
        let content = format!("\"{value}\"");
        Self { kind: "TXT", name: name.to_owned(), content, ttl: 60, comment }
    }
}

type Answer<T> = oneshot::Sender<Result<T, ApiError>>;

enum Change {
    Create { record: NewRecord, answer: Answer<String> },
    Delete { id: String, answer: Answer<()> },
}

impl Change {
    /// Whether it is to write what is there.
    fn wants(&self, known: &records::Txt) -> bool {
        match self {
            Self::Create { record, .. } => known.is(&record.name, record.content.trim_matches('"')),
            Self::Delete { .. } => false,
        }
    }
}

#[derive(Serialize)]
struct Batch<'a> {
    deletes: Vec<Id<'a>>,
    posts: Vec<&'a NewRecord>,
}

#[derive(Serialize)]
struct Id<'a> {
    id: &'a str,
}

#[derive(Deserialize)]
struct BatchResult {
    #[serde(default)]
    posts: Vec<Created>,
}

#[derive(Deserialize)]
struct Created {
    id: String,
}

/// Writes and deletes the records of one zone.
pub(super) struct Writer {
    api: Arc<Api>,
    zone: String,
    mark: String,
    queue: Mutex<Queue>,
    arrived: Notify,
    upcoming: Upcoming,
}

#[derive(Default)]
struct Queue {
    creates: VecDeque<Change>,
    deletes: VecDeque<(Instant, Change)>,
    running: bool,
    pace: Pace,
}

impl Queue {
    /// When the next call may be made; `None` when there is nothing to do.
    fn due(&self, is_short: bool, expected: usize, now: Instant) -> Option<Instant> {
        let waiting = Waiting {
            creates: self.creates.len(),
            expected,
            delete_since: self.deletes.front().map(|(since, _)| *since),
            deletes_fill_a_call: self.deletes.len() >= MAX_RECORDS,
        };
        self.pace.due(waiting, is_short, now)
    }

    /// The changes of the next call, creates first.
    fn take(&mut self, now: Instant) -> Vec<Change> {
        // Writing for a caller that is gone would leave a record that nobody remembers.
        self.creates.retain(|change| match change {
            Change::Create { answer, .. } => !answer.is_closed(),
            Change::Delete { .. } => true,
        });
        let creates = self.creates.len().min(MAX_RECORDS);
        self.pace.called(creates, now);
        let deletes = self.deletes.len().min(MAX_RECORDS - creates);
        let mut taken: Vec<Change> = self.creates.drain(..creates).collect();
        taken.extend(self.deletes.drain(..deletes).map(|(_, change)| change));
        taken
    }
}

impl Writer {
    /// A writer of this zone, whose records' comments begin with `mark`.
    pub(super) fn new(api: Arc<Api>, zone: String, mark: String, upcoming: Upcoming) -> Self {
        Self { api, zone, mark, queue: Mutex::default(), arrived: Notify::new(), upcoming }
    }

    /// Writes a record and returns its id.
    pub(super) async fn create(self: &Arc<Self>, record: NewRecord) -> Result<String, ApiError> {
        let (answer, answered) = oneshot::channel();
        self.submit(Change::Create { record, answer })?;
        answered.await.unwrap_or_else(|_| Err(abandoned()))
    }

    /// Deletes a record.
    pub(super) async fn delete(self: &Arc<Self>, id: &str) -> Result<(), ApiError> {
        let (answer, answered) = oneshot::channel();
        self.submit(Change::Delete { id: id.to_owned(), answer })?;
        answered.await.unwrap_or_else(|_| Err(abandoned()))
    }

    fn submit(self: &Arc<Self>, change: Change) -> Result<(), ApiError> {
        let mut queue = self.lock();
        if queue.creates.len() + queue.deletes.len() >= MAX_QUEUE {
            let reason = format!("{MAX_QUEUE} changes of this zone are waiting already");
            return Err(ApiError::Unusable { status: None, reason });
        }
        match &change {
            Change::Create { .. } => queue.creates.push_back(change),
            Change::Delete { .. } => queue.deletes.push_back((Instant::now(), change)),
        }
        if queue.running {
            self.arrived.notify_one();
        } else {
            queue.running = true;
            tokio::spawn(run(Running { writer: Arc::clone(self), finished: false }));
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn perform(&self, changes: Vec<Change>) {
        let mut parts = vec![changes];
        while let Some(mut part) = parts.pop() {
            match (part.len(), part.pop()) {
                (_, None) => {}
                (1, Some(change)) => self.perform_one(change).await,
                (_, Some(change)) => {
                    part.push(change);
                    parts.extend(self.perform_together(part).await);
                }
            }
        }
    }

    /// One call for many changes. A batch is one transaction: when something is wrong with one of
    /// them, all are refused, and come back in smaller parts to be tried, down to single calls.
    async fn perform_together(&self, changes: Vec<Change>) -> Vec<Vec<Change>> {
        let path = ["zones", &self.zone, "dns_records", "batch"];
        let answer = self.api.post::<BatchResult>(&path, &batch(&changes)).await;
        match answer {
            Ok(result) => {
                // Answers come in the order of the requests.
                let mut ids = result.posts.into_iter().map(|created| created.id);
                for change in changes {
                    match change {
                        Change::Create { answer, .. } => {
                            tell(answer, ids.next().ok_or_else(no_id));
                        }
                        Change::Delete { answer, .. } => tell(answer, Ok(())),
                    }
                }
                Vec::new()
            }
            Err(error) if error.says_record_exists() => self.adopt_what_exists(changes).await,
            Err(error) if error.may_concern_one_record() => parts_of(changes),
            Err(error) => {
                for change in changes {
                    match change {
                        Change::Create { answer, .. } => tell(answer, Err(error.clone())),
                        Change::Delete { answer, .. } => tell(answer, Err(error.clone())),
                    }
                }
                Vec::new()
            }
        }
    }

    /// After a crash, everything that was written is wanted again: one look at what this
    /// installation has in the zone answers that, and spares a call for each record.
    async fn adopt_what_exists(&self, changes: Vec<Change>) -> Vec<Vec<Change>> {
        let filter = ("comment.startswith", self.mark.as_str());
        let Ok(ours) = records::list(&self.api, &self.zone, filter).await else {
            return parts_of(changes);
        };
        let count = changes.len();
        let mut rest = Vec::new();
        for change in changes {
            let known = ours.iter().find(|known| change.wants(known));
            match (change, known) {
                (Change::Create { answer, .. }, Some(known)) => tell(answer, Ok(known.id.clone())),
                (change, _) => rest.push(change),
            }
        }
        if rest.len() == count { parts_of(rest) } else { vec![rest] }
    }

    async fn perform_one(&self, change: Change) {
        match change {
            Change::Create { record, answer } => {
                let path = ["zones", &self.zone, "dns_records"];
                let created = self.api.post::<Created>(&path, &record).await;
                tell(answer, created.map(|created| created.id));
            }
            Change::Delete { id, answer } => {
                let path = ["zones", &self.zone, "dns_records", &id];
                tell(answer, self.api.delete(&path).await);
            }
        }
    }
}

/// The task that empties a queue. Should it panic or be dropped with its runtime, the callers learn
/// it by their closed channels, and the next one starts a new task.
struct Running {
    writer: Arc<Writer>,
    finished: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.finished {
            let mut queue = self.writer.lock();
            queue.running = false;
            queue.creates.clear();
            queue.deletes.clear();
        }
    }
}

async fn run(mut task: Running) {
    let writer = Arc::clone(&task.writer);
    loop {
        let due = {
            let is_short = writer.api.is_short_of_calls();
            let mut queue = writer.lock();
            let due = queue.due(is_short, writer.upcoming.count(), Instant::now());
            if due.is_none() {
                queue.running = false;
                task.finished = true;
            }
            due
        };
        let Some(due) = due else { return };
        let newcomer =
            due > Instant::now() && timeout_at(due, writer.arrived.notified()).await.is_ok();
        if !newcomer {
            let changes = writer.lock().take(Instant::now());
            writer.perform(changes).await;
        }
    }
}

fn batch(changes: &[Change]) -> Batch<'_> {
    let mut batch = Batch { deletes: Vec::new(), posts: Vec::new() };
    for change in changes {
        match change {
            Change::Create { record, .. } => batch.posts.push(record),
            Change::Delete { id, .. } => batch.deletes.push(Id { id }),
        }
    }
    batch
}

/// Creates apart from deletes, else halves: a few bad ones among 200 are found in a few calls.
fn parts_of(changes: Vec<Change>) -> Vec<Vec<Change>> {
    let (mut creates, mut deletes): (Vec<_>, Vec<_>) =
        changes.into_iter().partition(|change| matches!(change, Change::Create { .. }));
    if creates.is_empty() {
        let rest = deletes.split_off(deletes.len() / 2);
        return vec![rest, deletes];
    }
    if deletes.is_empty() {
        let rest = creates.split_off(creates.len() / 2);
        return vec![rest, creates];
    }
    vec![deletes, creates]
}

fn tell<T>(answer: Answer<T>, result: Result<T, ApiError>) {
    // A caller that no longer listens repeats its wish when it comes back.
    drop(answer.send(result));
}

fn abandoned() -> ApiError {
    ApiError::Unusable { status: None, reason: "the call was given up".to_owned() }
}

fn no_id() -> ApiError {
    ApiError::Unusable {
        status: None,
        reason: "the answer to a batch lacks the id of a record".to_owned(),
    }
}
