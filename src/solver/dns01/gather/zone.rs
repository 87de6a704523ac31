//! The queue of one zone, and the task that empties it.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

use super::{NewRecord, Records, Refusal};
use crate::domain::challenge::Record;
use crate::domain::trace::Trace;
use crate::solver::Upcoming;
use crate::solver::dns01::pace::{Pace, Waiting};
use crate::solver::dns01::setback::Setback;
use crate::telemetry::trace;

/// More than a provider would take within the time that a caller waits.
const MAX_QUEUE: usize = 20_000;

/// Calls that look for what is wrong with a refused batch; the changes that are not reached by then are
/// tried again later. Halving 200 records leads to one of them, and back to the rest, within as many.
const MAX_SEARCH: u32 = 24;

/// Pause of the changes that a search did not reach.
const AFTER_SEARCH: time::Duration = time::Duration::seconds(5);

/// Records refused one after the other, with none accepted between them, after which the fault is not
/// the records'.
const REFUSED: u32 = 3;

type Answer<T, E> = oneshot::Sender<Result<T, E>>;

enum Change<E> {
    Create { record: NewRecord, answer: Answer<String, E>, trace: Option<Trace> },
    Delete { id: String, answer: Answer<(), E> },
}

impl<E> Change<E> {
    fn is_create(&self) -> bool {
        matches!(self, Self::Create { .. })
    }

    /// What a record is created for.
    fn trace(&self) -> Option<Trace> {
        match self {
            Self::Create { trace, .. } => *trace,
            Self::Delete { .. } => None,
        }
    }

    /// Whether it is to create what is there.
    fn wants(&self, known: &Record) -> bool {
        match self {
            Self::Create { record, .. } => record.name == known.name && record.value == known.value,
            Self::Delete { .. } => false,
        }
    }
}

struct Queue<E> {
    creates: VecDeque<Change<E>>,
    deletes: VecDeque<(Instant, Change<E>)>,
    is_running: bool,
    pace: Pace,
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        let (creates, deletes) = (VecDeque::new(), VecDeque::new());
        Self { creates, deletes, is_running: false, pace: Pace::default() }
    }
}

impl<E> Queue<E> {
    fn waiting(&self, together: usize, expected: usize) -> Waiting {
        Waiting {
            creates: self.creates.len(),
            expected,
            delete_since: self.deletes.front().map(|(since, _)| *since),
            deletes_fill_a_call: self.deletes.len() >= together,
        }
    }

    /// The changes of the next call, creates first.
    fn take(&mut self, together: usize, now: Instant) -> Vec<Change<E>> {
        // Writing for a caller that is gone would leave a record that nobody remembers.
        self.creates.retain(|change| match change {
            Change::Create { answer, .. } => !answer.is_closed(),
            Change::Delete { .. } => true,
        });
        let creates = self.creates.len().min(together);
        self.pace.called(creates, now);
        let deletes = self.deletes.len().min(together - creates);
        let mut taken: Vec<_> = self.creates.drain(..creates).collect();
        taken.extend(self.deletes.drain(..deletes).map(|(_, change)| change));
        taken
    }
}

/// The queue of one zone, and how it is emptied.
pub(super) struct Zone<R: Records> {
    records: Arc<R>,
    id: String,
    queue: Mutex<Queue<R::Error>>,
    arrived: Notify,
    upcoming: Upcoming,
    /// Of creates in this zone: deletes go on.
    setback: Setback<R::Error>,
}

/// The search for the bad change of a refused batch.
struct Search<E> {
    calls: u32,
    /// Records in a row that were refused by themselves.
    refused: u32,
    has_adopted: bool,
    /// Ends the search: the changes that are left get this error.
    over: Option<E>,
}

impl<R: Records> Zone<R> {
    pub(super) fn new(records: Arc<R>, id: String, upcoming: Upcoming) -> Self {
        let (queue, arrived) = (Mutex::default(), Notify::new());
        Self { records, id, queue, arrived, upcoming, setback: Setback::default() }
    }

