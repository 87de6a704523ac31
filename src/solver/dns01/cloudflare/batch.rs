//! Writing the records of one zone, as many as are wanted at a time in one call.
//!
//! What is wanted goes into a queue; one task per zone takes everything from it, makes one call,
//! and hands each caller its own answer. It lives only while there is something to do. Nobody
//! holds a lock during a call, and a caller that goes away takes only its own answer with it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

use super::answer::{id, written};
use super::api::Api;
use super::error::ApiError;
use super::pace::{Pace, Waiting};
use super::records;
use super::setback::Setback;
use crate::solver::Upcoming;

/// Records in one call: what Cloudflare's free plan takes.
const MAX_RECORDS: usize = 200;

/// More than Cloudflare would take within the time that a caller waits.
const MAX_QUEUE: usize = 20_000;

/// Calls that look for what is wrong with a refused batch; whoever is not reached by then tries again
/// later. Halving 200 records leads to one of them, and back to the rest, within as many.
const MAX_SEARCH: u32 = 24;

/// Whoever was not reached by a search tries again after this long.
const AFTER_SEARCH: time::Duration = time::Duration::seconds(5);

/// So many records that are refused one after the other, with none between that is taken, mean that it
/// is not the records.
const REFUSED: u32 = 3;

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
    fn is_create(&self) -> bool {
        matches!(self, Self::Create { .. })
    }

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

