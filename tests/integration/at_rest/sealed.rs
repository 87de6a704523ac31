//! Secrets that somebody has moved or put back in the database: they do not open.

use axum::http::Method;
use certwright::bootstrap;
use certwright::reseal::{ResealError, reseal};
use certwright::secret::{Place, Sealed};
use certwright::storage::{Db, sealed_columns, secrets};
use certwright::verify::Broken;
use serde_json::{Value, json};
use uuid::Uuid;

use super::grants::{broken, db_word, sealer};
use super::on_both;
use crate::support::databases::SEALER;
use crate::support::former_schema::execute;
use crate::support::world::{World, certificate, id};

/// What somebody may do to have another's private key served in the namespace `evil`.
const MOVES: [(&str, &[&str]); 2] = [
    (
        "the certificate in another namespace",
        &["UPDATE certificates SET namespace = 'evil' WHERE namespace = 'default'"],
    ),
    (
        "the key in a revision of another certificate",
        &[
            "UPDATE revisions SET request_id = (SELECT request_id FROM revisions WHERE certificate_id IN \
                (SELECT id FROM certificates WHERE namespace = 'default')), \
             private_key = (SELECT private_key FROM revisions WHERE certificate_id IN \
                (SELECT id FROM certificates WHERE namespace = 'default')) \
             WHERE certificate_id IN (SELECT id FROM certificates WHERE namespace = 'evil')",
        ],
    ),
];

#[tokio::test]
async fn a_private_key_that_was_moved_to_another_tenant_is_not_handed_out() {
    for (what, statements) in MOVES {
        on_both(|url| async move {
            let world = World::on(&url).await;
            world.create_issuer().await;
            let victim = issue(&world, "default", "web").await;
            let own = issue(&world, "evil", "own").await;
            assert_eq!(broken(&world).await, []);
            let tenant = world.key(&["certificates:read", "certificates:readKey"], &["evil"]).await;
            let download = async |world: &World, certificate: &Value| {
                let path = format!("/certificates/{}/privkey.pem", id(certificate));
                world.ask(Method::GET, &path).with_key(&tenant).send().await
            };
            assert_eq!(download(&world, &own).await.status, 200);
            download(&world, &victim).await.is_problem(404, "not_found");
            world.db.close().await;

            execute(&url, statements).await;

            let world = World::on(&url).await;
            let moved = if what.starts_with("the certificate") { &victim } else { &own };
            download(&world, moved).await.is_problem(500, "internal");
            let found = broken(&world).await;
            assert!(found.iter().any(|row| row.kind == "private key of"), "{what}: {found:?}");
            world.db.close().await;
        })
        .await;
    }
}

#[tokio::test]
async fn a_secret_that_was_moved_to_another_namespace_does_not_open_and_is_named() {
    on_both(|url| async move {
        let world = World::on(&url).await;
        store(&world, "team").await;
        execute(&url, &["UPDATE secrets SET namespace = 'evil'"]).await;

        let found = broken(&world).await;
        let [Broken { kind, name, problem, .. }] = &found[..] else { panic!("{found:?}") };
        assert_eq!((*kind, name.as_str()), ("Secret", "evil/token"));
        assert!(problem.contains("another row or namespace"), "{problem}");
        world.db.close().await;
    })
    .await;
}

/// Sealed by a version that authenticated `table/column/row` alone.
#[tokio::test]
async fn secrets_of_before_open_until_a_rotation_seals_them_anew_and_never_again() {
    on_both(|url| async move {
        let world = World::on(&url).await;
        db_word(&world.db, b"certwright, grants signed").await;
        store(&world, "team").await;
        let former = db_former(&world.db, b"{\"k\":\"v\"}").await;

        let lenient = bootstrap::check_master_key(&world.db, sealer(&[7])).await.unwrap();
        let (place, sealed) = db_secret(&world.db).await;
        assert_eq!(sealed, former);
        assert_eq!(lenient.open(&place, &sealed).unwrap().expose(), b"{\"k\":\"v\"}");

        let done = reseal(&world.db, &lenient, world.now()).await.unwrap();
        assert_eq!((done.changed, done.all), (1, 1));
        let strict = bootstrap::check_master_key(&world.db, sealer(&[7])).await.unwrap();
        let (place, sealed) = db_secret(&world.db).await;
        assert_eq!(strict.open(&place, &sealed).unwrap().expose(), b"{\"k\":\"v\"}");
        let done = reseal(&world.db, &strict, world.now()).await.unwrap();
        assert_eq!(done.changed, 0);

        db_former(&world.db, b"{\"k\":\"v\"}").await;
        let found = broken(&world).await;
        assert!(matches!(&found[..], [row] if row.problem.contains("put it back")), "{found:?}");
        let refused = reseal(&world.db, &strict, world.now()).await;
        assert!(matches!(refused, Err(ResealError::Secret { .. })), "{refused:?}");
        world.db.close().await;
    })
    .await;
}

/// A certificate with a served revision.
async fn issue(world: &World, namespace: &str, name: &str) -> Value {
    let mut wanted = certificate(name);
    wanted["namespace"] = json!(namespace);
    let made = world.post("/certificates", wanted).await.accepted();
    let order = world.db_order(&id(&made)).await;
    world.db_issue(&order).await;
    made
}

async fn store(world: &World, namespace: &str) {
    let secret = json!({"namespace": namespace, "name": "token", "stringData": {"k": "v"}});
    world.post("/secrets", secret).await.accepted();
}

async fn db_secret(db: &Db) -> (Place, Sealed) {
    let mut read = db.read().await.unwrap();
    let (id, sealed) = secrets::data(&mut read, "team", "token").await.unwrap().unwrap();
    (secrets::data_place("team", id), sealed)
}

/// Puts an envelope of before in the place of the only secret.
async fn db_former(db: &Db, plain: &[u8]) -> Sealed {
    let column = &sealed_columns::COLUMNS[0];
    let mut tx = db.begin();
    let known =
        sealed_columns::list(&mut tx, column, (Uuid::nil(), i64::MIN), 1).await.unwrap().remove(0);
    let row = format!("{}/{}", column.place, known.key.0);
    let mut former = SEALER.seal(&Place::of_service(&row), plain).unwrap();
    former.0[0] = 1;
    assert!(sealed_columns::replace(&mut tx, column, &known, &former).await.unwrap());
    tx.commit().await.unwrap();
    former
}
