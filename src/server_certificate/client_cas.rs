//! The file with the CAs of client certificates.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::read;
use crate::server::{ClientCas, Tls};

pub(super) struct ClientCaFile {
    path: PathBuf,
    /// The bytes that count.
    trusted: Option<Vec<u8>>,
    /// Why the last look found nothing to trust.
    trouble: Option<String>,
}

impl ClientCaFile {
    /// Reads the file, which must be there.
    pub(super) async fn open(path: &Path, tls: &Tls) -> anyhow::Result<Self> {
        let mut this = Self { path: path.to_owned(), trusted: None, trouble: None };
        this.look(tls).await?;
        Ok(this)
    }

    /// Looks once; what is new, or goes wrong in another way than before, is told in the log. A file that cannot be used
    /// changes nothing.
    pub(super) async fn refresh(&mut self, tls: &Tls) {
        match self.look(tls).await {
            Ok(is_new) => {
                self.trouble = None;
                if is_new {
                    tracing::info!(file = %self.path.display(), "client certificates are verified by other CAs");
                }
            }
            Err(error) => {
                let error = format!("{error:#}");
                if self.trouble.as_ref() != Some(&error) {
                    tracing::warn!(
                        error,
                        "client certificates are verified by the CAs that were there before"
                    );
                    self.trouble = Some(error);
                }
            }
        }
    }

    /// Whether there were other CAs, which count from now on.
    async fn look(&mut self, tls: &Tls) -> anyhow::Result<bool> {
        let pem = read(&self.path).await?;
        if self.trusted.as_ref() == Some(&pem) {
            return Ok(false);
        }
        let cas = ClientCas::from_pem(&pem).with_context(|| self.path.display().to_string())?;
        tls.trust(&cas)?;
        self.trusted = Some(pem);
        Ok(true)
    }
}
