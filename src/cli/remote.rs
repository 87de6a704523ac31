//! The server, API key and namespace of the client's commands.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::exit::Complaint;
use super::token_file::TokenFile;
use crate::client::{Client, Credentials};
use crate::manifest::kind::Kind;
use crate::secret::Secret;

/// Which server, and as whom.
#[derive(Debug, Args)]
#[command(next_help_heading = "Server")]
#[expect(clippy::doc_markdown, reason = "it is shown as it stands")]
pub(super) struct Remote {
    /// The server's address [env: CERTWRIGHT_SERVER] [default: port 8080 of this machine]
    #[arg(long, value_name = "URL", global = true)]
    server: Option<String>,
    /// An API key; other users of this machine can see it here, so that a file is better
    /// [env: CERTWRIGHT_API_KEY]
    #[arg(long, value_name = "KEY", global = true)]
    api_key: Option<String>,
    /// A file with the API key [env: CERTWRIGHT_API_KEY_FILE]
    #[arg(long, value_name = "FILE", global = true)]
    api_key_file: Option<PathBuf>,
    /// A client certificate, PEM with its chain, in place of an API key [env: CERTWRIGHT_CLIENT_CERT]
    #[arg(long, value_name = "FILE", global = true)]
    client_cert: Option<PathBuf>,
    /// Its private key, PEM; left out where it stands in the same file [env: CERTWRIGHT_CLIENT_KEY]
    #[arg(long, value_name = "FILE", global = true)]
    client_key: Option<PathBuf>,
    /// A profile of ~/.config/certwright/config.toml [env: CERTWRIGHT_PROFILE]
    #[arg(long, value_name = "NAME", global = true)]
    profile: Option<String>,
    /// The namespace, where the command does not name another one
    #[arg(short = 'n', long = "namespace", value_name = "NAMESPACE")]
    namespace_before: Option<String>,
}

/// A variable of the environment, unless it is empty. They are not read by clap, whose messages would show them as
/// flags that have to be given.
pub(super) fn from_environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Which namespaces.
#[derive(Debug, Clone, Args)]
pub(super) struct Where {
    /// The namespace [default: that of the profile, or `default`]
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Every namespace
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
}

impl Where {
    /// True if all namespaces are meant.
    pub(super) fn is_everywhere(&self) -> bool {
        self.all_namespaces
    }
}

/// One namespace.
#[derive(Debug, Clone, Args)]
pub(super) struct Within {
    /// The namespace [default: that of the profile, or `default`]
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
}

/// The file with profiles.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// The profile that counts when none is named.
    default: Option<String>,
    #[serde(default)]
    profiles: BTreeMap<String, Profile>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Profile {
    server: Option<String>,
    api_key: Option<Zeroizing<String>>,
    api_key_file: Option<PathBuf>,
    client_cert: Option<PathBuf>,
    client_key: Option<PathBuf>,
    namespace: Option<String>,
}

/// A server to talk to.
pub(super) struct Session {
    pub(super) client: Client,
    namespace: String,
}

impl Remote {
    /// The server that flags, environment and profile agree on.
    pub(super) fn session(&self) -> anyhow::Result<Session> {
        let profile = self.profile()?;
        let given = |flag: &Option<String>, name| flag.clone().or_else(|| from_environment(name));
        let file = |flag: &Option<PathBuf>, name, of_profile: &Option<PathBuf>| {
            let given = flag.clone().or_else(|| from_environment(name).map(PathBuf::from));
            given.or_else(|| of_profile.clone())
        };
        let server = self.address(&profile);
        let certificate = file(&self.client_cert, "CERTWRIGHT_CLIENT_CERT", &profile.client_cert);
        let private_key = file(&self.client_key, "CERTWRIGHT_CLIENT_KEY", &profile.client_key);
        let certificate = read_certificate(certificate, private_key)?;
        let key_file = file(&self.api_key_file, "CERTWRIGHT_API_KEY_FILE", &profile.api_key_file);
        let bearer = match (given(&self.api_key, "CERTWRIGHT_API_KEY"), key_file, profile.api_key) {
            (Some(key), ..) => Some(Secret::new(key)),
            (None, Some(file), _) => Some(read_key(&file)?),
            (None, None, Some(key)) => Some(Secret::new(String::clone(&key))),
            // The certificate says who asks.
            (None, None, None) if certificate.is_some() => None,
            // Somebody who is logged in.
            (None, None, None) => match TokenFile::of(&server) {
                Some(file) => file.bearer()?,
                None => None,
            },
        };
        let client = Client::new(&server, Credentials { bearer, certificate })?;
        let namespace = self.namespace_before.clone().or(profile.namespace);
        Ok(Session { client, namespace: namespace.unwrap_or_else(|| "default".to_owned()) })
    }

    /// The server's address, without asking who one is.
    pub(super) fn server(&self) -> anyhow::Result<String> {
        Ok(self.address(&self.profile()?))
    }

