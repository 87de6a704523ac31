//! The single checks. What they say is decided by pure functions over what was found.

use std::time::Duration;

use super::Subjects;
use crate::bootstrap;
use crate::domain::skew::Skew;
use crate::server::Accepting;
use crate::storage::{Db, Load, StorageError, pause, settings};
use crate::telemetry::metrics::worker as metrics;
use crate::worker::Pulse;

/// Time limit for everything that the database is asked.
const WITHIN: Duration = Duration::from_secs(5);

/// With less than this SQLite's write-ahead log cannot grow by what one transaction needs.
const LEAST_ROOM: u64 = 1 << 20;

/// A look for work takes milliseconds; after this long it hangs.
const LONGEST_LOOK: Duration = Duration::from_mins(2);

/// What became of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Well,
    /// Something is wrong, and this instance can work all the same.
    Remark(String),
    /// This instance cannot work.
    Trouble(String),
}

/// Every check by its name, in the order in which a person would look.
pub(super) async fn all(of: &Subjects, listeners: &[Accepting]) -> Vec<(&'static str, Verdict)> {
    let answered = tokio::time::timeout(WITHIN, database(of)).await;
    let mut verdicts = answered.unwrap_or_else(|_| {
        let why = format!(
            "The database has not answered within {} s. Look at its load and its locks.",
            WITHIN.as_secs()
        );
        vec![("database", Verdict::Trouble(why))]
    });
    let Load { disk, .. } = of.db.load();
    verdicts.extend(disk.map(|disk| ("disk", room(disk.free))));
    verdicts.push(("listeners", accepted(listeners)));
    verdicts.push(("worker", works(&of.pulse, of.lease)));
    verdicts.push(("outside", outside(metrics::breakers_open())));
    verdicts.push(("clock", clock(of.authorities.skew(of.clock.now()).as_ref())));
    verdicts
}

/// Reads, schema, master key and a write, as far as the database answers.
async fn database(of: &Subjects) -> Vec<(&'static str, Verdict)> {
    let version = match of.db.schema_version().await {
        Ok(version) => version,
        Err(error) => return vec![("database", Verdict::Trouble(words(&error)))],
    };
    let key = match bootstrap::fits_master_key(&of.db, &of.sealer).await {
        Ok(true) => Verdict::Well,
        Ok(false) => Verdict::Trouble(
            "The secrets in this database are sealed under another master key. Give that one, or the database of this one."
                .to_owned(),
        ),
        Err(error) => return vec![("database", Verdict::Trouble(words(&error)))],
    };
    let paused = match paused(&of.db).await {
        Ok(None) => Verdict::Well,
        Ok(Some(why)) => Verdict::Trouble(format!(
            "The installation is paused: {why}. `certwright resume` ends it."
        )),
        Err(error) => return vec![("database", Verdict::Trouble(words(&error)))],
    };
    let written = match write(&of.db, of.clock.now().unix_timestamp()).await {
        Ok(()) => Verdict::Well,
        Err(error) => Verdict::Trouble(words(&error)),
    };
    vec![
        ("database", Verdict::Well),
        ("schema", schema(version, of.db.migrated().to)),
        ("masterKey", key),
        ("writes", written),
        ("paused", paused),
    ]
}

async fn paused(db: &Db) -> Result<Option<String>, StorageError> {
    pause::find(&mut db.read().await?).await
}

/// Writes a row of its own: that the database can be read says nothing about its disk.
async fn write(db: &Db, now: i64) -> Result<(), StorageError> {
    let mut tx = db.begin();
    settings::put(&mut tx, "health_check", &now.to_be_bytes()).await?;
    tx.commit().await
}

/// An error of the database for anybody to see: the log has the rest.
fn words(error: &StorageError) -> String {
    match error {
        StorageError::Full(_) => {
            "The disk is full: make room where the database lies. Nothing has to be restarted afterwards.".to_owned()
        }
        StorageError::Damaged(_) => {
            "The database's file is damaged: stop the service, keep a copy, and put a backup in its place.".to_owned()
        }
        StorageError::Replaced(_) => {
            "The database's file was removed or replaced while it is open: stop the service, put the file or a backup back, and start it again."
                .to_owned()
        }
        StorageError::Unavailable(_) => {
            "The database does not answer: see that it runs and can be reached. The log has its words.".to_owned()
        }
        _ => "The database refuses what it is asked. The log has its words.".to_owned(),
    }
}

fn schema(found: i64, known: i64) -> Verdict {
    match found {
        _ if found < known => Verdict::Trouble(format!(
            "The database has version {found} of the schema, and this program needs {known}: it was exchanged for an older one. Restart the service, which migrates it."
        )),
        _ if found > known => Verdict::Remark(format!(
            "The database has version {found} of the schema, and this program knows {known}: a newer one has migrated it. Replace this instance."
        )),
        _ => Verdict::Well,
    }
}

