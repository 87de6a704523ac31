//! Several certificates with one request, and waiting for several.

use axum::http::Method;
use serde_json::{Value, json};

use super::certificates::still_waits;
use crate::support::patience::within;
use crate::support::world::{Reply, World, certificate, id, on_every_database};

on_every_database! {
    async fn each_is_answered_by_itself(world: World) {
        world.create_issuer().await;
        world.create_certificate("there").await;
        let mut strange = certificate("strange");
        strange["dnsNames"] = json!(["not a name"]);
        let wanted = [certificate("one"), certificate("there"), strange, json!(["py"]), certificate("two")];

        let items = items(&batch(&world, &wanted, "").await);

        let statuses: Vec<_> = items.iter().map(|item| item["status"].clone()).collect();
        assert_eq!(statuses, [202, 409, 422, 422, 202]);
        assert_eq!(items[0]["certificate"]["name"], "one");
        assert_eq!(items[1]["problem"]["code"], "already_exists");
        assert_eq!(items[2]["problem"]["errors"][0]["pointer"], "/dnsNames/0");
        assert_eq!(items[3]["problem"]["errors"][0]["detail"], "expected an object");
        assert_eq!(world.certificates().await.len(), 3);
    }

    async fn one_key_is_for_all_and_makes_what_is_missing(world: World) {
        world.create_issuer().await;
        let there = world.create_certificate("there").await;
        let wanted = [certificate("one"), certificate("there")];
        let first = items(&batch(&world, &wanted, "key").await);
        assert_eq!((&first[0]["status"], &first[1]["status"]), (&json!(202), &json!(409)));
        world.delete(&format!("/certificates/{}", id(&there))).await;

        let second = items(&batch(&world, &wanted, "key").await);

        assert_eq!((&second[0]["status"], &second[1]["status"]), (&json!(202), &json!(202)));
        assert_eq!(second[0]["certificate"]["id"], first[0]["certificate"]["id"]);
        assert_eq!(world.certificates().await.len(), 2);
        let other = batch(&world, &[certificate("other")], "key").await;
        other.is_problem(422, "idempotency_key_reused");
    }

    async fn a_batch_has_from_one_to_two_hundred(world: World) {
        for many in [0, 201] {
            let wanted: Vec<_> = (0..many).map(|n| certificate(&format!("c{n}"))).collect();
            let problem = batch(&world, &wanted, "").await.is_problem(422, "validation_failed");
            assert_eq!(problem["errors"][0]["pointer"], "/items");
        }
    }

    async fn a_batch_that_is_only_tried_stores_nothing(world: World) {
        world.create_issuer().await;
        let ask = world.ask(Method::POST, "/certificates/batch?dryRun=true");
        let tried = ask.json(&json!({"items": [certificate("one"), certificate("one")]})).send().await;
        assert_eq!((items(&tried)[1]["status"].clone(), tried.header("dry-run")), (json!(202), "true"));
        assert!(world.certificates().await.is_empty());
    }

    async fn a_list_is_held_until_all_on_it_have_settled(world: World) {
        world.create_issuer().await;
        let [one, two] = [world.create_certificate("one").await, world.create_certificate("two").await];
        let orders = [world.db_order(&id(&one)).await, world.db_order(&id(&two)).await];
        let list = world.ask(Method::GET, "/certificates?fields=status.phase");
        let mut list = Box::pin(list.header("prefer", "wait=120").send());
        still_waits(&mut list).await;
        world.db_issue(&orders[0]).await;
        still_waits(&mut list).await;
        world.db_issue(&orders[1]).await;

        let listed = within("the list", list).await;
        assert_eq!(listed.json()["items"], json!([{"status": {"phase": "Ready"}}, {"status": {"phase": "Ready"}}]));
        assert_eq!(listed.header("preference-applied"), "wait=120");
    }
}

async fn batch(world: &World, wanted: &[Value], key: &str) -> Reply {
    let ask = world.ask(Method::POST, "/certificates/batch").json(&json!({"items": wanted}));
    if key.is_empty() { ask } else { ask.header("idempotency-key", key) }.send().await
}

#[track_caller]
fn items(reply: &Reply) -> Vec<Value> {
    assert_eq!(reply.status, 207, "{}", reply.text);
    reply.json()["items"].as_array().unwrap().clone()
}
