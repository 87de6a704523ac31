//! `certwright login` and `certwright logout`: people, by an OIDC issuer that the server trusts.

use clap::Args;
use serde_json::Value;

use super::exit::Complaint;
use super::output::{note, print};
use super::remote::{Remote, run};
use super::token_file::{Stored, TokenFile};
use crate::client::{Client, Credentials, DeviceLogin, LoginIssuer};

#[derive(Debug, Args)]
pub(super) struct Login {
    /// The issuer, where the server knows several
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
}

impl Login {
    pub(super) fn run(self, remote: &Remote) -> anyhow::Result<()> {
        let server = remote.server()?;
        let file = token_file(&server)?;
        run(async {
            let client = Client::new(&server, Credentials::default())?;
            let at = self.choose(&client.get("/oidc-issuers", &[]).await?)?;
            let login = DeviceLogin::begin(at.clone()).await?;
            let code = &login.code;
            let place = code.verification_uri_complete.as_ref().unwrap_or(&code.verification_uri);
            note(&format!("open {place} and confirm the code {}", code.user_code));
            let login = login.finish().await?;
            file.write(&Stored { server: server.clone(), at, login })?;
            print(&format!("logged in to {server}\n"))
        })
    }

    fn choose(&self, listed: &Value) -> anyhow::Result<LoginIssuer> {
        let all: Vec<LoginIssuer> = serde_json::from_value(listed["items"].clone())?;
        let wanted =
            |one: &&LoginIssuer| self.issuer.as_ref().is_none_or(|issuer| *issuer == one.issuer);
        match all.iter().filter(wanted).collect::<Vec<_>>()[..] {
            [one] => Ok(one.clone()),
            [] => {
                let problem = "people cannot log in by such an issuer here: the server's `oidc.issuers` has none with a `cli_client_id`; use an API key";
                Err(Complaint::NotFound(problem.to_owned()).into())
            }
            _ => {
                let names: Vec<_> = all.iter().map(|one| one.issuer.as_str()).collect();
                let problem = format!("choose one by `--issuer`: {}", names.join(", "));
                Err(Complaint::Usage(problem).into())
            }
        }
    }
}

/// Forgets the tokens for the server.
pub(super) fn logout(remote: &Remote) -> anyhow::Result<()> {
    let server = remote.server()?;
    let was_there = token_file(&server)?.remove()?;
    print(&format!(
        "{} {server}\n",
        if was_there { "logged out of" } else { "was not logged in to" }
    ))
}

fn token_file(server: &str) -> anyhow::Result<TokenFile> {
    let file = TokenFile::of(server);
    file.ok_or_else(|| Complaint::Usage("set HOME: tokens are kept below it".to_owned()).into())
}
