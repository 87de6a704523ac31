//! The lines of a report, and what came of all of them.

use crate::cli::output::{Colour, paint, print};

#[derive(Default)]
pub(super) struct Report {
    pub(super) all: u32,
    pub(super) warned: u32,
    pub(super) failed: u32,
}

impl Report {
    /// What came of it, in one line.
    pub(super) fn summary(&self) -> String {
        let Self { all, warned, failed } = self;
        let warnings = match warned {
            0 => String::new(),
            1 => ", with a warning".to_owned(),
            _ => format!(", with {warned} warnings"),
        };
        match failed {
            0 => format!("{all} checks, none failed{warnings}"),
            _ => format!("{failed} of {all} checks failed{warnings}"),
        }
    }

    fn line(&mut self, word: &str, colour: Colour, what: &str, text: &str) -> anyhow::Result<()> {
        self.all += 1;
        let padding = " ".repeat(6_usize.saturating_sub(word.len()));
        print(&format!("{}{padding}{what}: {text}\n", paint(colour, word)))
    }

    pub(super) fn ok(&mut self, what: &str, text: &str) -> anyhow::Result<()> {
        self.line("ok", Colour::Green, what, text)
    }

    pub(super) fn warn(&mut self, what: &str, text: &str) -> anyhow::Result<()> {
        self.warned += 1;
        self.line("warn", Colour::Yellow, what, text)
    }

    pub(super) fn fail(&mut self, what: &str, text: &str) -> anyhow::Result<()> {
        self.failed += 1;
        self.line("fail", Colour::Red, what, text)
    }
}
