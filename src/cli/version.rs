//! `certwright version`

use clap::Args;
use serde_json::{Value, json};

use super::output::{self, note, print, text};
use super::remote::{Remote, run};

pub(super) const EXAMPLES: &str = "Examples:
  certwright version
  certwright version --client
  certwright version -o json";

#[derive(Debug, Args)]
pub(super) struct Version {
    /// Only this program's
    #[arg(long)]
    client: bool,
    /// How to print it
    #[arg(short, long, value_name = "FORMAT", value_parser = ["json", "yaml"])]
    output: Option<String>,
}

impl Version {
    pub(super) fn run(self, remote: &Remote) -> anyhow::Result<()> {
        let session = remote.session()?;
        run(async {
            let mut versions = json!({"clientVersion": env!("CARGO_PKG_VERSION")});
            let server =
                if self.client { None } else { Some(session.client.get("/version", &[]).await) };
            match server {
                Some(Ok(server)) => {
                    versions["serverVersion"] = text(&server, "/version").into();
                    versions["apiVersion"] = text(&server, "/apiVersion").into();
                }
                Some(Err(error)) => {
                    note(&format!("certwright: the server's is not known: {error}"));
                }
                None => {}
            }
            print(&match self.output.as_deref() {
                Some("json") => output::json(&versions),
                Some(_) => output::yaml(&versions),
                None => lines(&versions),
            })
        })
    }
}

fn lines(versions: &Value) -> String {
    let line = |title: &str, field: &str| match text(versions, field).as_str() {
        "" => String::new(),
        version => format!("{title}: v{version}\n"),
    };
    [
        line("Client Version", "/clientVersion"),
        line("Server Version", "/serverVersion"),
        line("API Version", "/apiVersion"),
    ]
    .concat()
}
