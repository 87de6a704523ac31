//! The database: its schema, its disk, its write-ahead log, a write, whether its file is whole, and whether somebody
//! else has written it.

use std::time::Duration;

use tokio::time::Instant;

use super::report::Report;
use crate::audit::{self, VerifyError};
use crate::bootstrap;
use crate::cli::output::now;
use crate::config::Config;
use crate::secret::Sealer;
use crate::storage::{Db, Disk, StorageError, pause, settings};
use crate::verify::{self, Broken, Finding, Verified};

// As deploy/prometheus/alerts.yaml has them.
const LITTLE_ROOM: u64 = 512 << 20;
const SLOW: Duration = Duration::from_secs(1);

/// The log is cut to much less as soon as nobody reads what is in it.
const LONG_WAL: u64 = 64 << 20;

/// The database, if it can be opened without changing anything about it.
pub(super) async fn open(config: &Config, report: &mut Report) -> anyhow::Result<Option<Db>> {
    let url = config.database_url.expose();
    let version = match Db::version(url).await {
        Ok(version) => version,
        Err(
            error @ (StorageError::UnknownSchema(_)
            | StorageError::Damaged(_)
            | StorageError::NoServer { .. }),
        ) => {
            report.fail("database", &format!("{:#}", anyhow::Error::from(error)))?;
            return Ok(None);
        }
        Err(error) => {
            let is_lost = bootstrap::is_key_without_database(config);
            let error = anyhow::Error::from(error);
            let next = if is_lost {
                "There is a master key: if there was a database, put it back, or a backup of it, before the service starts and makes an empty one"
            } else {
                "`certwright serve` and `certwright migrate` make one; `database.url` says where"
            };
            report.fail("database", &format!("{error:#}. {next}"))?;
            return Ok(None);
        }
    };
    if version.from != version.to {
        let problem = format!(
            "its schema has version {}, this program needs {}: {}",
            version.from,
            version.to,
            if version.from < version.to {
                "run `certwright migrate`"
            } else {
                "install the newer program again"
            }
        );
        report.fail("database", &problem)?;
        return Ok(None);
    }
    let db = match Db::connect(url).await {
        Ok(db) => db,
        Err(error) => {
            report.fail("database", &format!("{:#}", anyhow::Error::from(error)))?;
            return Ok(None);
        }
    };
    report.ok("database", &format!("{}, schema version {}", db.dialect(), version.to))?;
    Ok(Some(db))
}

/// What it lies on, and whether it takes writes.
pub(super) async fn examine(db: &Db, report: &mut Report) -> anyhow::Result<()> {
    if let Some(disk) = db.load().disk {
        room(disk, report)?;
    }
    let (what, begun) = ("database, writes", Instant::now());
    match write(db).await {
        Ok(()) => written_in(begun.elapsed(), report)?,
        Err(error) => {
            report.fail(
                what,
                &format!(
                    "{:#}; `journalctl -u certwright` and the database's own log have more",
                    anyhow::Error::from(error)
                ),
            )?;
        }
    }
    if db.dialect() == "postgres" {
        return Ok(());
    }
    let damage = db.damage().await;
    let found = damage.unwrap_or_else(|error| vec![error.to_string()]);
    if found.is_empty() {
        return report.ok("database, integrity", "`PRAGMA quick_check` finds nothing");
    }
    report.fail("database, integrity", &format!("{}: stop the service, keep a copy of the file with its `-wal`, and put a backup in its place", found.join("; ")))
}

fn written_in(time: Duration, report: &mut Report) -> anyhow::Result<()> {
    let what = "database, writes";
    if time <= SLOW {
        return report.ok(what, "a row was written");
    }
    report.warn(what, &format!("a row was written, in {:.1} s: every step of an order is such a commit; look at the disk's latency (`iostat -x 1`), and at who else uses it", time.as_secs_f64()))
}

fn room(disk: Disk, report: &mut Report) -> anyhow::Result<()> {
    let (what, free) = ("database, disk", in_words(disk.free));
    match disk.free {
        ..LITTLE_ROOM if disk.free < 1 << 20 => report.fail(what, &format!("the disk is full: {free} are left where the database lies; make room (`df -h`, `du -xh`), nothing has to be restarted"))?,
        ..LITTLE_ROOM => report.warn(what, &format!("{free} are left where the database lies; make room before it is full (`df -h`, `du -xh`)"))?,
        _ => report.ok(what, &format!("{free} are left"))?,
    }
    let (what, wal) = ("database, write-ahead log", in_words(disk.wal));
    if disk.wal < LONG_WAL {
        return report.ok(what, &wal);
    }
    report.warn(what, &format!("{wal}: a reader that does not end keeps it from being cut; `fuser` on the database's file shows who has it open"))
}

