//! `certwright help --man`: the man pages.

use std::path::Path;

use anyhow::Context as _;
use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

const SEE_ALSO: &str = "The command line as one page, the settings, and the operations manual are in /usr/share/doc/certwright.";

/// Writes `certwright.1` and a page for each command, such as `certwright-serve.1`, into a folder that exists.
pub(super) fn write(mut command: Command, folder: &Path) -> anyhow::Result<()> {
    command.build();
    pages(&command, folder)
}

fn pages(command: &Command, folder: &Path) -> anyhow::Result<()> {
    for one in command.get_subcommands().filter(|one| !one.is_hide_set()) {
        pages(one, folder)?;
    }
    let examples = command.get_after_help().map(ToString::to_string);
    let man = Man::new(command.clone()).source("certwright").manual("certwright");
    let page = folder.join(man.get_filename());
    let mut text = Vec::new();
    render(&man, command, examples.as_deref(), &mut text)
        .and_then(|()| std::fs::write(&page, &text))
        .with_context(|| {
            format!("{} cannot be written: the folder has to exist, and be yours", page.display())
        })
}

fn render(
    man: &Man,
    command: &Command,
    examples: Option<&str>,
    out: &mut Vec<u8>,
) -> std::io::Result<()> {
    man.render_title(out)?;
    man.render_name_section(out)?;
    man.render_synopsis_section(out)?;
    man.render_description_section(out)?;
    man.render_options_section(out)?;
    if command.get_subcommands().any(|one| !one.is_hide_set()) {
        man.render_subcommands_section(out)?;
    }
    if let Some(examples) = examples {
        let mut section = Roff::new();
        // Lines would run together in a paragraph.
        section.control("SH", ["EXAMPLES"]).control("nf", []);
        for line in examples.strip_prefix("Examples:\n").unwrap_or(examples).lines() {
            section.text([roman(line)]);
        }
        section.control("fi", []).to_writer(out)?;
    }
    let mut section = Roff::new();
    section.control("SH", ["FILES"]).text([roman(SEE_ALSO)]);
    section.to_writer(out)
}
