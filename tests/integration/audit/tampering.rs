//! What is found of a log that somebody with access to the database has changed.

use certwright::audit::{Sealer, VerifyError, Watch, prune, verify};
use certwright::bootstrap;
use certwright::domain::audit::{Break, ChainKey, Head};
use serde_json::{Value, json};
use uuid::Uuid;

use super::entries;
use crate::support::databases::sqlite_url;
use crate::support::former_schema::execute;
use crate::support::log::Log;
use crate::support::postgres::fresh_database;
use crate::support::world::{World, on_every_database};

pub(super) async fn key(world: &World) -> ChainKey {
    bootstrap::audit_key(&world.db, &world.sealer).await.unwrap()
}

async fn sealer(world: &World) -> Sealer {
    Sealer::new(world.db.clone(), key(world).await)
}

pub(super) async fn changes(world: &World, count: usize) {
    for number in 0..count {
        let name = format!("{}-{number}", world.now().unix_timestamp());
        let secret = json!({"namespace": "default", "name": name, "stringData": {"k": "v"}});
        world.post("/secrets", secret).await.accepted();
    }
    world.clock.advance(time::Duration::seconds(1));
}

/// The head, when all is sealed.
pub(super) async fn sealed(world: &World) -> Head {
    sealer(world).await.seal(Uuid::nil()).await.unwrap();
    head(world).await.unwrap()
}

pub(super) async fn head(world: &World) -> Result<Head, VerifyError> {
    verify(&world.db, &key(world).await, None, |_, _| {}).await.map(|verified| verified.head)
}

on_every_database! {
    async fn what_is_sealed_is_shown_and_follows_from_what_was_before(world: World) {
        changes(&world, 3).await;
        let unsealed = verify(&world.db, &key(&world).await, None, |_, _| {}).await.unwrap();
        assert_eq!((unsealed.head.seq, unsealed.unsealed), (0, 3));
        assert_eq!(entries(&world, "").await[0]["seq"], Value::Null);

        let sealer = sealer(&world).await;
        assert_eq!(sealer.seal(Uuid::nil()).await.unwrap(), 3);
        assert_eq!(sealer.seal(Uuid::nil()).await.unwrap(), 0, "once");

        let found = entries(&world, "").await;
        let seqs: Vec<_> = found.iter().map(|one| one["seq"].clone()).collect();
        assert_eq!(seqs, [1, 2, 3]);
        assert_eq!(found[1]["previous"], found[0]["hash"]);
        let verified = verify(&world.db, &key(&world).await, None, |_, _| {}).await.unwrap();
        assert_eq!((verified.head.seq, verified.unsealed), (3, 0));
        assert_eq!(verified.head.to_string(), format!("3:{}", found[2]["hash"].as_str().unwrap()));
    }

    async fn of_two_that_seal_at_once_each_entry_has_one_seal(world: World) {
        changes(&world, 450).await;
        let (one, other) = (sealer(&world).await, sealer(&world).await);
        let (ours, theirs) = tokio::join!(one.seal(Uuid::nil()), other.seal(Uuid::nil()));
        let rest = one.seal(Uuid::nil()).await.unwrap();
        assert_eq!(ours.unwrap() + theirs.unwrap() + rest, 450);
        assert_eq!(head(&world).await.unwrap().seq, 450);
    }
}

/// A log of five entries, what somebody does to it, and what is found then.
const DEEDS: [(&str, &[&str], Break); 6] = [
    (
        "a changed row",
        &[
            "UPDATE audit_entries SET outcome = 'refused' WHERE id = (SELECT entry_id FROM audit_seals WHERE seq = 2)",
        ],
        Break::Changed { seq: 2, id: Uuid::nil() },
    ),
    (
        "a removed entry",
        &["DELETE FROM audit_entries WHERE id = (SELECT entry_id FROM audit_seals WHERE seq = 2)"],
        Break::NoEntry(2),
    ),
    (
        "a removed row",
        &[
            "DELETE FROM audit_entries WHERE id = (SELECT entry_id FROM audit_seals WHERE seq = 2)",
            "DELETE FROM audit_seals WHERE seq = 2",
        ],
        Break::Gap(2),
    ),
    (
        "a removed row whose gap was closed",
        &[
            "DELETE FROM audit_seals WHERE seq = 2",
            "UPDATE audit_seals SET seq = 2 WHERE seq = 3",
            "UPDATE audit_seals SET seq = 3 WHERE seq = 4",
            "UPDATE audit_seals SET seq = 4 WHERE seq = 5",
        ],
        Break::Unlinked(2),
    ),
    (
        "two rows in the other order",
        &[
            "UPDATE audit_seals SET seq = 99 WHERE seq = 2",
            "UPDATE audit_seals SET seq = 2 WHERE seq = 3",
            "UPDATE audit_seals SET seq = 3 WHERE seq = 99",
        ],
        Break::Unlinked(2),
    ),
    (
        "a cut tail",
        &[
            "DELETE FROM audit_entries WHERE id IN (SELECT entry_id FROM audit_seals WHERE seq > 3)",
            "DELETE FROM audit_seals WHERE seq > 3",
        ],
        Break::CutTail { ends: 3, known: 5 },
    ),
];

#[tokio::test]
async fn whatever_was_done_to_the_log_is_found_on_sqlite() {
    for deed in DEEDS {
        let (_folder, url) = sqlite_url();
        is_found(&url, deed).await;
    }
}

#[tokio::test]
async fn whatever_was_done_to_the_log_is_found_on_postgres() {
    for deed in DEEDS {
        is_found(&fresh_database().await, deed).await;
    }
}

