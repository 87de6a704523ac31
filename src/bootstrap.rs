//! What has to be there before anything runs: folder, master key, installation id, first API key.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::{Context as _, bail};

use crate::clock::Clock;
use crate::config::Config;
use crate::domain::api_key;
use crate::domain::id::ApiKeyId;
use crate::secret::{Sealed, Sealer, Secret};
use crate::storage::api_keys::{self, ApiKey};
use crate::storage::{Db, Scope, settings};

/// Sealed under the first master key, to find out at once when another one is given.
const CHECK: &str = "master_key_check";
const CHECK_TEXT: &[u8] = b"certwright";
const INSTALLATION: &str = "installation";

/// Opens the database, after making the folder that it is in by default.
pub async fn database(config: &Config) -> anyhow::Result<Db> {
    make_folder(&config.data_dir)?;
    let _alone = alone_in(&config.data_dir);
    Db::connect(config.database_url.expose()).await.context("the database cannot be opened")
}

/// SQLite has no lock around migrations: of two first starts at once, one waits here for the other.
/// Where a folder cannot be locked, as on some network file systems, it is as without.
fn alone_in(folder: &Path) -> Option<File> {
    let folder = File::open(folder).ok()?;
    folder.lock().ok()?;
    Some(folder)
}

/// The master key from the settings or its file, checked against the database. Without either, on
/// the very first start, one is made.
pub async fn sealer(config: &Config, db: &Db) -> anyhow::Result<Sealer> {
    let mut tx = db.read().await?;
    let check = settings::find(&mut tx, CHECK).await?;
    drop(tx);
    let text = master_key(config, check.is_some())?;
    let sealer = Sealer::from_text(&text)?;
    let fresh = sealer.seal(CHECK, CHECK_TEXT)?;
    let mut tx = db.begin().await?;
    settings::insert(&mut tx, CHECK, &fresh.0).await?;
    let stored = settings::find(&mut tx, CHECK).await?.unwrap_or_default();
    tx.commit().await?;
    sealer
        .open(CHECK, &Sealed(stored))
        .context("this is not the master key that the database's secrets were sealed under")?;
    Ok(sealer)
}

fn master_key(config: &Config, in_use: bool) -> anyhow::Result<Secret<String>> {
    if let Some(key) = &config.master_key {
        return Ok(key.clone());
    }
    let made_by_us = config.master_key_file.is_none();
    let file = config.master_key_file.clone().unwrap_or_else(|| config.data_dir.join("master.key"));
    let about = || format!("the master key file {}", file.display());
    match std::fs::metadata(&file) {
        Ok(found) => {
            let mode = found.permissions().mode() & 0o777;
            if mode & 0o077 != 0 {
                bail!(
                    "{} can be read by others (mode {mode:o}); `chmod 600 {}`",
                    about(),
                    file.display()
                );
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound && made_by_us && !in_use => {
            let key = Sealer::generate()?;
            write_new(&file, &key).with_context(about)?;
        }
        Err(error) if error.kind() == ErrorKind::NotFound && in_use => bail!(
            "{} is not there, but the database holds secrets that were sealed under it; bring it back, or set CERTWRIGHT_MASTER_KEY",
            about()
        ),
        Err(error) => return Err(error).with_context(about),
    }
    Ok(Secret::new(std::fs::read_to_string(&file).with_context(about)?))
}

/// Of two first starts at the same moment one makes the file; the other reads it.
fn write_new(file: &Path, key: &Secret<String>) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let draft = folder.join(format!(".master.key.{}", std::process::id()));
    let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    out.write_all(key.expose().as_bytes())?;
    out.write_all(b"\n")?;
    out.sync_all()?;
    // A hard link fails where a rename would overwrite.
    let linked = std::fs::hard_link(&draft, file);
    std::fs::remove_file(&draft)?;
    match linked {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn make_folder(folder: &Path) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("the data folder {} cannot be made", folder.display()))
}

/// A short name for this installation, by which it knows its own DNS records again.
pub async fn installation(db: &Db) -> anyhow::Result<String> {
    let mut bytes = [0_u8; 5];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| anyhow::anyhow!("no randomness"))?;
    let fresh: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut tx = db.begin().await?;
    settings::insert(&mut tx, INSTALLATION, fresh.as_bytes()).await?;
    let stored = settings::find(&mut tx, INSTALLATION).await?.unwrap_or_default();
    tx.commit().await?;
    String::from_utf8(stored).context("the installation's name is damaged")
}

/// Sees to it that there is an admin key: the given one, or on the very first start a new one, which
/// is returned to be shown once.
pub async fn first_api_key(
    config: &Config,
    db: &Db,
    clock: &dyn Clock,
) -> anyhow::Result<Option<Secret<String>>> {
    let mut tx = db.begin().await?;
    let (key, name) = match &config.bootstrap_api_key {
        Some(given) if api_key::is_well_formed(given.expose()) => (given.clone(), "bootstrap"),
        Some(_) => bail!(
            "bootstrap.api_key is not an API key; it is `cw_` and 43 characters of base64url, as `echo cw_$(openssl rand 32 | basenc --base64url | tr -d =)` prints it"
        ),
        None if api_keys::any(&mut tx).await? => return Ok(None),
        None => (api_key::generate_key()?, "first start"),
    };
    let now = clock.now();
    let row = ApiKey {
        id: ApiKeyId::generate(now),
        name: name.to_owned(),
        permissions: vec!["*".to_owned()],
        scope: Scope::Everything,
    };
    api_keys::insert(&mut tx, &row, &api_key::hash_key(key.expose()), now).await?;
    tx.commit().await?;
    Ok(config.bootstrap_api_key.is_none().then_some(key))
}