/// Writes and deletes the records of one zone.
pub(super) struct Writer {
    api: Arc<Api>,
    zone: String,
    mark: String,
    queue: Mutex<Queue>,
    arrived: Notify,
    upcoming: Upcoming,
    /// Writing, in this zone: deletes go on.
    setback: Setback,
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
        let (queue, setback) = (Mutex::default(), Setback::default());
        Self { api, zone, mark, queue, arrived: Notify::new(), upcoming, setback }
    }

    /// Writes a record and returns its id.
    pub(super) async fn create(self: &Arc<Self>, record: NewRecord) -> Result<String, ApiError> {
        if let Some(held) = self.setback.holds(self.api.now()) {
            return Err(held);
        }
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
        let mut search = Search::default();
        let mut parts = vec![self.not_held(changes)];
        while let Some(part) = parts.pop() {
            match search.over.clone() {
                Some(error) => tell_all(part, &error),
                None => parts.extend(self.perform_part(part, &mut search).await),
            }
        }
    }

    /// Those that wait for nothing. The others came while it was found out that nothing can be written.
    fn not_held(&self, mut changes: Vec<Change>) -> Vec<Change> {
        if let Some(held) = self.setback.holds(self.api.now()) {
            tell_all(changes.extract_if(.., |change| change.is_create()).collect(), &held);
        }
        changes
    }

    /// One call; what comes back is to be tried in smaller parts.
    async fn perform_part(&self, mut part: Vec<Change>, search: &mut Search) -> Vec<Vec<Change>> {
        search.calls += u32::from(!part.is_empty());
        match part.pop() {
            None => Vec::new(),
            Some(change) if part.is_empty() => {
                self.perform_one(change, search).await;
                Vec::new()
            }
            Some(change) => {
                part.push(change);
                self.perform_together(part, search).await
            }
        }
    }

    /// One call for many changes. A batch is one transaction: when something is wrong with one of
    /// them, all are refused, and come back in smaller parts to be tried, down to single calls.
    async fn perform_together(
        &self,
        changes: Vec<Change>,
        search: &mut Search,
    ) -> Vec<Vec<Change>> {
        let path = ["zones", &self.zone, "dns_records", "batch"];
        let error = match self.api.post(&path, &batch(&changes)).await {
            Ok(result) => {
                self.note_success(&changes, search);
                // Answers come in the order of the requests.
                let mut ids = written(&result).into_iter();
                for change in changes {
                    match change {
                        Change::Create { answer, .. } => {
                            tell(answer, ids.next().flatten().ok_or_else(no_id));
                        }
                        Change::Delete { answer, .. } => tell(answer, Ok(())),
                    }
                }
                return Vec::new();
            }
            Err(error) => error,
        };
        if !error.may_concern_one_record() || search.calls >= MAX_SEARCH {
            let error = self.for_others(error);
            search.over = Some(error.clone());
            tell_all(changes, &error);
            return Vec::new();
        }
        if error.says_record_exists() && !std::mem::replace(&mut search.has_adopted, true) {
            return self.adopt_what_exists(changes).await;
        }
        parts_of(changes)
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

    async fn perform_one(&self, change: Change, search: &mut Search) {
        let done = match &change {
            Change::Create { record, .. } => {
                let path = ["zones", &self.zone, "dns_records"];
                let created = self.api.post(&path, record).await;
                created.and_then(|created| created.as_object().and_then(id).ok_or_else(no_id))
            }
            Change::Delete { id, .. } => {
                let path = ["zones", &self.zone, "dns_records", id];
                self.api.delete(&path).await.map(|()| String::new())
            }
        };
        match &done {
            Ok(_) => self.note_success(std::slice::from_ref(&change), search),
            Err(error) => self.note_failure(error, &change, search),
        }
        match change {
            Change::Create { answer, .. } => {
                // Whoever found out that nothing can be written waits like those who were told.
                let waits = done.as_ref().is_err_and(|error| !error.says_record_exists());
                let held = search.over.clone().filter(|_| waits);
                tell(answer, held.map_or(done, Err));
            }
            Change::Delete { answer, .. } => tell(answer, done.map(drop)),
        }
    }

    fn note_success(&self, changes: &[Change], search: &mut Search) {
        if changes.iter().any(Change::is_create) {
            search.refused = 0;
            self.setback.over();
        } else {
            self.setback.room_was_made();
        }
    }

    /// What the refusal of a single change means for the others of its batch, and for the zone.
    fn note_failure(&self, error: &ApiError, change: &Change, search: &mut Search) {
        let is_create = change.is_create();
        if error.says_record_exists() || error.says_one_record_is_gone() {
            if search.calls >= MAX_SEARCH {
                search.over = Some(self.for_others(error.clone()));
            }
            return;
        }
        if !error.may_concern_one_record() {
            search.over = Some(error.clone());
            return;
        }
        search.refused += u32::from(is_create);
        if is_create && (error.says_zone_is_full() || search.refused >= REFUSED) {
            search.over = Some(self.setback.again(error.clone(), self.api.now()));
        } else if search.calls >= MAX_SEARCH {
            search.over = Some(error.clone());
        }
    }

    /// What others are told of a refusal. That one record is there, or is gone, says nothing of theirs.
    fn for_others(&self, error: ApiError) -> ApiError {
        if !error.says_record_exists() && !error.says_one_record_is_gone() {
            return error;
        }
        ApiError::Limited {
            status: None,
            retry_at: self.api.now() + AFTER_SEARCH,
            reason: "Cloudflare refused a batch for another of its records, and the search for it ended \
                     before this one."
                .to_owned(),
        }
    }
}

/// What is known of a batch's refusal so far.
#[derive(Default)]
struct Search {
    calls: u32,
    /// Records in a row that were refused by themselves.
    refused: u32,
    has_adopted: bool,
    /// What everybody is told who is left.
    over: Option<ApiError>,
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
        changes.into_iter().partition(Change::is_create);
    if creates.is_empty() {
        let rest = deletes.split_off(deletes.len() / 2);
        return vec![rest, deletes];
    }
    if deletes.is_empty() {
        let rest = creates.split_off(creates.len() / 2);
        return vec![rest, creates];
    }
    // The last is tried first: what is deleted makes room.
    vec![creates, deletes]
}

fn tell_all(changes: Vec<Change>, error: &ApiError) {
    for change in changes {
        match change {
            Change::Create { answer, .. } => tell(answer, Err(error.clone())),
            Change::Delete { answer, .. } => tell(answer, Err(error.clone())),
        }
    }
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
