//! The audit log's tables, on both databases.

use std::sync::Arc;

use certwright::domain::audit::{Call, ChainKey, Entry, Head, Outcome};
use certwright::domain::id::AuditId;
use certwright::domain::principal::{PrincipalKind, PrincipalRef};
use certwright::storage::audit::{self, Author, Wanted};
use certwright::storage::{StorageError, audit_checkpoints, certificates};
use uuid::Uuid;

use super::rows::{NOW, certificate, page};
use crate::support::databases::on_both_databases;

fn entry(resource: &str) -> Entry {
    Entry {
        id: AuditId::generate(NOW).0,
        at: NOW,
        principal: Some(PrincipalRef {
            kind: PrincipalKind::Token,
            id: Some(Uuid::max()),
            name: "ci".into(),
        }),
        from: Some("192.0.2.1".into()),
        action: "certificates.create".into(),
        resource: resource.into(),
        namespace: "team".into(),
        outcome: Outcome::Failed,
        reason: Some("so".into()),
        request_id: "r".into(),
        count: 3,
    }
}

fn author() -> Author {
    let principal = PrincipalRef { kind: PrincipalKind::ApiKey, id: None, name: "admin".into() };
    let call = Call { collection: "certificates".into(), verb: "create".into(), ..Call::default() };
    Author { principal, call: Arc::new(call), at: NOW }
}

on_both_databases! {
    async fn entries_are_kept_and_sealed_in_their_order(db: Db) {
        let all = [entry("a"), entry("b"), Entry { principal: None, from: None, reason: None, ..entry("c") }];
        let mut tx = db.begin();
        for one in &all {
            audit::insert(&mut tx, one).await.unwrap();
        }
        tx.commit().await.unwrap();
        let mut read = db.read().await.unwrap();
        assert_eq!(audit::unsealed(&mut read, Uuid::nil(), 2).await.unwrap(), all[..2]);
        assert_eq!(audit::unsealed(&mut read, all[1].id, 9).await.unwrap(), all[1..]);
        assert_eq!(audit::head(&mut read).await.unwrap(), Head::beginning());
        drop(read);

        let key = ChainKey::new(b"key");
        let first = key.seal(&Head::beginning(), &all[0]);
        let mut tx = db.begin();
        audit::seal(&mut tx, all[0].id, &first).await.unwrap();
        tx.commit().await.unwrap();

        let mut read = db.read().await.unwrap();
        assert_eq!(audit::unsealed(&mut read, Uuid::nil(), 9).await.unwrap(), all[1..]);
        assert_eq!(audit::head(&mut read).await.unwrap(), Head { seq: 1, hash: first.hash.clone() });
        let chain = audit::chain(&mut read, 0, 9).await.unwrap();
        assert_eq!(chain, [(first.clone(), Some(all[0].clone()))]);
        let listed = audit::list(&mut read, &Wanted::default(), page()).await.unwrap().rows;
        let expected = [(all[0].clone(), Some(first.clone())), (all[1].clone(), None), (all[2].clone(), None)];
        assert_eq!(listed, expected);
        drop(read);

        // Whoever gives a number again, or an entry a second seal, is refused.
        for (id, seq) in [(all[1].id, 1), (all[0].id, 2)] {
            let mut tx = db.begin();
            let again = certwright::domain::audit::Seal { seq, ..first.clone() };
            let sealed = audit::seal(&mut tx, id, &again).await;
            let sealed = match sealed { Ok(()) => tx.commit().await, Err(error) => Err(error) };
            assert!(matches!(sealed, Err(StorageError::Conflict)), "{sealed:?}");
        }
    }

    async fn a_pruned_log_keeps_its_checkpoint_and_loses_the_oldest_entries_page_by_page(db: Db) {
        let key = ChainKey::new(b"key");
        let mut heads = vec![Head::beginning()];
        let mut tx = db.begin();
        for name in ["a", "b", "c", "d"] {
            let one = entry(name);
            let seal = key.seal(heads.last().unwrap(), &one);
            audit::insert(&mut tx, &one).await.unwrap();
            audit::seal(&mut tx, one.id, &seal).await.unwrap();
            heads.push(Head { seq: seal.seq, hash: seal.hash });
        }
        assert_eq!(audit_checkpoints::last(&mut tx).await.unwrap(), None);
        let (second, third) = (key.checkpoint(heads[2].clone(), NOW), key.checkpoint(heads[3].clone(), NOW));
        for checkpoint in [&second, &third] {
            audit_checkpoints::insert(&mut tx, checkpoint).await.unwrap();
        }
        let found = audit_checkpoints::last(&mut tx).await.unwrap().unwrap();
        assert_eq!(found, third);
        assert!(key.vouches_for(&found));

        let mut removed = Vec::new();
        for _ in 0..3 {
            removed.push(audit_checkpoints::prune(&mut tx, &third.head, 2).await.unwrap());
        }
        assert_eq!(removed, [2, 1, 0]);
        let left = audit::list(&mut tx, &Wanted::default(), page()).await.unwrap().rows;
        assert_eq!(left.iter().map(|(entry, _)| entry.resource.as_str()).collect::<Vec<_>>(), ["d"]);
        assert_eq!(audit::head(&mut tx).await.unwrap(), heads[4]);
    }

    async fn a_transaction_with_an_author_leaves_its_entry_or_nothing(db: Db) {
        let web = certificate("web");
        let mut undone = db.begin();
        audit::attribute(&mut undone, author());
        certificates::insert(&mut undone, &web).await.unwrap();
        drop(undone);
        let mut tx = db.begin();
        audit::attribute(&mut tx, author());
        tx.commit().await.unwrap();
        let mut read = db.read().await.unwrap();
        assert_eq!(audit::unsealed(&mut read, Uuid::nil(), 9).await.unwrap(), []);
        drop(read);

        let mut tx = db.begin();
        audit::attribute(&mut tx, author());
        certificates::insert(&mut tx, &web).await.unwrap();
        tx.commit().await.unwrap();
        let mut nobodys = db.begin();
        certificates::insert(&mut nobodys, &certificate("other")).await.unwrap();
        nobodys.commit().await.unwrap();

        let mut read = db.read().await.unwrap();
        let found = audit::unsealed(&mut read, Uuid::nil(), 9).await.unwrap();
        let [entry] = &found[..] else { panic!("{found:#?}") };
        assert_eq!((&*entry.action, entry.resource.clone()), ("certificates.create", format!("certificates/{}", web.id)));
    }
}
