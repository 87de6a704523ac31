//! `certwright config`

use clap::Args;

use super::{Source, print};
use crate::config::{self, Config};

#[derive(Debug, Args)]
pub(super) struct Show {
    /// Describe every setting instead, as the table of docs/configuration.md
    #[arg(long)]
    markdown: bool,
}

impl Show {
    pub(super) fn run(self, source: &Source) -> anyhow::Result<()> {
        if self.markdown {
            return print(&config::markdown());
        }
        let values = source.values(&[])?;
        print(&config::toml(&values))?;
        // A setting that cannot be used is shown all the same, and then reported.
        Config::parse(&values)?;
        Ok(())
    }
}
