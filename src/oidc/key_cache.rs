//! The cached keys of one issuer: fetched by one request at a time, and no more often than once a minute, whatever
//! `kid`s are made up.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use jsonwebtoken::DecodingKey;
use time::{Duration, OffsetDateTime};

use super::discovery::Discovery;
use super::key_set::KeySet;
use super::token::Unverified;

/// Keys that are older are fetched anew, so that one that the issuer has withdrawn stops counting.
const FRESH: Duration = Duration::hours(1);

/// Keys that are older do not count, should the issuer be away for so long.
const STALE: Duration = Duration::hours(24);

/// Pause between two fetches.
const PAUSE: Duration = Duration::minutes(1);

/// The same while there are no keys at all.
const PAUSE_WITHOUT: Duration = Duration::seconds(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyError {
    /// The issuer has no such key.
    Unknown,
    /// It cannot be told which keys the issuer has.
    Unavailable,
}

pub(super) struct KeyCache {
    discovery: Discovery,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    keys: Option<(KeySet, OffsetDateTime)>,
    /// The beginning of the last fetch that has ended, and whether it failed.
    asked: Option<(OffsetDateTime, bool)>,
    fetching: Option<Shared<BoxFuture<'static, ()>>>,
}

/// What a look at the cache came to.
enum Step {
    Use(DecodingKey),
    Fail(KeyError),
    Wait(Shared<BoxFuture<'static, ()>>),
}

impl KeyCache {
    pub(super) fn new(discovery: Discovery) -> Self {
        Self { discovery, state: Arc::default() }
    }

    /// The key that a token says it was signed with.
    pub(super) async fn key(
        &self,
        token: &Unverified<'_>,
        now: OffsetDateTime,
    ) -> Result<DecodingKey, KeyError> {
        // At most one fetch lies between two looks, and after it there is nothing more to wait for.
        for _ in 0..2 {
            match self.look(token, now) {
                Step::Use(key) => return Ok(key),
                Step::Fail(error) => return Err(error),
                Step::Wait(fetched) => fetched.await,
            }
        }
        Err(KeyError::Unavailable)
    }

    fn look(&self, token: &Unverified<'_>, now: OffsetDateTime) -> Step {
        let mut state = lock(&self.state);
        let found = state.keys.as_ref().map(|(keys, since)| {
            (keys.find(token.key_id.as_deref(), token.algorithm), now - *since)
        });
        let asked = state.asked.map(|(at, failed)| (now - at, failed));
        let age = found.as_ref().map(|(_, age)| *age);
        let key = found.and_then(|(key, _)| key);
        match decide(key.is_some(), age, asked) {
            Decision::Use => key.map_or(Step::Fail(KeyError::Unknown), Step::Use),
            Decision::Fail(error) => Step::Fail(error),
            Decision::Fetch => {
                let under_way = state.fetching.take().filter(|fetch| fetch.peek().is_none());
                let fetching = under_way.unwrap_or_else(|| self.fetch(now));
                state.fetching = Some(fetching.clone());
                Step::Wait(fetching)
            }
        }
    }

    /// Begins to fetch, whether or not the request that wants it is still there when the answer comes.
    fn fetch(&self, now: OffsetDateTime) -> Shared<BoxFuture<'static, ()>> {
        let (discovery, state) = (self.discovery.clone(), Arc::clone(&self.state));
        let task = tokio::spawn(async move {
            let fetched = discovery.keys().await;
            let mut state = lock(&state);
            state.fetching = None;
            match fetched {
                Ok(keys) => {
                    state.keys = Some((keys, now));
                    state.asked = Some((now, false));
                }
                Err(error) => {
                    state.asked = Some((now, true));
                    let (issuer, error) = (discovery.issuer(), &error as &dyn std::error::Error);
                    tracing::warn!(
                        issuer,
                        error,
                        "the keys of an OIDC issuer could not be fetched"
                    );
                }
            }
        });
        task.map(|_| ()).boxed().shared()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    Use,
    Fetch,
    Fail(KeyError),
}

/// What to do for a token, given whether its key is cached, how old the cached keys are, and how long ago they were
/// asked for, with whether that failed.
fn decide(known: bool, age: Option<Duration>, asked: Option<(Duration, bool)>) -> Decision {
    let pause = if age.is_none() { PAUSE_WITHOUT } else { PAUSE };
    let may_ask = asked.is_none_or(|(since, _)| since >= pause);
    let has_failed = asked.is_some_and(|(_, failed)| failed);
    match age {
        Some(age) if known && age < FRESH => Decision::Use,
        _ if may_ask => Decision::Fetch,
        Some(age) if known && age < STALE => Decision::Use,
        Some(age) if age < STALE && !has_failed => Decision::Fail(KeyError::Unknown),
        _ => Decision::Fail(KeyError::Unavailable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_asked_for_when_they_are_old_or_lack_one_and_not_too_often() {
        let (s, m, h) = (Duration::seconds, Duration::minutes, Duration::hours);
        let unknown = Decision::Fail(KeyError::Unknown);
        let away = Decision::Fail(KeyError::Unavailable);
        for (known, age, asked, expected) in [
            // Nothing is cached.
            (false, None, None, Decision::Fetch),
            (false, None, Some((s(9), true)), away),
            (false, None, Some((s(10), true)), Decision::Fetch),
            // The key is cached.
            (true, Some(m(59)), Some((m(59), false)), Decision::Use),
            (true, Some(h(1)), Some((h(1), false)), Decision::Fetch),
            (true, Some(h(1)), Some((s(59), true)), Decision::Use),
            (true, Some(h(23)), Some((s(60), true)), Decision::Fetch),
            (true, Some(h(24)), Some((s(59), true)), away),
            // It is not.
            (false, Some(s(59)), Some((s(59), false)), unknown),
            (false, Some(m(1)), Some((m(1), false)), Decision::Fetch),
            (false, Some(m(5)), Some((s(59), true)), away),
            (false, Some(h(25)), Some((s(59), true)), away),
        ] {
            assert_eq!(decide(known, age, asked), expected, "{known} {age:?} {asked:?}");
        }
    }
}
