//! The first start, and what every start makes sure of: the data directory, the master key, the
//! installation's name, an API key to begin with.
//!
//! Several replicas may do all of it at once, and each may be cut off anywhere.

use std::fs::{DirBuilder, File, Permissions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::Zeroizing;

use crate::config::Config;
use crate::domain::api_key::Malformed;
use crate::domain::audit::ChainKey;
use crate::secret::{Place, SealError, Sealed, Sealer, Secret};
use crate::storage::{Db, StorageError, settings};
use crate::transit::{PAUSES, Transit, TransitError};

mod api_key;
mod protection;
mod transit;

pub use api_key::first_api_key;
pub use protection::{
    authenticate_grants, check_master_key, fits_master_key, master_key_check, opens,
    reseal_settings,
};
pub use transit::rewrap_master_key;

/// Why the service cannot start.
#[derive(Debug, Error)]
pub enum BootstrapError {
    #[error("{} cannot be used", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "the master key in {} may be read by others (mode {mode:03o}): run `chmod 600 {}`",
        path.display(),
        path.display()
    )]
    Exposed { path: PathBuf, mode: u32 },
    #[error("the master key file {} does not exist: `master_key_file` names it", .0.display())]
    NoSuchFile(PathBuf),
    #[error(
        "the master key is missing: the secrets in this database were sealed under one that \
         should be in {}. Put it back, or give it as `master_key` or `master_key_file`; a new one \
         could not open them",
        .0.display()
    )]
    KeyLost(PathBuf),
    #[error(
        "the master key is not the one that the secrets in this database were sealed under: give \
         that one as `master_key` or `master_key_file`"
    )]
    WrongKey,
    #[error("{origin} holds no master key")]
    BadKey {
        origin: String,
        #[source]
        source: SealError,
    },
    #[error(
        "`bootstrap.api_key` is not an API key: {0}; one is made by \
         `echo cw_$(openssl rand 32 | basenc --base64url | tr -d =)`"
    )]
    MalformedKey(Malformed),
    #[error(
        "`bootstrap.api_key` was not made by chance, so that others can guess it; one that they cannot is made by \
         `echo cw_$(openssl rand 32 | basenc --base64url | tr -d =)`"
    )]
    WeakKey,
    #[error(
        "`bootstrap.api_key` is a value of an API key that exists already, and that has ended or does not have every \
         permission; give another one"
    )]
    LesserKey,
    #[error(
        "the key of the audit log (setting `audit_key` in the database) cannot be opened; restore that row from a backup"
    )]
    AuditKey(#[source] SealError),
    #[error(transparent)]
    Transit(#[from] TransitError),
    #[error(
        "the secrets in this database were sealed under a master key that no transit engine has wrapped: for the first \
         start with `transit.address`, give that key as `master_key` or `master_key_file`, or put it back into `data_dir`"
    )]
    NothingToWrap,
    #[error(
        "the master key of this database is wrapped by a transit engine: set `transit.address`, `transit.key` and the rest \
         again"
    )]
    Wrapped,
    #[error("no random key could be made")]
    Random(#[source] SealError),
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// The master key in `data_dir`.
const OWN_KEY: &str = "master.key";

const AUDIT_KEY: &str = "audit_key";
const AUDIT_KEY_PLACE: &str = "settings/value/audit_key";
const INSTALLATION: &str = "installation_id";

/// Makes `data_dir`, for the owner alone, when it is missing; one that was open to others is closed.
pub fn data_dir(config: &Config) -> Result<(), BootstrapError> {
    let path = &config.data_dir;
    let unusable = |source| BootstrapError::File { path: path.clone(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(unusable)?;
    let metadata = path.metadata().map_err(unusable)?;
    let mode = metadata.mode() & 0o7777;
    // Only a folder that is ours by what lies in it: others may have good reason to enter any other.
    let is_ours = ["certwright.db", OWN_KEY].iter().any(|name| path.join(name).exists());
    if is_ours && mode & 0o1000 == 0 && mode & 0o077 != 0 {
        let closed = std::fs::set_permissions(path, Permissions::from_mode(mode & 0o700));
        let (path, mode) = (path.display(), format_args!("{mode:03o}"));
        match closed {
            Ok(()) => {
                tracing::warn!(%path, %mode, "others could enter `data_dir`; it was closed to them");
            }
            // Its owner has made it so.
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(%path, %mode, error, "others may enter `data_dir`, and it cannot be closed to them");
            }
        }
    }
    Ok(())
}

/// Opens the database that is configured and brings its schema up to date.
pub async fn database(config: &Config) -> Result<Db, BootstrapError> {
    data_dir(config)?;
    let _alone = alone_in(&config.data_dir);
    if is_key_without_database(config) {
        let (key, url) = (config.data_dir.join(OWN_KEY), config.database_url.expose());
        tracing::warn!(
            master_key = %key.display(),
            database = url,
            "there is a master key and no database: an empty one is made. If there was one before, stop the service and put it back, or a backup of it"
        );
    }
    Ok(Db::connect(config.database_url.expose()).await?)
}

/// Whether `data_dir` has a master key, as a former start has made it, while the SQLite database is not there.
pub fn is_key_without_database(config: &Config) -> bool {
    let file = Db::file(config.database_url.expose());
    file.is_some_and(|file| !file.exists()) && config.data_dir.join(OWN_KEY).exists()
}

/// SQLite has no lock around migrations: of two first starts at once, one waits here for the other.
/// Some network file systems cannot lock a folder; then there is no lock.
fn alone_in(folder: &Path) -> Option<File> {
    let folder = File::open(folder).ok()?;
    folder.lock().ok()?;
    Some(folder)
}

/// The master key that is configured, or that lies in `data_dir`; it is made there if the database
/// has no secrets yet. It has been checked against the database.
pub async fn master_key(config: &Config, db: &Db) -> Result<Sealer, BootstrapError> {
    if let Some(settings) = &config.transit {
        let transit = Transit::new(settings.clone(), &PAUSES)?;
        return transit::master_key(config, db, &transit).await;
    }
    let own = config.data_dir.join(OWN_KEY);
    let (sealer, made) = match given_key(config, &own)? {
        Some(found) => (found, false),
        None if transit::has_wrapped(db).await? => return Err(BootstrapError::Wrapped),
        None if protection::is_known(db).await? => return Err(BootstrapError::KeyLost(own)),
        None => make_key(&own)?,
    };
    if made { confirm(db, sealer, &own).await } else { check_master_key(db, sealer).await }
}

/// The master key that is configured, or lies in `data_dir`; `own` is its place there.
fn given_key(config: &Config, own: &Path) -> Result<Option<Sealer>, BootstrapError> {
    match (&config.master_key, &config.master_key_file) {
        (Some(text), _) => sealer(text, "`master_key`").map(Some),
        (None, Some(path)) => {
            let found = read_key(path)?.ok_or_else(|| BootstrapError::NoSuchFile(path.clone()))?;
            Ok(Some(found))
        }
        (None, None) => read_key(own),
    }
}

/// Makes a key of our own the database's, or takes it away again.
async fn confirm(db: &Db, sealer: Sealer, path: &Path) -> Result<Sealer, BootstrapError> {
    match check_master_key(db, sealer).await {
        // A replica with another data directory made its key in the same moment, and was first.
        // Nothing is sealed under ours.
        Err(BootstrapError::WrongKey) => {
            std::fs::remove_file(path)
                .map_err(|source| BootstrapError::File { path: path.to_owned(), source })?;
            Err(BootstrapError::KeyLost(path.to_owned()))
        }
        checked => checked,
    }
}

/// The key of the audit log's chain. It is made once, and sealed like any secret: the chain outlives master keys.
pub async fn audit_key(db: &Db, sealer: &Sealer) -> Result<ChainKey, BootstrapError> {
    let mut new = Zeroizing::new([0_u8; 32]);
    aws_lc_rs::rand::fill(&mut *new).map_err(|_| BootstrapError::Random(SealError::Encryption))?;
    let place = Place::of_service(AUDIT_KEY_PLACE);
    let ours = sealer.seal(&place, &*new).map_err(BootstrapError::Random)?;
    let known = match settings::find(&mut db.read().await?, AUDIT_KEY).await? {
        Some(known) => known,
        None => settled(db, AUDIT_KEY, ours.0).await?,
    };
    let opened = sealer.open(&place, &Sealed(known));
    Ok(ChainKey::new(opened.map_err(BootstrapError::AuditKey)?.expose()))
}

/// The name of this installation in places that it shares with others, such as DNS zones.
pub async fn installation_id(db: &Db) -> Result<String, BootstrapError> {
    let mut bytes = [0_u8; 8];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| BootstrapError::Random(SealError::Encryption))?;
    // 32 letters and digits, so that every value of a byte falls on one equally often.
    let alphabet = b"abcdefghijkmnpqrstuvwxyz23456789";
    let name = bytes.map(|byte| alphabet.get(usize::from(byte % 32)).copied().unwrap_or(b'a'));
    let name = settled(db, INSTALLATION, name.to_vec()).await?;
    Ok(String::from_utf8_lossy(&name).into_owned())
}

/// Sets what is not set yet; returns what holds then, on every replica the same.
async fn settled(db: &Db, name: &str, ours: Vec<u8>) -> Result<Vec<u8>, BootstrapError> {
    let mut tx = db.begin();
    if settings::insert(&mut tx, name, &ours).await? {
        tx.commit().await?;
        return Ok(ours);
    }
    Ok(settings::find(&mut tx, name).await?.unwrap_or(ours))
}

fn sealer(text: &Secret<String>, origin: &str) -> Result<Sealer, BootstrapError> {
    Sealer::from_text(text)
        .map_err(|source| BootstrapError::BadKey { origin: origin.to_owned(), source })
}

/// The text of the master key that is configured, or that lies in `data_dir`.
fn local_key(config: &Config) -> Result<Option<Secret<String>>, BootstrapError> {
    match (&config.master_key, &config.master_key_file) {
        (Some(text), _) => Ok(Some(text.clone())),
        (None, Some(path)) => {
            let found = read_text(path)?;
            found.map(Some).ok_or_else(|| BootstrapError::NoSuchFile(path.clone()))
        }
        (None, None) => read_text(&config.data_dir.join(OWN_KEY)),
    }
}

/// The key in a file, if there is such a file.
fn read_key(path: &Path) -> Result<Option<Sealer>, BootstrapError> {
    let text = read_text(path)?;
    text.map(|text| sealer(&text, &path.display().to_string())).transpose()
}

fn read_text(path: &Path) -> Result<Option<Secret<String>>, BootstrapError> {
    let unusable = |source| BootstrapError::File { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unusable(error)),
    };
    let metadata = file.metadata().map_err(unusable)?;
    let mode = metadata.mode() & 0o777;
    // A group may read what root has put there for it: so orchestrators hand secrets to processes
    // that do not run as root.
    let others = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    if mode & others != 0 {
        return Err(BootstrapError::Exposed { path: path.to_owned(), mode });
    }
    Ok(Some(Secret::new(std::io::read_to_string(file).map_err(unusable)?)))
}

/// Makes a key file, whole or not at all; says whether it was this call that did it.
fn make_key(path: &Path) -> Result<(Sealer, bool), BootstrapError> {
    let unusable = |source| BootstrapError::File { path: path.to_owned(), source };
    let text = Sealer::generate().map_err(BootstrapError::Random)?;
    let directory = path.parent().unwrap_or(Path::new("."));
    // It is created with mode 0600, and takes its name only once it is complete and on the disk.
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(unusable)?;
    writeln!(file, "{}", text.expose()).map_err(unusable)?;
    file.as_file().sync_all().map_err(unusable)?;
    match file.persist_noclobber(path) {
        Ok(_) => {
            File::open(directory).and_then(|directory| directory.sync_all()).map_err(unusable)?;
            Ok((sealer(&text, &path.display().to_string())?, true))
        }
        Err(error) if error.error.kind() == ErrorKind::AlreadyExists => {
            let theirs = read_key(path)?;
            Ok((theirs.ok_or_else(|| BootstrapError::KeyLost(path.to_owned()))?, false))
        }
        Err(error) => Err(unusable(error.error)),
    }
}
