//! API keys and policies that somebody has written into the database: they grant nothing, and all else goes on.

use std::sync::Arc;

use axum::http::Method;
use certwright::bootstrap;
use certwright::domain::api_key;
use certwright::reseal::reseal;
use certwright::secret::{Place, Sealer, Secret};
use certwright::storage::{
    Db, Page, Read, Scope, StorageError, api_keys, audit, policies, settings,
};
use certwright::verify::{Broken, Finding, Verified, verify};
use serde_json::json;

use super::on_both;
use crate::policies::{allow, path};
use crate::support::databases::SEALER;
use crate::support::former_schema::execute;
use crate::support::world::{World, certificate};

/// The hash of another key in the row of the administrator's.
const TAKEOVER: &str = "key_hash";

/// What somebody may do to the row of a key to be let in for more, or for longer.
const EDITS: [&str; 7] = [
    "UPDATE api_keys SET permissions = '[\"*\"]' WHERE name = 'limited'",
    "UPDATE api_keys SET namespaces = NULL WHERE name = 'limited'",
    "UPDATE api_keys SET role = 'admin' WHERE name = 'limited'",
    "UPDATE api_keys SET expires_at = 4102444800000 WHERE name = 'limited'",
    "UPDATE api_keys SET permissions = (SELECT permissions FROM api_keys WHERE name = 'admin'), \
     mac = (SELECT mac FROM api_keys WHERE name = 'admin') WHERE name = 'limited'",
    "UPDATE api_keys SET mac = NULL WHERE name = 'limited'",
    // Whoever has a value of this hash would be the administrator.
    TAKEOVER,
];

#[tokio::test]
async fn a_key_that_was_edited_in_the_database_lets_nobody_in_and_others_go_on() {
    for edit in EDITS {
        on_both(|url| is_refused(url, edit)).await;
    }
}

async fn is_refused(url: String, edit: &'static str) {
    let world = World::on(&url).await;
    let (limited, other) = (
        world.key(&["certificates:read"], &["team"]).await,
        world.key(&["certificates:read"], &["b"]).await,
    );
    world.db.close().await;
    let of_team = "name = 'limited' AND namespaces LIKE '%team%'";
    if edit == TAKEOVER {
        let hash = hex(&api_key::hash_key(&limited));
        let is_postgres = url.starts_with("postgres");
        let literal = if is_postgres { format!("'\\x{hash}'") } else { format!("x'{hash}'") };
        // The hash is unique: its owner has to go first.
        let delete = format!("DELETE FROM api_keys WHERE {of_team}");
        let set = format!("UPDATE api_keys SET key_hash = {literal} WHERE name = 'admin'");
        execute(&url, &[&delete, &set]).await;
    } else {
        execute(&url, &[&edit.replace("name = 'limited'", of_team)]).await;
    }

    let world = World::on(&url).await;
    let ask = async |key: &str| world.ask(Method::GET, "/certificates").with_key(key).send().await;
    ask(&limited).await.is_problem(401, "unauthenticated");
    assert_eq!(ask(&other).await.status, 200, "{edit}");
    assert_eq!(world.get("/certificates").await.status, 200, "{edit}");
    assert_eq!(broken(&world).await.len(), 1, "{edit}");
    world.db.close().await;
}