fn room(free: u64) -> Verdict {
    if free >= LEAST_ROOM {
        return Verdict::Well;
    }
    Verdict::Trouble(format!(
        "The disk is full: {} KiB are left where the database lies. Make room; nothing has to be restarted afterwards.",
        free >> 10
    ))
}

fn accepted(listeners: &[Accepting]) -> Verdict {
    let failing = listeners.iter().filter(|one| one.is_failing()).map(|one| one.name);
    let failing: Vec<_> = failing.collect();
    if failing.is_empty() {
        return Verdict::Well;
    }
    Verdict::Trouble(format!(
        "No connection can be accepted on {}. Raise the limit of open files (`LimitNOFILE=` of the unit, `ulimit -n`), or allow fewer connections.",
        failing.join(" and ")
    ))
}

fn works(pulse: &Pulse, lease: Duration) -> Verdict {
    if let Some(time) = pulse.looking_for().filter(|time| *time > LONGEST_LOOK) {
        return Verdict::Trouble(format!(
            "The worker has been waiting for the database for {} s, and takes no step. If the database is well, restart the service.",
            time.as_secs()
        ));
    }
    match pulse.silent_for().filter(|time| *time > lease) {
        Some(time) => Verdict::Trouble(format!(
            "No heartbeat was written for {} s: the other replicas take this one for dead and go on with its work. See that the database can be reached.",
            time.as_secs()
        )),
        None => Verdict::Well,
    }
}

fn outside(silent: i64) -> Verdict {
    match silent {
        ..=0 => Verdict::Well,
        count => Verdict::Remark(format!(
            "{count} of the CAs and DNS providers do not answer; orders wait for them, and go on by themselves. The log names them: \"not answering\"."
        )),
    }
}

fn clock(skew: Option<&Skew>) -> Verdict {
    match skew.filter(|skew| skew.is_off()) {
        // Which CA it is may be the business of whoever asks, or not.
        Some(skew) => Verdict::Remark(format!(
            "The clock of this installation is {} that of a CA. See that the time is synchronized (`timedatectl`): certificates are renewed too early or too late otherwise.",
            skew.in_words()
        )),
        None => Verdict::Well,
    }
}

#[cfg(test)]
mod tests {
    use time::Duration as Span;

    use super::*;

    #[test]
    fn an_older_schema_is_trouble_and_a_newer_one_a_remark() {
        assert_eq!(schema(7, 7), Verdict::Well);
        assert!(matches!(schema(6, 7), Verdict::Trouble(_)));
        assert!(
            matches!(schema(8, 7), Verdict::Remark(_)),
            "a rolling upgrade has both for a while"
        );
    }

    #[test]
    fn a_disk_is_full_before_nothing_at_all_is_left() {
        assert_eq!(room(LEAST_ROOM), Verdict::Well);
        let Verdict::Trouble(why) = room(5_000) else { panic!("it is full") };
        assert!(why.starts_with("The disk is full: 4 KiB are left"), "{why}");
    }

    #[test]
    fn a_wrong_clock_is_shown_and_takes_nobody_out_of_service() {
        let at = time::OffsetDateTime::UNIX_EPOCH;
        let skew =
            |ahead| Skew { ahead, authority: "ca.example".to_owned(), seen_at: at, since: at };

        assert_eq!(clock(None), Verdict::Well);
        assert_eq!(clock(Some(&skew(Span::seconds(-59)))), Verdict::Well);
        let Verdict::Remark(why) = clock(Some(&skew(Span::days(2)))) else { panic!("it is off") };
        assert!(why.contains("2 d ahead of that of a CA") && why.contains("timedatectl"), "{why}");
        assert!(!why.contains("ca.example"), "{why}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_hangs_or_is_not_heard_is_trouble() {
        let (pulse, lease) = (Pulse::default(), Duration::from_secs(15));
        assert_eq!(works(&pulse, lease), Verdict::Well, "on SQLite nobody beats");

        pulse.looks();
        tokio::time::advance(LONGEST_LOOK).await;
        assert_eq!(works(&pulse, lease), Verdict::Well);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(matches!(works(&pulse, lease), Verdict::Trouble(_)));
        pulse.has_looked();
        assert_eq!(works(&pulse, lease), Verdict::Well);

        pulse.has_beaten();
        tokio::time::advance(lease + Duration::from_secs(1)).await;
        let Verdict::Trouble(why) = works(&pulse, lease) else { panic!("nobody heard of it") };
        assert!(why.contains("heartbeat was written for 16 s"), "{why}");
    }
}
