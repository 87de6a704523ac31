//! `certwright migrate`

use super::{Source, block_on, print};
use crate::bootstrap;
use crate::config::Config;

pub(super) fn run(source: &Source) -> anyhow::Result<()> {
    let config = Config::parse(&source.values(&[])?)?;
    block_on(&config.clone(), async move {
        let db = bootstrap::database(&config).await?;
        print(&format!("certwright: the {} database's schema is up to date\n", db.dialect()))?;
        db.close().await;
        Ok(())
    })
}
