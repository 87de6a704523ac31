//! What is sealed, hashed or set, on both databases.

use certwright::domain::api_key::ApiKey;
use certwright::domain::id::SecretId;
use certwright::secret::Sealed;
use certwright::storage::grants::{self, Table};
use certwright::storage::secrets::{self, SecretEntry};
use certwright::storage::{Scope, api_keys, requests, revisions, sealed_columns, settings};
use time::Duration;

use super::rows::{NOW, all, page, revision, under_way};
use crate::support::databases::{SEALER, on_both_databases};

on_both_databases! {
    async fn sealed_secrets_are_gone_through_in_batches_and_replaced_only_as_they_were_read(db: Db) {
        let mut tx = db.begin();
        let (certificate, order, _) = under_way(&mut tx).await;
        for number in 1..=5 {
            revisions::insert(&mut tx, &revision(&certificate, &order, number), 9, "done").await.unwrap();
        }
        let column = &sealed_columns::COLUMNS[5];
        let mut after = (uuid::Uuid::nil(), i64::MIN);
        let mut seen = Vec::new();
        loop {
            let found = sealed_columns::list(&mut tx, column, after, 2).await.unwrap();
            let Some(last) = found.last() else { break };
            after = last.key;
            seen.extend(found);
        }
        let numbers: Vec<_> = seen.iter().map(|envelope| envelope.key.1).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5]);
        let place = requests::private_key_place(&certificate.namespace, certificate.id, order.request);
        assert_eq!(seen[0].place, place);
        assert_eq!(seen[0].name, format!("{}/{}, revision 1", certificate.namespace, certificate.name));
        assert_eq!(seen[0].sealed, Sealed(vec![9]));
        for column in &sealed_columns::COLUMNS[..5] {
            let after = (uuid::Uuid::nil(), i64::MIN);
            let found = sealed_columns::list(&mut tx, column, after, 9).await.unwrap();
            assert_eq!(found.len(), usize::from(column.place.starts_with("requests")));
        }

        let next = Sealed(vec![7]);
        assert!(sealed_columns::replace(&mut tx, column, &seen[1], &next).await.unwrap());
        assert!(!sealed_columns::replace(&mut tx, column, &seen[1], &next).await.unwrap(), "it is another by now");
        let (now, _) = revisions::private_key(&mut tx, certificate.id, 2).await.unwrap().unwrap();
        assert_eq!(now, Some(next));
    }

    async fn secrets_are_kept_sealed_and_replaced_as_a_whole(db: Db) {
        let mut tx = db.begin();
        let mut one = SecretEntry {
            id: SecretId::generate(NOW), namespace: "default".into(), name: "token".into(),
            keys: vec!["api-token".into()], created_at: NOW, updated_at: NOW,
        };
        secrets::insert(&mut tx, &one, &Sealed(vec![1])).await.unwrap();
        one.keys = vec!["other".into()];
        one.updated_at = NOW + Duration::minutes(1);
        secrets::update(&mut tx, &one, &Sealed(vec![2])).await.unwrap();

        assert_eq!(secrets::find(&mut tx, one.id, &all()).await.unwrap(), Some(one.clone()));
        let data = secrets::data(&mut tx, "default", "token").await.unwrap();
        assert_eq!(data, Some((one.id, Sealed(vec![2]))));
        let wanted = secrets::Wanted { namespace: Some("default".into()), name: Some("token".into()) };
        assert_eq!(secrets::list(&mut tx, &all(), &wanted, page()).await.unwrap().rows, std::slice::from_ref(&one));
        let named = secrets::find_by_name(&mut tx, "default", "token").await.unwrap();
        assert_eq!(named, Some((one.clone(), Sealed(vec![2]))));
        secrets::delete(&mut tx, one.id).await.unwrap();
        assert_eq!(secrets::data(&mut tx, "default", "token").await.unwrap(), None);
    }

    async fn grants_are_gone_through_in_pages_and_signed_only_as_they_were_read(db: Db) {
        let mut tx = db.begin();
        for number in 0..3 {
            let key = ApiKey::new("ci", vec![], Scope::Everything, NOW);
            api_keys::insert(&mut tx, &key, &[number; 32]).await.unwrap();
        }
        let page = grants::list(&mut tx, Table::ApiKeys, uuid::Uuid::nil(), 2).await.unwrap();
        let rest = grants::list(&mut tx, Table::ApiKeys, page[1].id, 2).await.unwrap();
        assert_eq!((page.len(), rest.len()), (2, 1));
        assert_eq!(grants::list(&mut tx, Table::Policies, uuid::Uuid::nil(), 2).await.unwrap(), []);
        let [one, ..] = &page[..] else { unreachable!() };
        assert_eq!(one.name, "ci");
        assert!(SEALER.verifies(&one.text, one.mac.as_deref().unwrap()));

        assert!(grants::sign(&mut tx, Table::ApiKeys, one, &[1]).await.unwrap());
        assert!(!grants::sign(&mut tx, Table::ApiKeys, one, &[2]).await.unwrap(), "it has another by now");
        let now = grants::list(&mut tx, Table::ApiKeys, uuid::Uuid::nil(), 1).await.unwrap();
        assert_eq!(now[0].mac, Some(vec![1]));
    }

    async fn a_setting_is_set_once(db: Db) {
        let mut tx = db.begin();
        assert!(settings::insert(&mut tx, "id", b"first").await.unwrap());
        assert!(!settings::insert(&mut tx, "id", b"second").await.unwrap());
        assert_eq!(settings::find(&mut tx, "id").await.unwrap(), Some(b"first".to_vec()));
        assert_eq!(settings::find(&mut tx, "other").await.unwrap(), None);
        assert!(!settings::replace(&mut tx, "id", b"second", b"third").await.unwrap());
        assert!(settings::replace(&mut tx, "id", b"first", b"third").await.unwrap());
        for value in [b"put", b"new"] {
            settings::put(&mut tx, "other", value).await.unwrap();
            assert_eq!(settings::find(&mut tx, "other").await.unwrap(), Some(value.to_vec()));
        }
    }
}

/// Whoever adds a column of sealed secrets must have it sealed anew, too.
#[test]
fn every_sealed_column_is_known_to_the_rotation() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/postgres");
    let mut columns = 0;
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap();
        columns += text
            .lines()
            .filter(|line| line.contains("BYTEA") && line.contains("-- sealed"))
            .count();
    }
    assert!(columns >= 4, "{columns}");
    assert_eq!(sealed_columns::COLUMNS.len(), columns, "see src/storage/sealed.rs");
}