#[tokio::test]
async fn a_key_that_was_edited_is_deleted_and_never_rotated() {
    on_both(|url| async move {
        let world = World::on(&url).await;
        let limited = world.key(&["certificates:read"], &["team"]).await;
        let whoami = world.ask(Method::GET, "/whoami").with_key(&limited).send().await.json();
        let path = format!("/api-keys/{}", whoami["id"].as_str().unwrap());
        world.db.close().await;
        execute(&url, &[EDITS[0]]).await;

        let world = World::on(&url).await;
        let problem =
            world.post(&format!("{path}/rotate"), json!({})).await.is_problem(409, "not_authentic");
        assert!(problem["detail"].as_str().unwrap().contains("Delete it"), "{problem}");
        assert_eq!(world.delete(&path).await.status, 204);
        assert_eq!(broken(&world).await, []);
        world.db.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_policy_that_was_edited_allows_nothing_and_is_not_made_whole_by_a_change() {
    for edit in [
        "UPDATE policies SET spec = replace(spec, 'team.example.com', 'bank.example.com') WHERE name = 'team'",
        "UPDATE policies SET mac = NULL WHERE name = 'team'",
        "UPDATE policies SET name = 'other', mac = (SELECT mac FROM api_keys LIMIT 1) WHERE name = 'team'",
    ] {
        on_both(|url| async move {
            let world = World::on(&url).await;
            world.create_issuer().await;
            let policy = allow(&world, "team", "team", &["**.team.example.com"]).await;
            allow(&world, "other-team", "team", &["**.shop.example.com"]).await;
            let tenant = world.key(&["certificates:write"], &["team"]).await;
            world.db.close().await;
            execute(&url, &[edit]).await;

            let world = World::on(&url).await;
            let wants = async |name: &str| {
                let mut wanted = certificate("web");
                wanted["namespace"] = json!("team");
                wanted["dnsNames"] = json!([name]);
                world
                    .ask(Method::POST, "/certificates")
                    .with_key(&tenant)
                    .json(&wanted)
                    .send()
                    .await
            };
            wants("a.bank.example.com").await.is_problem(403, "name_not_allowed");
            wants("a.team.example.com").await.is_problem(403, "name_not_allowed");
            wants("a.shop.example.com").await.accepted();
            let mut next = crate::policies::policy("team", "team", &["**.x.example.com"]);
            next["name"] = world.get(&path(&policy)).await.json()["name"].clone();
            world.put(&path(&policy), next).await.is_problem(409, "not_authentic");
            assert_eq!(world.delete(&path(&policy)).await.status, 204);
            world.db.close().await;
        })
        .await;
    }
}

/// A namespace that is added to the index of another's policy.
#[tokio::test]
async fn a_policy_is_for_the_namespaces_that_were_signed() {
    on_both(|url| async move {
        let world = World::on(&url).await;
        let policy = allow(&world, "team", "team", &["**.team.example.com"]).await;
        let added =
            "INSERT INTO policy_namespaces (policy_id, namespace) SELECT id, 'evil' FROM policies";
        execute(&url, &[added]).await;

        let mut read = world.db.read().await.unwrap();
        let found = policies::of_namespace(&mut read, "evil").await.unwrap();
        assert_eq!(names(&mut read).await, [policy["name"].as_str().unwrap()]);
        drop(read);
        assert!(format!("{found:?}").contains("all: []"), "{found:?}");
        world.db.close().await;
    })
    .await;
}

async fn names(read: &mut Read) -> Vec<String> {
    let wanted = policies::Wanted::default();
    let found = policies::list(read, &wanted, Page::first(10)).await.unwrap().rows;
    found.into_iter().map(|policy| policy.name).collect()
}

#[tokio::test]
async fn rows_of_before_are_signed_once_and_a_row_without_a_mac_is_refused_from_then_on() {
    on_both(|url| async move {
        let world = World::on(&url).await;
        let limited = world.key(&["certificates:read"], &["team"]).await;
        allow(&world, "team", "team", &["**.team.example.com"]).await;
        db_word(&world.db, b"certwright").await;
        world.db.close().await;
        execute(&url, &["UPDATE api_keys SET mac = NULL", "UPDATE policies SET mac = NULL"]).await;

        // Two replicas start at once.
        let (one, other) = (Db::connect(&url).await.unwrap(), Db::connect(&url).await.unwrap());
        let now = world.now();
        let (a, b) = tokio::join!(
            bootstrap::authenticate_grants(&one, &SEALER, now),
            bootstrap::authenticate_grants(&other, &SEALER, now)
        );
        a.unwrap();
        b.unwrap();
        let world = World::over(one).await;
        assert_eq!(broken(&world).await, []);
        let reply = world.ask(Method::GET, "/certificates").with_key(&limited).send().await;
        assert_eq!(reply.status, 200);
        let entries = world.get("/audit?action=grants.sign").await.json();
        assert_eq!(entries["items"].as_array().unwrap().len(), 1, "{entries:#}");

        execute(&url, &["UPDATE policies SET mac = NULL"]).await;
        bootstrap::authenticate_grants(&world.db, &SEALER, now).await.unwrap();
        let [policy] = &broken(&world).await[..] else { panic!("one is broken") };
        assert_eq!((policy.kind, policy.name.as_str()), ("policy", "team"));
        other.close().await;
        world.db.close().await;
    })
    .await;
}

/// Whoever only writes the database can delete the word that says whether rows were signed, and not set it back.
#[tokio::test]
async fn a_database_whose_word_was_removed_is_not_signed_again() {
    on_both(|url| async move {
        let world = World::on(&url).await;
        let limited = world.key(&["certificates:read"], &["team"]).await;
        world.db.close().await;
        execute(
            &url,
            &[
                EDITS[0],
                "UPDATE api_keys SET mac = NULL",
                "DELETE FROM settings WHERE name = 'master_key_check'",
            ],
        )
        .await;

        let db = Db::connect(&url).await.unwrap();
        bootstrap::check_master_key(&db, sealer(&[7])).await.unwrap();
        bootstrap::authenticate_grants(&db, &SEALER, world.now()).await.unwrap();
        let hash = api_key::hash_key(&limited);
        let found = api_keys::find_by_hash(&mut db.read().await.unwrap(), &hash).await.unwrap();
        assert_eq!(found, None);
        db.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_rotation_of_the_master_key_signs_anew_what_the_service_has_written_and_nothing_else() {
    on_both(|url| async move {
        let world = World::on(&url).await;
        db_word(&world.db, b"certwright, grants signed").await;
        let limited = world.key(&["certificates:read"], &["team"]).await;
        world.key(&["certificates:read"], &["b"]).await;
        execute(&url, &["UPDATE api_keys SET permissions = '[\"*\"]' WHERE namespaces LIKE '%b%'"])
            .await;
        let (both, new) = (sealer(&[9, 7]), sealer(&[9]));

        let done = reseal(&world.db, &both, world.now()).await.unwrap();
        assert_eq!(
            (done.signed, done.refused),
            (2, 1),
            "the admin's and that of `team`; that of `b` was edited"
        );
        let again = reseal(&world.db, &both, world.now()).await.unwrap();
        assert_eq!((again.signed, again.refused), (0, 1));
        let wanted =
            audit::Wanted { action: Some("masterKey.rotate".into()), ..audit::Wanted::default() };
        let mut read = world.db.read().await.unwrap();
        let entries = audit::list(&mut read, &wanted, Page::first(10)).await.unwrap().rows;
        assert_eq!(entries.len(), 1, "{entries:?}");
        drop(read);

        let db = Db::connect(&url).await.unwrap();
        db.authenticate_rows(Arc::new(new));
        let hash = api_key::hash_key(&limited);
        assert!(
            api_keys::find_by_hash(&mut db.read().await.unwrap(), &hash).await.unwrap().is_some()
        );
        db.close().await;
        world.db.close().await;
    })
    .await;
}

#[tokio::test]
async fn without_the_master_key_no_grant_is_read_or_written() {
    on_both(|url| async move {
        let world = World::on(&url).await;
        world.db.close().await;
        let db = Db::connect(&url).await.unwrap();
        let hash = api_key::hash_key(&world.admin);
        let found = api_keys::find_by_hash(&mut db.read().await.unwrap(), &hash).await;
        assert!(matches!(found, Err(StorageError::NoMacKey)), "{found:?}");
        db.close().await;
    })
    .await;
}

/// The rows that are broken; all were looked at.
pub(super) async fn broken(world: &World) -> Vec<Broken> {
    let mut found = Vec::new();
    let verified = verify(&world.db, &SEALER, |finding| {
        if let Finding::Broken(row) = finding {
            found.push(row);
        }
    });
    let Verified { broken, grants, .. } = verified.await.unwrap();
    let mut read = world.db.read().await.unwrap();
    let keys =
        api_keys::list(&mut read, &Scope::Everything, None, Page::first(100)).await.unwrap().rows;
    assert_eq!(usize::try_from(grants), Ok(keys.len() + names(&mut read).await.len()));
    assert_eq!(usize::try_from(broken), Ok(found.len()));
    found
}

/// Makes the database one that was left at this word.
pub(super) async fn db_word(db: &Db, word: &[u8]) {
    let sealed = SEALER.seal(&Place::of_service("settings/value/master_key_check"), word).unwrap();
    let mut tx = db.begin();
    assert!(settings::insert(&mut tx, "master_key_check", &sealed.0).await.unwrap());
    tx.commit().await.unwrap();
}

pub(super) fn sealer(bytes: &[u8]) -> Sealer {
    use base64::Engine as _;
    let lines: Vec<_> = bytes
        .iter()
        .map(|byte| base64::engine::general_purpose::STANDARD.encode([*byte; 32]))
        .collect();
    Sealer::from_text(&Secret::new(lines.join("\n"))).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
