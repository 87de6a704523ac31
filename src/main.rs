//! The `certwright` binary.

use std::process::ExitCode;

use certwright::cli::{Cli, message, status_of};
use clap::Parser as _;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Fails only when a provider is installed already.
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(message) = message(&error) {
                eprintln!("certwright: error: {message}");
            }
            ExitCode::from(status_of(&error))
        }
    }
}
