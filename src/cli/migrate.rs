//! `certwright migrate`

use super::{Source, block_on};
use crate::bootstrap;
use crate::config::Config;

pub(super) fn run(source: &Source) -> anyhow::Result<()> {
    let config = Config::parse(&source.values(&[])?)?;
    block_on(&config.clone(), async move {
        let db = bootstrap::database(&config).await?;
        println!("certwright: the {} database's schema is up to date", db.dialect());
        db.close().await;
        Ok(())
    })
}
