//! What stands in the database, and what happens when somebody else has written there.

pub(crate) mod grants;
pub(crate) mod sealed;
pub(crate) mod transit;

use crate::support::databases::sqlite_url;
use crate::support::postgres::fresh_database;

/// Runs a scenario on a database of each kind.
async fn on_both<F: Future<Output = ()>>(scenario: impl Fn(String) -> F) {
    let (_folder, url) = sqlite_url();
    scenario(url).await;
    scenario(fresh_database().await).await;
}