    fn address(&self, profile: &Profile) -> String {
        let given = self.server.clone().or_else(|| from_environment("CERTWRIGHT_SERVER"));
        let given = given.or_else(|| profile.server.clone());
        given.unwrap_or_else(|| "http://127.0.0.1:8080".to_owned())
    }

    /// Runs a command at this server.
    pub(super) fn run(
        &self,
        command: impl AsyncFnOnce(&Session) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let session = self.session()?;
        run(command(&session))
    }

    fn profile(&self) -> anyhow::Result<Profile> {
        let path = folder().map(|folder| folder.join("certwright/config.toml"));
        let file = match &path {
            Some(path) if path.exists() => read_file(path)?,
            _ => File::default(),
        };
        let named = self.profile.clone().or_else(|| from_environment("CERTWRIGHT_PROFILE"));
        let Some(name) = named.or(file.default) else {
            return Ok(Profile::default());
        };
        let place = path.map(|path| path.display().to_string()).unwrap_or_default();
        file.profiles.get(&name).cloned().ok_or_else(|| {
            Complaint::Usage(format!("there is no profile `{name}` in {place}")).into()
        })
    }
}

/// Where a user's settings are (XDG Base Directory Specification).
pub(super) fn folder() -> Option<PathBuf> {
    let named = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    named
        .filter(|path| path.is_absolute())
        .or_else(|| std::env::home_dir().map(|home| home.join(".config")))
}

fn read_file(path: &Path) -> anyhow::Result<File> {
    let shown = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("{shown} cannot be read"))?;
    let text = Zeroizing::new(text);
    // toml's own message shows the line, which may hold a key.
    let file: File = toml::from_str(&text)
        .map_err(|error| anyhow::anyhow!("{shown} cannot be used: {}", error.message()))?;
    let holds_key = file.profiles.values().any(|profile| profile.api_key.is_some());
    if holds_key && fs::metadata(path)?.mode() & 0o077 != 0 {
        bail!("{shown} holds an API key and may be read by others: run `chmod 600 {shown}`");
    }
    Ok(file)
}

fn read_key(path: &Path) -> anyhow::Result<Secret<String>> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("the API key file {} cannot be read", path.display()))?;
    Ok(Secret::new(text.trim().to_owned()))
}

/// A client certificate with its key, PEM.
fn read_certificate(
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
) -> anyhow::Result<Option<Secret<Vec<u8>>>> {
    let Some(certificate) = certificate else {
        return match key {
            None => Ok(None),
            Some(_) => Err(Complaint::usage("its certificate is missing: give --client-cert too")),
        };
    };
    let read = |path: &Path| {
        let text = fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
        anyhow::Ok(Zeroizing::new(text))
    };
    let mut pem = Secret::new(read(&certificate)?.to_vec());
    if let Some(key) = key {
        pem = Secret::new([pem.expose().as_slice(), b"\n", &read(&key)?].concat());
    }
    Ok(Some(pem))
}

impl Session {
    /// The namespace that is meant; none for all of them.
    pub(super) fn namespace(&self, place: &Where) -> Option<String> {
        if place.all_namespaces {
            return None;
        }
        Some(place.namespace.clone().unwrap_or_else(|| self.namespace.clone()))
    }

    /// The namespace where a command names none.
    pub(super) fn own_namespace(&self) -> &str {
        &self.namespace
    }

    /// The one namespace that is meant.
    pub(super) fn within(&self, place: &Within) -> String {
        place.namespace.clone().unwrap_or_else(|| self.namespace.clone())
    }

    /// All resources of a kind, oldest first.
    pub(super) async fn list(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        more: &[(&str, &str)],
    ) -> anyhow::Result<Vec<Value>> {
        let mut query = more.to_vec();
        if kind.is_namespaced() {
            query.extend(namespace.map(|namespace| ("namespace", namespace)));
        }
        query.extend(kind.of_path().map(|word| ("kind", word)));
        Ok(self.client.list(kind.path(), &query).await?)
    }

    /// The resource of this name or identifier.
    pub(super) async fn find(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        name: &str,
    ) -> anyhow::Result<Value> {
        if name.parse::<Uuid>().is_ok() {
            return Ok(self.client.get(&format!("{}/{name}", kind.path()), &[]).await?);
        }
        let found = if kind.has_names() {
            self.list(kind, namespace, &[("name", name)]).await?
        } else {
            Vec::new()
        };
        // A failed request may have the name of its successor.
        found.into_iter().next_back().ok_or_else(|| {
            let place = match namespace {
                Some(namespace) if kind.is_namespaced() => {
                    format!(" in the namespace `{namespace}`")
                }
                _ => String::new(),
            };
            Complaint::NotFound(format!("there is no {} `{name}`{place}", kind.word())).into()
        })
    }
}

/// Runs a client's command.
pub(super) fn run(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime cannot be started")?
        .block_on(work)
}
