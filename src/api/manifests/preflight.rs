//! Warnings of what in the DNS would have the CA refuse an applied certificate; no transaction is open meanwhile.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::time::{Instant, timeout_at};

use super::plan::{Item, Wanted};
use super::{AppliedObject, Done};
use crate::api::problem::ApiError;
use crate::api::{AppState, PreflightSubject};

/// Names that one request has looked up at most; orders look all of theirs up themselves.
const MOST_NAMES: usize = 100;

/// Certificates that are looked at side by side, and the time for all of them: a client waits.
const AT_ONCE: usize = 8;
const WITHIN: Duration = Duration::from_secs(5);

/// Adds warnings to the results for certificates that are new or changed. A replay under the same `Idempotency-Key` has
/// none of them: they are of the moment.
pub(super) async fn warn(
    app: &AppState,
    items: &[Item],
    results: &mut [AppliedObject],
) -> Result<(), ApiError> {
    let mut looks = Vec::new();
    for (place, subject) in subjects(app, items, results).await? {
        let look = (app.preflight)(subject);
        looks.push(async move { (place, look.await) });
    }
    let mut looks = stream::iter(looks).buffer_unordered(AT_ONCE);
    let deadline = Instant::now() + WITHIN;
    // Who is late is not warned of.
    while let Ok(Some((place, warnings))) = timeout_at(deadline, looks.next()).await {
        if let Some(result) = results.get_mut(place) {
            result.warnings.extend(warnings);
        }
    }
    Ok(())
}

/// The certificates that are looked at, by their places.
async fn subjects(
    app: &AppState,
    items: &[Item],
    results: &[AppliedObject],
) -> Result<Vec<(usize, PreflightSubject)>, ApiError> {
    let mut left = MOST_NAMES;
    let mut subjects = Vec::new();
    // What was left out has no result; the others stand in the same order.
    let mut items = items.iter();
    for (place, told) in results.iter().enumerate() {
        let Some(item) = items.find(|item| item.is_told_by(told)) else { break };
        let Wanted::Certificate(_, _, checked, _) = &item.wanted else { continue };
        if told.result == Done::Unchanged || left == 0 {
            continue;
        }
        // In a dry run, one of the same stream is not there.
        let Some(issuer) = checked.find_issuer(&mut app.db.read().await?).await? else { continue };
        let mut names = checked.spec.dns_names.clone();
        names.truncate(left);
        left -= names.len();
        let (namespace, labels) = (checked.namespace.clone(), checked.labels.clone());
        subjects.push((place, PreflightSubject { issuer, namespace, labels, names }));
    }
    Ok(subjects)
}
