//! `certwright openapi`

use crate::api;

pub(super) fn run() -> anyhow::Result<()> {
    println!("{}", api::document().to_pretty_json()?);
    Ok(())
}
