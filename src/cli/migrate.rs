//! `certwright migrate`

use super::{Source, block_on, print};
use crate::bootstrap;
use crate::config::Config;
use crate::storage::Migrated;

pub(super) fn run(source: &Source) -> anyhow::Result<()> {
    let config = Config::parse(&source.values(&[])?)?;
    block_on(&config.clone(), async move {
        let db = bootstrap::database(&config).await?;
        let (dialect, Migrated { from, to, is_former }) = (db.dialect(), db.migrated());
        let done = match from {
            former if is_former => format!(
                "took over the {dialect} database of former version {former} (its version is {to} now)"
            ),
            0 => format!("made the schema of the {dialect} database (version {to})"),
            from if from == to => format!("the {dialect} database is up to date (version {to})"),
            from => format!("brought the {dialect} database from version {from} to {to}"),
        };
        print(&format!("certwright: {done}\n"))?;
        db.close().await;
        Ok(())
    })
}
