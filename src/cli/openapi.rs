//! `certwright openapi`

use super::print;
use crate::api;

pub(super) fn run() -> anyhow::Result<()> {
    print(&format!("{}\n", api::document().to_pretty_json()?))
}
