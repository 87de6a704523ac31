//! Tokens of people who are logged in: a file for each server, which nobody else may read.

use std::fs::{self, DirBuilder, File};
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use anyhow::Context as _;
use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::output::now;
use super::remote::run;
use crate::client::{Login, LoginIssuer};
use crate::secret::Secret;

/// A token is renewed so many seconds before its end.
const EARLY: i64 = 30;

/// Where the tokens for one server are.
pub(super) struct TokenFile(PathBuf);

/// What stands there.
#[derive(Serialize, Deserialize)]
pub(super) struct Stored {
    pub(super) server: String,
    pub(super) at: LoginIssuer,
    pub(super) login: Login,
}

impl TokenFile {
    /// The file for a server; `None` where a user has no home.
    pub(super) fn of(server: &str) -> Option<Self> {
        let hash = digest(&SHA256, server.trim_end_matches('/').as_bytes());
        let (first, _) = hash.as_ref().split_first_chunk().unwrap_or((&[0; 8], &[]));
        let name = format!("{:016x}", u64::from_be_bytes(*first));
        let folder = super::remote::folder()?.join("certwright/tokens");
        Some(Self(folder.join(format!("{name}.json"))))
    }

    /// A token that counts, if somebody is logged in.
    pub(super) fn bearer(&self) -> anyhow::Result<Option<Secret<String>>> {
        let Some(stored) = self.read()? else { return Ok(None) };
        if now().unix_timestamp() + EARLY < stored.login.expires_at() {
            return Ok(Some(Secret::new(stored.login.bearer)));
        }
        self.renewed().map(Some)
    }

    /// Of commands that run at the same time one renews: some issuers take a refresh token only once.
    fn renewed(&self) -> anyhow::Result<Secret<String>> {
        let folder = self.0.parent().context("the tokens have a folder")?;
        let lock = File::open(folder)?;
        lock.lock()?;
        let stored = self.read()?.context("somebody has logged out; run `certwright login`")?;
        if now().unix_timestamp() + EARLY < stored.login.expires_at() {
            return Ok(Secret::new(stored.login.bearer));
        }
        let Stored { server, at, login } = stored;
        // A thread of its own: some commands run in a runtime already.
        let (at, renewed) = std::thread::spawn(move || {
            let mut renewed = None;
            run(async {
                renewed = Some(login.renewed(&at).await?);
                Ok(())
            })?;
            anyhow::Ok((at, renewed))
        })
        .join()
        .map_err(|_| anyhow::anyhow!("the token could not be renewed"))?
        .context("the login has ended; run `certwright login`")?;
        let login = renewed.context("the token could not be renewed")?;
        let bearer = Secret::new(login.bearer.clone());
        self.write(&Stored { server, at, login })?;
        Ok(bearer)
    }

    fn read(&self) -> anyhow::Result<Option<Stored>> {
        if !self.0.exists() {
            return Ok(None);
        }
        let shown = self.0.display();
        let text = fs::read(&self.0).with_context(|| format!("{shown} cannot be read"))?;
        let stored = serde_json::from_slice(&text);
        stored.map(Some).with_context(|| {
            format!("{shown} cannot be used; run `certwright logout`, and `certwright login` again")
        })
    }

    /// Replaces the file as a whole; it has mode 0600 from the beginning.
    pub(super) fn write(&self, stored: &Stored) -> anyhow::Result<()> {
        let folder = self.0.parent().context("the tokens have a folder")?;
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(&serde_json::to_vec(stored)?)?;
        file.persist(&self.0).with_context(|| format!("{} cannot be written", self.0.display()))?;
        Ok(())
    }

    /// Forgets the tokens; says whether there were any.
    pub(super) fn remove(&self) -> anyhow::Result<bool> {
        match fs::remove_file(&self.0) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
