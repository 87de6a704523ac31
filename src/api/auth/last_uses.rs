//! The day of an API key's last use. It is written in the background and once a day, so that no request waits for it.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;

use time::{Date, Time};

use crate::api::AppState;
use crate::domain::id::ApiKeyId;
use crate::storage::{Db, StorageError, api_keys};
use crate::telemetry::LogLimit;

/// Keys that are remembered at most; beyond that some are written down more often.
const MOST: usize = 100_000;

/// The keys whose use today is written down. A cheap handle.
#[derive(Clone, Default)]
pub struct LastUses(Arc<Mutex<Today>>);

#[derive(Default)]
struct Today {
    day: Option<Date>,
    used: HashSet<ApiKeyId>,
}

impl LastUses {
    /// Has the use of a key written down, if it is the first one of the day.
    pub(super) fn note(&self, app: &AppState, key: ApiKeyId) {
        let day = app.now().date();
        if !self.today(|today| today.is_first_use(key, day)) {
            return;
        }
        let (uses, db) = (self.clone(), app.db.clone());
        tokio::spawn(async move {
            if let Err(error) = write(&db, key, day).await {
                static LIMIT: LogLimit = LogLimit::new();
                if let Some(left_out) = LIMIT.pass() {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(%key, error, left_out, "the use of an API key could not be written down");
                }
                // The next request tries again.
                uses.today(|today| today.used.remove(&key));
            }
        });
    }

    fn today<T>(&self, look: impl FnOnce(&mut Today) -> T) -> T {
        look(&mut self.0.lock())
    }
}

impl Today {
    fn is_first_use(&mut self, key: ApiKeyId, day: Date) -> bool {
        if self.day != Some(day) || self.used.len() >= MOST {
            *self = Self { day: Some(day), used: HashSet::new() };
        }
        self.used.insert(key)
    }
}

async fn write(db: &Db, key: ApiKeyId, day: Date) -> Result<(), StorageError> {
    let mut tx = db.begin();
    api_keys::used(&mut tx, key, day.with_time(Time::MIDNIGHT).assume_utc()).await?;
    tx.commit().await
}

#[cfg(test)]
mod tests {
    use time::macros::{date, datetime};

    use super::*;

    #[test]
    fn only_the_first_use_of_a_day_is_written_down() {
        let mut today = Today::default();
        let [one, other] = [1, 2].map(|_| ApiKeyId::generate(datetime!(2026-11-24 12:00 UTC)));
        let (day, next) = (date!(2026 - 11 - 24), date!(2026 - 11 - 25));

        let uses = [(one, day), (one, day), (other, day), (one, next), (one, next)];
        let written = uses.map(|(key, day)| today.is_first_use(key, day));
        assert_eq!(written, [true, false, true, true, false]);
    }
}
