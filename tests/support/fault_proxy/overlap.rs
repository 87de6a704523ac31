//! Requests that are under way at the same time: how many are waited for, and how many the CA bears.

use std::collections::HashMap;
use std::time::Duration;

use super::{FaultProxy, Kind, Shared};

#[derive(Default)]
pub(super) struct Overlap {
    now: HashMap<Kind, usize>,
    /// None of this kind goes on before so many are under way.
    awaited: Option<(Kind, usize)>,
    /// More new orders than this are refused, with this pause.
    bears: Option<(usize, Duration)>,
    /// New orders under way that were not refused.
    borne: usize,
}

impl FaultProxy {
    /// No request of this kind is answered before so many of them are under way.
    pub fn await_at_once(&self, kind: Kind, count: usize) {
        self.shared.state().overlap.awaited = Some((kind, count));
    }

    /// From now on a new order that comes while so many are under way is refused with 429.
    pub fn bear_new_orders(&self, count: usize, pause: Duration) {
        self.shared.state().overlap.bears = Some((count, pause));
    }
}

impl Overlap {
    /// The pause that one more new order is told, where it is one too many.
    pub(super) fn one_too_many(&self) -> Option<Duration> {
        self.bears.filter(|(count, _)| self.borne >= *count).map(|(_, pause)| pause)
    }

    /// One more is there of which is known whether it goes on; whether it is a new order that does, and whether all that were
    /// awaited are there.
    fn arrive(&mut self, kind: Kind, goes_on: bool) -> (bool, bool) {
        let is_borne = goes_on && kind == Kind::NewOrder;
        self.borne += usize::from(is_borne);
        let now = self.now.entry(kind).or_default();
        *now += 1;
        let are_all_there = self.awaited == Some((kind, *now));
        if are_all_there {
            self.awaited = None;
        }
        (is_borne, are_all_there)
    }
}

/// A request that is under way.
pub(super) struct UnderWay<'a> {
    shared: &'a Shared,
    kind: Kind,
    /// Whether it is one of the new orders that the CA bears.
    is_borne: bool,
}

impl<'a> UnderWay<'a> {
    /// One more, of which was decided whether it goes on, under the lock of the decision: none that is waited for ends
    /// before that of the last one.
    pub(super) fn new(
        shared: &'a Shared,
        overlap: &mut Overlap,
        kind: Kind,
        goes_on: bool,
    ) -> Self {
        let (is_borne, are_all_there) = overlap.arrive(kind, goes_on);
        if are_all_there {
            shared.all_there.notify_waiters();
        }
        Self { shared, kind, is_borne }
    }

    /// Waits for the others.
    pub(super) async fn together(&self) {
        let all_there = self.shared.all_there.notified();
        let is_awaited =
            matches!(self.shared.state().overlap.awaited, Some((kind, _)) if kind == self.kind);
        if is_awaited {
            all_there.await;
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let overlap = &mut self.shared.state().overlap;
        *overlap.now.entry(self.kind).or_default() -= 1;
        overlap.borne -= usize::from(self.is_borne);
    }
}

/// Counts a client that waits for an answer that does not come, for as long as it does.
pub(super) struct Hanging<'a>(&'a Shared);

impl<'a> Hanging<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        shared.state().hanging += 1;
        Self(shared)
    }
}

impl Drop for Hanging<'_> {
    fn drop(&mut self) {
        self.0.state().hanging -= 1;
    }
}