async fn write(db: &Db) -> Result<(), StorageError> {
    let mut tx = db.begin();
    settings::put(&mut tx, "health_check", &now().unix_timestamp().to_be_bytes()).await?;
    tx.commit().await
}

fn in_words(bytes: u64) -> String {
    match bytes.checked_ilog2().unwrap_or_default() {
        0..22 => format!("{} KiB", bytes >> 10),
        22..32 => format!("{} MiB", bytes >> 20),
        _ => format!("{} GiB", bytes >> 30),
    }
}

pub(super) async fn paused(db: &Db, report: &mut Report) -> anyhow::Result<()> {
    match pause::find(&mut db.read().await?).await? {
        None => Ok(()),
        Some(why) => report.fail(
            "work",
            &format!("paused, nothing is issued or renewed: {why}; once it has ended, run `certwright resume`"),
        ),
    }
}

pub(super) async fn master_key(
    config: &Config,
    db: &Db,
    report: &mut Report,
) -> anyhow::Result<Option<Sealer>> {
    let own = config.data_dir.join("master.key");
    let file = config.master_key_file.as_ref().unwrap_or(&own);
    // The check must not create the file.
    if config.transit.is_none() && config.master_key.is_none() && !file.exists() {
        report.fail(
            "master key",
            &format!(
                "{} is not there; the first start makes it, a restored database needs its own",
                file.display()
            ),
        )?;
        return Ok(None);
    }
    match bootstrap::master_key(config, db).await {
        Ok(sealer) => {
            report.ok("master key", "opens what is in the database")?;
            Ok(Some(sealer))
        }
        Err(error) => {
            report.fail(
                "master key",
                &format!("{error}; docs/at-rest.md says which one a database needs"),
            )?;
            Ok(None)
        }
    }
}

/// Whether API keys, policies and the audit log are what the service wrote.
pub(super) async fn tampering(db: &Db, sealer: &Sealer, report: &mut Report) -> anyhow::Result<()> {
    let mut done = Verified::default();
    let mut broken = Vec::new();
    let mut tell = |found| {
        if let Finding::Broken(Broken { kind, name, .. }) = found {
            broken.push(format!("{kind} {name}"));
        }
    };
    verify::verify_grants(db, sealer, &mut done, &mut tell).await?;
    let what = "database, API keys and policies";
    match broken.len() {
        0 => report.ok(what, &format!("all {} are as the service wrote them", done.grants))?,
        some => report.fail(what, &format!("{some} were written by somebody else, and are refused: {}; see who can write the database, then delete these and create them again (docs/at-rest.md)", broken[..some.min(5)].join(", ")))?,
    }
    let key = bootstrap::audit_key(db, sealer).await?;
    match audit::verify(db, &key, None, |_, _| {}).await {
        Ok(found) => report.ok("audit log", &format!("whole; head {}", found.head)),
        Err(VerifyError::Broken(why)) => report.fail("audit log", &format!("it is not whole: {why}; see who can write the database, and compare it with an export or a backup (docs/audit.md)")),
        Err(VerifyError::Storage(error)) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_that_takes_more_than_a_second_is_a_warning() {
        for (time, warned) in [(SLOW, 0), (SLOW + Duration::from_millis(1), 1)] {
            let mut report = Report::default();
            written_in(time, &mut report).unwrap();
            assert_eq!((report.all, report.warned, report.failed), (1, warned, 0), "{time:?}");
        }
    }

    #[test]
    fn little_room_is_a_warning_and_none_a_failure() {
        for (free, wal, warned, failed) in [
            (1 << 40, 0, 0, 0),
            (LITTLE_ROOM - 1, 0, 1, 0),
            ((1 << 20) - 1, 0, 0, 1),
            (1 << 40, LONG_WAL - 1, 0, 0),
            (1 << 40, LONG_WAL, 1, 0),
        ] {
            let mut report = Report::default();
            room(Disk { database: 1, wal, free }, &mut report).unwrap();
            assert_eq!((report.warned, report.failed), (warned, failed), "{free} {wal}");
        }
        let sizes = [(3 << 20, "3072 KiB"), (900 << 20, "900 MiB"), (90 << 30, "90 GiB")];
        assert!(sizes.iter().all(|(bytes, text)| in_words(*bytes) == *text));
    }
}
