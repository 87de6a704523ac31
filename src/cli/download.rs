//! `certwright download`, and writing private files.

use std::fs::{self, DirBuilder, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use super::exit::Complaint;
use super::output::text;
use super::remote::{Session, Within};
use crate::client::{Ask, Client, ClientError};
use crate::manifest::kind::Kind;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  certwright download www > fullchain.pem
  certwright download www --format privkey -o /etc/ssl/private/www.pem
  certwright download www --format p12 --password-file pw.txt -o www.p12
  certwright download www --revision 3 --format cert

Files are written atomically; those with a key in them with the mode 0600.")]
pub(super) struct Download {
    /// The certificate
    name: String,
    /// What of it
    #[arg(long, value_enum, default_value = "fullchain")]
    format: Format,
    /// Where to [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Which revision [default: the one that is served]
    #[arg(long, value_name = "N")]
    revision: Option<u32>,
    /// A file with the password of a keystore
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    #[command(flatten)]
    place: Within,
}

/// What of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// The certificate and its chain, PEM
    Fullchain,
    /// The certificate alone, PEM
    Cert,
    /// The chain above it, PEM
    Chain,
    /// The private key, PEM
    Privkey,
    /// Key, certificate and chain, PEM
    Combined,
    /// The certificate alone, DER
    Der,
    /// A PKCS #12 keystore
    P12,
    /// A Java keystore
    Jks,
}

impl Format {
    /// Its name in the API, and as a file.
    pub(super) fn file(self) -> &'static str {
        match self {
            Self::Fullchain => "fullchain.pem",
            Self::Cert => "cert.pem",
            Self::Chain => "chain.pem",
            Self::Privkey => "privkey.pem",
            Self::Combined => "combined.pem",
            Self::Der => "cert.der",
            Self::P12 => "keystore.p12",
            Self::Jks => "keystore.jks",
        }
    }

    fn is_keystore(self) -> bool {
        matches!(self, Self::P12 | Self::Jks)
    }

    fn holds_key(self) -> bool {
        matches!(self, Self::Privkey | Self::Combined | Self::P12 | Self::Jks)
    }
}

impl Download {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        if self.format.is_keystore() && self.password_file.is_none() {
            let problem = "a keystore has a password: say with --password-file where it stands";
            return Err(Complaint::usage(problem));
        }
        let password = self.password_file.as_deref().map(fs::read_to_string).transpose();
        let password = password.context("the password file cannot be read")?;
        let namespace = session.within(&self.place);
        let found = session.find(Kind::Certificate, Some(&namespace), &self.name).await?;
        let id = text(&found, "/id");
        let password = password.as_deref().map(str::trim_end);
        let bytes = fetch(&session.client, &id, self.format, self.revision, password).await?;
        match &self.output {
            Some(path) => write_file(path, &bytes, self.format.holds_key()),
            None => Ok(std::io::stdout().write_all(&bytes)?),
        }
    }
}

/// Downloads one form of a certificate.
pub(super) async fn fetch(
    client: &Client,
    id: &str,
    format: Format,
    revision: Option<u32>,
    password: Option<&str>,
) -> Result<Vec<u8>, ClientError> {
    let path = format!("/certificates/{id}/{}", format.file());
    let revision = revision.map(|number| number.to_string());
    let query: Vec<_> = revision.iter().map(|number| ("revision", number.as_str())).collect();
    let headers: Vec<_> = password.iter().map(|word| ("x-keystore-password", *word)).collect();
    client.bytes(Ask { query: &query, headers: &headers, ..Ask::get(&path) }).await
}

/// Writes a file so that it is there wholly or as before, for its owner alone if it is private. The
/// folder is made if it is missing.
pub(super) fn write_file(path: &Path, bytes: &[u8], private: bool) -> anyhow::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| Path::new("."));
    let write = || -> std::io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(bytes)?;
        let mode = if private { 0o600 } else { 0o644 };
        file.as_file().set_permissions(Permissions::from_mode(mode))?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    write().with_context(|| format!("{} cannot be written", path.display()))
}
