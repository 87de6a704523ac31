//! Retention: the beginning of the log is removed, and what is left still verifies.

use certwright::audit::{VerifyError, prune, verify};
use certwright::domain::audit::{Break, Head};
use time::Duration;

use super::entries;
use super::tampering::{changes, head, key, sealed};
use crate::support::databases::sqlite_url;
use crate::support::former_schema::execute;
use crate::support::postgres::fresh_database;
use crate::support::world::{World, on_every_database};

/// A log with five entries of ten days ago, and three of today.
async fn old_and_new(world: &World) -> (Head, Head) {
    changes(world, 5).await;
    let old = sealed(world).await;
    world.clock.advance(Duration::days(10));
    changes(world, 3).await;
    (old, sealed(world).await)
}

async fn prune_to(world: &World, days: i64) -> Result<u64, VerifyError> {
    let now = world.now();
    prune(&world.db, &key(world).await, now - Duration::days(days), now).await
}

async fn verified(world: &World, known: &Head) -> Result<Head, VerifyError> {
    let verified = verify(&world.db, &key(world).await, Some(known.clone()), |_, _| {}).await;
    verified.map(|verified| verified.head)
}

on_every_database! {
    async fn what_is_left_of_a_pruned_log_follows_from_its_checkpoint(world: World) {
        let (old, new) = old_and_new(&world).await;

        assert_eq!(prune_to(&world, 20).await.unwrap(), 0, "nothing is as old as that");
        assert_eq!(prune_to(&world, 5).await.unwrap(), 5);
        assert_eq!(verified(&world, &new).await.unwrap(), new);
        assert_eq!(verified(&world, &old).await.unwrap(), new, "a head of before still counts");
        let seqs: Vec<_> = entries(&world, "").await.iter().map(|entry| entry["seq"].clone()).collect();
        assert_eq!(seqs[..3], [6, 7, 8]);
        let [entry] = &entries(&world, "?action=audit.prune").await[..] else { panic!("one entry") };
        assert_eq!(entry["principal"]["name"], "certwright audit prune");
        assert_eq!(entry["reason"], format!("everything up to {old}"));

        assert_eq!(sealed(&world).await.seq, 9, "sealing goes on");
        assert_eq!(prune_to(&world, 5).await.unwrap(), 0);
    }

    async fn the_last_entry_stays_however_old_it_is(world: World) {
        let (_, new) = old_and_new(&world).await;
        world.clock.advance(Duration::days(10));

        assert_eq!(prune_to(&world, 5).await.unwrap(), 7);
        assert_eq!(head(&world).await.unwrap(), new);
        assert_eq!(sealed(&world).await.seq, 9);
        assert_eq!(head(&world).await.unwrap().seq, 9);
    }
}

/// What somebody does to a pruned log, and what is found then.
const DEEDS: [(&str, &str, Break); 4] = [
    ("the checkpoint removed", "DELETE FROM audit_checkpoints", Break::Gap(1)),
    ("more removed", "DELETE FROM audit_seals WHERE seq = 6", Break::Gap(6)),
    ("the checkpoint moved", "UPDATE audit_checkpoints SET seq = 6", Break::Checkpoint(6)),
    ("the checkpoint dated", "UPDATE audit_checkpoints SET at = at + 1", Break::Checkpoint(5)),
];

#[tokio::test]
async fn whatever_was_done_to_a_pruned_log_is_found_and_such_a_log_is_not_pruned_again() {
    for deed in DEEDS {
        let (_folder, url) = sqlite_url();
        is_found(&url, deed.clone()).await;
        is_found(&fresh_database().await, deed).await;
    }
}

async fn is_found(url: &str, (deed, statement, expected): (&str, &str, Break)) {
    let world = World::on(url).await;
    let (_, new) = old_and_new(&world).await;
    prune_to(&world, 5).await.unwrap();
    execute(url, &[statement]).await;

    let found = verified(&world, &new).await;
    assert!(
        matches!(&found, Err(VerifyError::Broken(found)) if *found == expected),
        "{deed}: {found:?}"
    );
    let before = entries(&world, "").await;
    let refused = prune_to(&world, 0).await;
    assert!(matches!(refused, Err(VerifyError::Broken(_))), "{deed}: {refused:?}");
    assert_eq!(entries(&world, "").await, before, "{deed}");
    world.db.close().await;
}