async fn is_found(url: &str, (deed, statements, expected): (&str, &[&str], Break)) {
    let world = World::on(url).await;
    changes(&world, 5).await;
    sealer(&world).await.seal(Uuid::nil()).await.unwrap();
    let known = head(&world).await.unwrap();

    execute(url, statements).await;

    let found = verify(&world.db, &key(&world).await, Some(known), |_, _| {}).await;
    let Err(VerifyError::Broken(found)) = found else { panic!("{deed}: {found:?}") };
    let found = match found {
        Break::Changed { seq, .. } => Break::Changed { seq, id: Uuid::nil() },
        other => other,
    };
    assert_eq!(found, expected, "{deed}");
    world.db.close().await;
}

/// One test, as the metric is the process's.
#[tokio::test]
async fn the_service_finds_by_itself_what_was_done_to_the_log() {
    let log = Log::begin();
    let told = || log.lines_of("audit::watch");
    for url in [sqlite_url().1, fresh_database().await] {
        a_pruned_log_is_whole(&url).await;
        assert!(told().is_empty(), "{:?}", told());
    }
    for (number, (deed, statements, _)) in DEEDS.into_iter().enumerate() {
        let (_folder, url) = sqlite_url();
        let (world, mut watch) = watched(&url).await;

        execute(&url, statements).await;
        for _ in 0..2 {
            watch.look(None).await.unwrap();
        }

        assert_eq!(told().len(), number + 1, "{deed} is told once: {:?}", told());
        assert!(told()[number].contains("ERROR") && told()[number].contains("is not whole"));
        assert_eq!(is_broken(&world).await, "1", "{deed}");
    }
    what_is_put_back_is_whole_again().await;
    assert!(told().pop().unwrap().contains("the audit log is whole again"), "{:?}", told());
}

async fn watched(url: &str) -> (World, Watch) {
    let world = World::on(url).await;
    changes(&world, 5).await;
    sealed(&world).await;
    let mut watch = Watch::new(world.db.clone(), key(&world).await);
    watch.look(None).await.unwrap();
    assert_eq!(is_broken(&world).await, "0");
    (world, watch)
}

async fn a_pruned_log_is_whole(url: &str) {
    let (world, mut watch) = watched(url).await;
    world.clock.advance(time::Duration::days(10));
    changes(&world, 3).await;
    sealed(&world).await;
    watch.look(None).await.unwrap();
    let now = world.now();
    let removed = prune(&world.db, &key(&world).await, now - time::Duration::days(5), now).await;

    watch.look(None).await.unwrap();

    assert_eq!(removed.unwrap(), 5);
    assert_eq!(is_broken(&world).await, "0");
}

async fn what_is_put_back_is_whole_again() {
    let (_folder, url) = sqlite_url();
    let (world, mut watch) = watched(&url).await;
    for (outcome, expected) in [("refused", "1"), ("allowed", "0")] {
        let change = format!("UPDATE audit_entries SET outcome = '{outcome}'");
        execute(&url, &[&change]).await;
        watch.look(None).await.unwrap();
        assert_eq!(is_broken(&world).await, expected, "{outcome}");
    }
}

async fn is_broken(world: &World) -> String {
    let page = world.get("/metrics").await.text;
    let line = page.lines().find(|line| line.starts_with("certwright_audit_log_broken "));
    line.expect("the metric is there").rsplit(' ').next().unwrap().to_owned()
}

/// What docs/audit.md says the service's role needs of the log.
const ROLE: &str = include_str!("../../../docs/audit.md");

#[tokio::test]
async fn a_role_that_may_only_add_is_enough_for_the_log_and_cannot_change_it() {
    let url = fresh_database().await;
    let world = World::on(&url).await;
    let begin = ROLE.find("```sql\n").expect("docs/audit.md has the statements") + "```sql\n".len();
    let statements = ROLE[begin..].split("```").next().unwrap();
    // Roles belong to the whole cluster.
    let role = format!("service_of_{}", url.rsplit('/').next().unwrap().split('?').next().unwrap());
    let statements = statements.replace("certwright_service", &role);
    let all: Vec<_> = statements.split(';').map(str::trim).filter(|one| !one.is_empty()).collect();
    execute(&url, &all).await;
    world.db.close().await;

    let mut as_role: url::Url = url.parse().unwrap();
    as_role.query_pairs_mut().append_pair("options[role]", &role);
    let world = World::on(as_role.as_str()).await;
    changes(&world, 3).await;
    assert_eq!(sealer(&world).await.seal(Uuid::nil()).await.unwrap(), 3);
    assert_eq!(head(&world).await.unwrap().seq, 3);
    for refused in [
        "UPDATE audit_entries SET count = 2",
        "DELETE FROM audit_entries",
        "TRUNCATE audit_entries",
        "UPDATE audit_seals SET seq = 2",
        "DELETE FROM audit_seals",
        "TRUNCATE audit_seals",
    ] {
        let error = try_raw(as_role.as_str(), refused).await.unwrap_err();
        assert!(error.contains("permission denied"), "{refused}: {error}");
    }
    try_raw(as_role.as_str(), "UPDATE secrets SET name = name").await.unwrap();
}

async fn try_raw(url: &str, text: &str) -> Result<(), String> {
    use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
    let mut connection = PgConnection::connect(url).await.unwrap();
    let text = sqlx::raw_sql(AssertSqlSafe(text.to_owned()));
    connection.execute(text).await.map(drop).map_err(|error| error.to_string())
}