    pub(super) async fn create(self: &Arc<Self>, record: NewRecord) -> Result<String, R::Error> {
        if let Some(held) = self.setback.holds(self.records.now()) {
            return Err(held);
        }
        let (answer, answered) = oneshot::channel();
        self.submit(Change::Create { record, answer, trace: trace::current() })?;
        answered.await.unwrap_or_else(|_| Err(abandoned()))
    }

    pub(super) async fn delete(self: &Arc<Self>, id: &str) -> Result<(), R::Error> {
        let (answer, answered) = oneshot::channel();
        self.submit(Change::Delete { id: id.to_owned(), answer })?;
        answered.await.unwrap_or_else(|_| Err(abandoned()))
    }

    fn submit(self: &Arc<Self>, change: Change<R::Error>) -> Result<(), R::Error> {
        let mut queue = self.queue.lock();
        if queue.creates.len() + queue.deletes.len() >= MAX_QUEUE {
            let reason = format!("{MAX_QUEUE} changes of this zone are waiting already");
            return Err(R::Error::unanswered(reason));
        }
        match &change {
            Change::Create { .. } => queue.creates.push_back(change),
            Change::Delete { .. } => queue.deletes.push_back((Instant::now(), change)),
        }
        if queue.is_running {
            self.arrived.notify_one();
        } else {
            queue.is_running = true;
            tokio::spawn(run(Running { zone: Arc::clone(self), is_finished: false }));
        }
        Ok(())
    }

    async fn perform(&self, changes: Vec<Change<R::Error>>) {
        let mut search = Search { calls: 0, refused: 0, has_adopted: false, over: None };
        let mut parts = vec![self.not_held(changes)];
        while let Some(part) = parts.pop() {
            match search.over.clone() {
                Some(error) => tell_all(part, &error),
                None => parts.extend(self.perform_part(part, &mut search).await),
            }
        }
    }

    /// The changes that wait for nothing. The others came while it was found out that nothing can be
    /// created.
    fn not_held(&self, mut changes: Vec<Change<R::Error>>) -> Vec<Change<R::Error>> {
        if let Some(held) = self.setback.holds(self.records.now()) {
            tell_all(changes.extract_if(.., |change| change.is_create()).collect(), &held);
        }
        changes
    }

