//! Files of an installation are readable by their owner only.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use certwright::config::{Config, read};
use certwright::{bootstrap, storage::Db};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn open_to_others(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn config(data_dir: &Path) -> Config {
    let data_dir = data_dir.display().to_string();
    let given = [("CERTWRIGHT_DATA_DIR".to_owned(), data_dir)];
    Config::parse(&read(None, given, &[]).unwrap()).unwrap()
}

/// The database, and what SQLite and we ourselves put beside it.
async fn in_use(data_dir: &Path) -> Vec<(String, u32)> {
    let config = config(data_dir);
    let db = bootstrap::database(&config).await.unwrap();
    let sole_use = db.sole_use().unwrap();
    bootstrap::master_key(&config, &db).await.unwrap();
    let mut files: Vec<_> = fs::read_dir(data_dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), mode(&path)))
        .collect();
    files.sort();
    drop(sole_use);
    db.close().await;
    files
}

#[tokio::test]
async fn a_new_installation_is_its_owners_alone() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");

    let files = in_use(&data).await;

    assert_eq!(mode(&data), 0o700);
    for wanted in [
        "certwright.db",
        "certwright.db-shm",
        "certwright.db-wal",
        "certwright.db.lock",
        "master.key",
    ] {
        assert!(files.iter().any(|(name, _)| name == wanted), "{wanted}: {files:?}");
    }
    assert!(files.iter().all(|(_, mode)| *mode == 0o600), "{files:?}");
}

#[tokio::test]
async fn a_start_takes_back_what_others_could_read() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    in_use(&data).await;
    open_to_others(&data, 0o755);
    for name in ["certwright.db", "certwright.db.lock"] {
        open_to_others(&data.join(name), 0o644);
    }

    let files = in_use(&data).await;

    assert_eq!(mode(&data), 0o700);
    assert!(files.iter().all(|(_, mode)| *mode == 0o600), "{files:?}");
}

#[tokio::test]
async fn a_folder_that_is_not_ours_alone_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    open_to_others(folder.path(), 0o755);
    let file = folder.path().join("other.db");

    let url = format!("sqlite://{}", file.display());
    bootstrap::data_dir(&config(folder.path())).unwrap();
    Db::connect(&url).await.unwrap().close().await;

    assert_eq!((mode(folder.path()), mode(&file)), (0o755, 0o600));
}
