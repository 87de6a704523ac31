//! Events as they happen: server-sent events, read from the database.
//!
//! Nothing queues in memory. A notification only says that there is something to read, which comes
//! in pages, one at a time, when the client has taken the page before: a slow reader costs one page,
//! and is served from where it stands.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::http::{HeaderValue, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use tokio::sync::watch;
use tokio::time::Instant;

use super::EventView;
use crate::api::AppState;
use crate::api::auth::{EventsRead, Place, Principal, Source};
use crate::api::headers::X_ACCEL_BUFFERING;
use crate::api::problem::ApiError;
use crate::storage::event_stream::{Position, between, end, resume};
use crate::storage::events::{Recorded, Wanted};
use crate::storage::{Scope, StorageError};
use crate::telemetry::LogLimit;

/// Events that are held in memory for one reader at most.
const PAGE: u32 = 100;

/// Interval of heartbeats: proxies close connections that are silent for longer. The principal is looked up again, too.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Interval of looking without a notification, which may get lost between replicas.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Interval of looking for events that an open transaction keeps back: no further notification comes for them.
const LOOK_SOON: Duration = Duration::from_millis(200);

/// Reconnection time for a client that lost the stream.
const RETRY: Duration = Duration::from_secs(1);

/// Streams the events after `last_seen`, else from `wanted.since` on, else from now on.
pub(super) async fn follow(
    app: AppState,
    who: &Principal,
    wanted: Wanted,
    last_seen: Option<Position>,
) -> Result<Response, ApiError> {
    let place = app.limits.stream(who.subject.id())?;
    // Subscribes before the first look, so that nothing is missed in between.
    let news = app.db.signals().events();
    let mut tx = app.db.read().await?;
    let at = match last_seen {
        Some(position) => resume(&mut tx, position).await?,
        None if wanted.since.is_some() => Position::START,
        None => end(&mut tx).await?.position,
    };
    drop(tx);
    let (who, scope) = (who.clone(), who.scope.clone());
    let keys = app.db.key_changes();
    let next_beat = Instant::now() + HEARTBEAT;
    let page = VecDeque::new();
    let follower = Follower {
        app,
        who,
        scope,
        wanted,
        at,
        read_up_to: at,
        page,
        news,
        keys,
        next_beat,
        _place: place,
    };
    let first = heartbeat(at).retry(RETRY);
    let events = stream::unfold((follower, Some(first)), async |(mut follower, first)| {
        let event = match first {
            Some(first) => first,
            None => follower.next().await?,
        };
        Some((Ok::<_, Infallible>(event), (follower, None)))
    });
    let mut response = Sse::new(events).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    Ok(response)
}

/// One reader of the stream.
struct Follower {
    app: AppState,
    who: Principal,
    scope: Scope,
    wanted: Wanted,
    /// Everything up to here was sent, or is not wanted.
    at: Position,
    /// The same, once the page is sent.
    read_up_to: Position,
    page: VecDeque<Recorded>,
    news: watch::Receiver<()>,
    keys: watch::Receiver<u64>,
    next_beat: Instant,
    _place: Option<Place>,
}

impl Follower {
    /// The next event to send. Ends when the service stops, the principal is revoked, or the database
    /// is away: the client reconnects, and continues after the last event that it saw.
    async fn next(&mut self) -> Option<Event> {
        match self.try_next().await {
            Ok(event) => event,
            Err(error) => {
                static LIMIT: LogLimit = LogLimit::new();
                if let Some(left_out) = LIMIT.pass() {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, left_out, "a stream of events ends early");
                }
                None
            }
        }
    }

    async fn try_next(&mut self) -> Result<Option<Event>, StorageError> {
        loop {
            if self.app.shutdown.is_cancelled() {
                return Ok(None);
            }
            let is_time = Instant::now() >= self.next_beat;
            let source = if is_time { Source::Database } else { Source::Cache };
            let still = self.who.still::<EventsRead>(&self.app, source).await?;
            let Some(scope) = still else { return Ok(None) };
            if scope != self.scope {
                // The page may hold events that the subject may not see any more.
                self.scope = scope;
                self.page.clear();
                self.read_up_to = self.at;
            }
            if is_time {
                self.next_beat = Instant::now() + HEARTBEAT;
                return Ok(Some(heartbeat(self.at)));
            }
            if let Some(event) = self.page.pop_front() {
                self.at = event.position();
                return Ok(Some(shown(event)));
            }
            self.at = self.read_up_to;
            self.news.mark_unchanged();
            let held_back = self.read().await?;
            if !self.page.is_empty() {
                continue;
            }
            self.at = self.read_up_to;
            let pause = if held_back { LOOK_SOON } else { LOOK_EVERY };
            let until = self.next_beat.min(Instant::now() + pause);
            tokio::select! {
                () = self.app.shutdown.cancelled() => {}
                _ = self.keys.changed() => {}
                // A notification and the timeout both lead to another look.
                _ = tokio::time::timeout_at(until, self.news.changed()) => {}
            }
        }
    }

    /// Fetches the next page; returns whether open transactions hold back more.
    async fn read(&mut self) -> Result<bool, StorageError> {
        let mut tx = self.app.db.read().await?;
        let end = end(&mut tx).await?;
        if end.position > self.at {
            let stretch = (self.at, end.position);
            let rows = between(&mut tx, &self.scope, &self.wanted, stretch, PAGE).await?;
            self.read_up_to = match rows.last() {
                Some(last) if rows.len() == PAGE as usize => last.position(),
                _ => end.position,
            };
            self.page = rows.into();
        }
        Ok(end.held_back)
    }
}

/// Carries the reader's position, so that a reader that was sent no event yet can continue from there.
fn heartbeat(at: Position) -> Event {
    Event::default().id(at.to_string()).comment("")
}

/// An event under the name of the collection that its resource belongs to.
fn shown(event: Recorded) -> Event {
    let id = event.position().to_string();
    let name = event.collection.clone();
    // A plain struct of ours always serialises.
    let data = serde_json::to_string(&EventView::from(event)).unwrap_or_default();
    Event::default().id(id).event(name).data(data)
}
