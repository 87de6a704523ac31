//! The `certwright` binary.

use std::io::Write as _;
use std::process::ExitCode;

use certwright::cli::{Cli, complete, message, status_of};
use clap::Parser as _;

fn main() -> ExitCode {
    // Fails only when a provider is installed already.
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    if complete() {
        return ExitCode::SUCCESS;
    }
    let cli = Cli::parse();
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(message) = message(&error) {
                // A closed standard error is ignored.
                writeln!(std::io::stderr(), "certwright: error: {message}").ok();
            }
            ExitCode::from(status_of(&error))
        }
    }
}