    /// One call; what comes back is to be tried in smaller parts.
    async fn perform_part(
        &self,
        mut part: Vec<Change<R::Error>>,
        search: &mut Search<R::Error>,
    ) -> Vec<Vec<Change<R::Error>>> {
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
        changes: Vec<Change<R::Error>>,
        search: &mut Search<R::Error>,
    ) -> Vec<Vec<Change<R::Error>>> {
        let error = match self.change(&changes).await {
            Ok(ids) => {
                self.note_success(&changes, search);
                let mut ids = ids.into_iter();
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

    async fn change(&self, changes: &[Change<R::Error>]) -> Result<Vec<Option<String>>, R::Error> {
        let (mut creates, mut deletes) = (Vec::new(), Vec::new());
        for change in changes {
            match change {
                Change::Create { record, .. } => creates.push(record),
                Change::Delete { id, .. } => deletes.push(id.as_str()),
            }
        }
        self.records.change(&self.id, &creates, &deletes).await
    }

    /// After a crash, everything that was written is wanted again: one look at what this
    /// installation has in the zone answers that, and spares a call for each record.
    async fn adopt_what_exists(
        &self,
        changes: Vec<Change<R::Error>>,
    ) -> Vec<Vec<Change<R::Error>>> {
        let Ok(written) = self.records.written(&self.id).await else { return parts_of(changes) };
        let count = changes.len();
        let mut rest = Vec::new();
        for change in changes {
            let known = written.iter().find(|known| change.wants(known));
            match (change, known) {
                (Change::Create { answer, .. }, Some(known)) => tell(answer, Ok(known.id.clone())),
                (change, _) => rest.push(change),
            }
        }
        if rest.len() == count { parts_of(rest) } else { vec![rest] }
    }

    async fn perform_one(&self, change: Change<R::Error>, search: &mut Search<R::Error>) {
        let done = match &change {
            Change::Create { record, .. } => self.records.create(&self.id, record).await,
            Change::Delete { id, .. } => {
                self.records.delete(&self.id, id).await.map(|()| String::new())
            }
        };
        match &done {
            Ok(_) => self.note_success(std::slice::from_ref(&change), search),
            Err(error) => self.note_failure(error, &change, search),
        }
        match change {
            Change::Create { answer, .. } => {
                // The caller by whom it was found out that nothing can be created waits like those who
                // were told.
                let waits = done.as_ref().is_err_and(|error| !error.says_record_exists());
                let held = search.over.clone().filter(|_| waits);
                tell(answer, held.map_or(done, Err));
            }
            Change::Delete { answer, .. } => tell(answer, done.map(drop)),
        }
    }

    fn note_success(&self, changes: &[Change<R::Error>], search: &mut Search<R::Error>) {
        if changes.iter().any(Change::is_create) {
            search.refused = 0;
            self.setback.over();
        } else {
            self.setback.room_was_made();
        }
    }

    /// Applies the refusal of a single change to the others of its batch, and to the zone.
    fn note_failure(
        &self,
        error: &R::Error,
        change: &Change<R::Error>,
        search: &mut Search<R::Error>,
    ) {
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
            search.over = Some(self.setback.again(error.clone(), self.records.now()));
        } else if search.calls >= MAX_SEARCH {
            search.over = Some(error.clone());
        }
    }

    /// The error for the other changes of a refused batch. That one record exists, or is gone, says
    /// nothing about theirs.
    fn for_others(&self, error: R::Error) -> R::Error {
        if !error.says_record_exists() && !error.says_one_record_is_gone() {
            return error;
        }
        let reason = "A batch was refused for another of its records, and the search for it ended before \
                      this one.";
        R::Error::later(self.records.now() + AFTER_SEARCH, reason.to_owned())
    }
}

/// The task that empties a queue. Should it panic or be dropped with its runtime, the callers learn
/// it by their closed channels, and the next one starts a new task.
struct Running<R: Records> {
    zone: Arc<Zone<R>>,
    is_finished: bool,
}

impl<R: Records> Drop for Running<R> {
    fn drop(&mut self) {
        if !self.is_finished {
            let mut queue = self.zone.queue.lock();
            queue.is_running = false;
            queue.creates.clear();
            queue.deletes.clear();
        }
    }
}

async fn run<R: Records>(mut task: Running<R>) {
    let zone = Arc::clone(&task.zone);
    loop {
        let due = {
            let is_short = zone.records.is_short_of_calls();
            let mut queue = zone.queue.lock();
            let waiting = queue.waiting(R::TOGETHER, zone.upcoming.count());
            let due = queue.pace.due(waiting, is_short, Instant::now());
            if due.is_none() {
                // Under the lock: a caller that comes now starts the next task.
                queue.is_running = false;
                task.is_finished = true;
            }
            due
        };
        let Some(due) = due else { return };
        let has_newcomer =
            due > Instant::now() && timeout_at(due, zone.arrived.notified()).await.is_ok();
        if !has_newcomer {
            let changes = zone.queue.lock().take(R::TOGETHER, Instant::now());
            // A call for several belongs to the first of them.
            let trace = changes.iter().find_map(Change::trace);
            trace::within(trace, zone.perform(changes)).await;
        }
    }
}

/// Creates apart from deletes, else halves: a few bad ones among 200 are found in a few calls.
fn parts_of<E>(changes: Vec<Change<E>>) -> Vec<Vec<Change<E>>> {
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

fn tell_all<E: Refusal>(changes: Vec<Change<E>>, error: &E) {
    for change in changes {
        match change {
            Change::Create { answer, .. } => tell(answer, Err(error.clone())),
            Change::Delete { answer, .. } => tell(answer, Err(error.clone())),
        }
    }
}

fn tell<T, E>(answer: Answer<T, E>, result: Result<T, E>) {
    // A caller that no longer listens repeats its wish when it comes back.
    drop(answer.send(result));
}

fn abandoned<E: Refusal>() -> E {
    E::unanswered("the call was given up".to_owned())
}

fn no_id<E: Refusal>() -> E {
    E::unanswered("the answer to a batch lacks the id of a record".to_owned())
}
