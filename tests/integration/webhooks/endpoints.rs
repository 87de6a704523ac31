//! Webhooks as a resource: permissions, event types, secrets, tests, the log.

use axum::http::Method;
use serde_json::{Value, json};
use time::Duration;

use super::{
    deliveries, deliveries_path, hooked, is_signed, issued, only_delivery, ordered_as, path,
    reasons, renew, secret, show,
};
use crate::support::receiver::Reply;
use crate::support::world::{World, certificate, id, on_every_database};

on_every_database! {
    async fn the_secret_is_shown_once_and_never_again(world: World) {
        let (receiver, _) = hooked(&world, json!({})).await;
        let wanted = json!({"url": receiver.url(), "description": "deploy"});
        let create = || world.ask(Method::POST, "/webhooks").header("idempotency-key", "one").json(&wanted);
        let first = create().send().await;
        let hook = first.accepted();
        assert!(secret(&hook).starts_with("whsec_"));
        assert_eq!(first.header("cache-control"), "no-store");

        let replay = create().send().await;
        assert_eq!((replay.header("idempotency-replayed"), &replay.accepted()["id"]), ("true", &hook["id"]));
        let shown = world.get(&path(&hook)).await;
        assert_eq!(shown.header("etag"), first.header("etag"));
        let listed = world.get("/webhooks").await;
        let patched = world.patch(&path(&hook), json!({"description": null})).await;

        for answer in [replay, shown, listed, patched] {
            assert!(!answer.text.contains("whsec_") && !answer.text.contains("\"secret\""), "{}", answer.text);
        }
        let events = world.get("/events?limit=500").await.text;
        assert!(!events.contains("whsec_"), "{events}");
    }

    async fn a_name_is_unique_in_its_namespace_stays_and_is_an_address(world: World) {
        let (receiver, unnamed) = hooked(&world, json!({})).await;
        let name = unnamed["name"].as_str().unwrap();
        assert!(name.starts_with("webhook-") && id(&unnamed).ends_with(&name["webhook-".len()..]), "{name}");
        let wanted = |namespace: &str| json!({"namespace": namespace, "name": "deploy", "url": receiver.url()});
        let made = world.post("/webhooks", wanted("default")).await.accepted();
        world.post("/webhooks?dryRun=true", wanted("default")).await.is_problem(409, "already_exists");
        let taken = world.post("/webhooks", wanted("default")).await.is_problem(409, "already_exists");
        assert_eq!(taken["detail"], "There is a webhook `deploy` in the namespace `default` already. Change it with PATCH.");
        world.post("/webhooks", wanted("shop")).await.accepted();

        let by_name = "/webhooks/by-name/default/deploy";
        let (shown, known) = (world.get(by_name).await, world.get(&path(&made)).await);
        assert_eq!((shown.json(), shown.header("etag")), (known.json(), known.header("etag")));
        let listed = world.get("/webhooks?name=deploy&namespace=default").await.json();
        assert_eq!(listed["items"], json!([known.json()]));
        let patched = world.patch(by_name, json!({"description": "of the shop"})).await.json();
        assert_eq!((&patched["description"], &patched["name"]), (&json!("of the shop"), &json!("deploy")));
        let renamed = world.patch(by_name, json!({"name": "other"})).await.is_problem(422, "validation_failed");
        assert_eq!(renamed["errors"][0]["pointer"], "/name");
        let tested = world.post(&format!("{by_name}/test"), Value::Null).await.accepted();
        let log = world.get(&format!("{by_name}/deliveries")).await.json();
        assert_eq!(log["items"][0]["id"], tested["id"]);
        assert_eq!(world.post(&format!("{by_name}/rotate"), json!({})).await.status, 200);
        assert_eq!(world.delete(by_name).await.status, 204);
        let missing = world.get(by_name).await.is_problem(404, "not_found");
        assert_eq!(missing["detail"], "There is no webhook `deploy` in the namespace `default`.");
        assert_eq!(world.get("/webhooks/by-name/shop/deploy").await.status, 200);
    }

    async fn what_cannot_work_is_refused_at_once(world: World) {
        for (wanted, pointer) in [
            (json!({"url": "not a url"}), "/url"),
            (json!({"url": "http://hooks.example/"}), "/url"),
            (json!({"url": "https://10.0.0.1/"}), "/url"),
            (json!({"url": "https://169.254.169.254/latest"}), "/url"),
            (json!({"url": "https://user:word@hooks.example/"}), "/url"),
            (json!({"url": "https://does-not-resolve.example/"}), "/url"),
            (json!({"url": "https://1.1.1.1/", "events": ["certificate.lost"]}), "/events/0"),
            (json!({"url": "https://1.1.1.1/", "namespaces": ["*", "team"]}), "/namespaces"),
            (json!({"url": "https://1.1.1.1/", "namespaces": ["team", "No!"]}), "/namespaces/1"),
            (json!({"url": "https://1.1.1.1/", "selector": "some"}), "/selector"),
            (json!({"url": "https://1.1.1.1/", "colour": 1}), "/colour"),
            (json!({"url": "https://1.1.1.1/", "name": "Not a name"}), "/name"),
            (json!({}), "/url"),
        ] {
            let problem = world.post("/webhooks", wanted.clone()).await.is_problem(422, "validation_failed");
            assert_eq!(problem["errors"][0]["pointer"], pointer, "{wanted}");
        }
        assert!(world.get("/webhooks").await.json()["items"].as_array().unwrap().is_empty());
    }

    async fn a_key_of_namespaces_makes_webhooks_within_them_only(world: World) {
        let team = world.key(&["webhooks:read", "webhooks:write"], &["team"]).await;
        let reader = world.key(&["webhooks:read"], &["team"]).await;
        let (receiver, everything) = hooked(&world, json!({"namespace": "team", "namespaces": ["*"]})).await;
        let make = |more: Value| {
            let mut wanted = json!({"url": receiver.url(), "namespace": "team"});
            for (key, value) in more.as_object().unwrap() {
                wanted[key] = value.clone();
            }
            wanted
        };
        let send = |key: String, wanted: Value| {
            let world = &world;
            async move { world.ask(Method::POST, "/webhooks").with_key(&key).json(&wanted).send().await }
        };

        for beyond in [json!({"namespace": "default"}), json!({"namespaces": ["team", "default"]}), json!({"namespaces": ["*"]})] {
            send(team.clone(), make(beyond)).await.is_problem(403, "permission_denied");
        }
        send(reader, make(json!({}))).await.is_problem(403, "permission_denied");
        let own = send(team.clone(), make(json!({}))).await.accepted();
        assert_eq!(own["namespaces"], json!(["team"]));

        let seen = world.ask(Method::GET, "/webhooks").with_key(&team).send().await.json();
        assert_eq!(seen["items"].as_array().unwrap().len(), 1, "one that hears of others is not theirs");
        for (method, path) in [
            (Method::GET, path(&everything)),
            (Method::GET, deliveries_path(&everything)),
            (Method::POST, format!("{}/test", path(&everything))),
            (Method::POST, format!("{}/rotate", path(&everything))),
            (Method::DELETE, path(&everything)),
        ] {
            world.ask(method, &path).with_key(&team).send().await.is_problem(404, "not_found");
        }
        let widen = world.ask(Method::PATCH, &path(&own)).with_key(&team).json(&json!({"namespaces": ["*"]}));
        widen.send().await.is_problem(403, "permission_denied");
    }

    async fn each_hears_what_it_asked_for(world: World) {
        let (labelled, _) = hooked(&world, json!({"labels": {"team": "web"}, "events": ["certificate.issued"]})).await;
        let (elsewhere, _) = hooked(&world, json!({"namespaces": ["other"]})).await;
        let (everywhere, _) = hooked(&world, json!({"namespaces": ["*"]})).await;
        let (named, hook) = hooked(&world, json!({"selector": "named"})).await;
        let mut with_label = certificate("with-label");
        with_label["labels"] = json!({"team": "web", "tier": "front"});
        let mut naming = certificate("naming");
        naming["webhooks"] = json!([hook["id"]]);
        for wanted in [certificate("plain"), with_label, naming] {
            let web = ordered_as(&world, wanted).await;
            renew(&world, &web).await;
            renew(&world, &web).await;
        }

        world.deliver().await;

        assert_eq!(labelled.types(), ["certificate.issued"]);
        assert_eq!(elsewhere.got().len(), 0);
        assert_eq!(everywhere.got().len(), 6);
        assert_eq!(named.types(), ["certificate.issued", "certificate.renewed"]);
        assert_eq!(named.got()[0].json()["data"]["name"], "naming");
    }

    async fn a_certificate_names_only_webhooks_that_hear_of_it(world: World) {
        world.create_issuer().await;
        let (_receiver, elsewhere) = hooked(&world, json!({"namespaces": ["other"], "selector": "named"})).await;
        let (_receiver, here) = hooked(&world, json!({"selector": "named"})).await;
        for webhook in [elsewhere["id"].clone(), json!("019ab000-0000-7000-8000-000000000000")] {
            let mut wanted = certificate("web");
            wanted["webhooks"] = json!([here["id"], webhook]);
            let problem = world.post("/certificates", wanted).await.is_problem(422, "validation_failed");
            assert_eq!(problem["errors"][0]["pointer"], "/webhooks/1");
            assert_eq!(problem["errors"][0]["code"], "webhook_not_found");
        }
        let mut wanted = certificate("web");
        wanted["webhooks"] = json!([here["id"]]);
        let web = world.post("/certificates", wanted).await.accepted();
        assert_eq!(web["webhooks"], json!([here["id"]]));
        assert_eq!(world.delete(&path(&here)).await.status, 204);

        let patched = world.patch(&format!("/certificates/{}", id(&web)), json!({"renewBefore": "240h"})).await;
        assert_eq!(patched.status, 200, "one that is gone since is no obstacle: {}", patched.text);
    }

    async fn after_a_rotation_both_secrets_sign_for_a_day(world: World) {
        let (receiver, hook) = hooked(&world, json!({})).await;
        let old = secret(&hook).to_owned();
        let rotated = world.ask(Method::POST, &format!("{}/rotate", path(&hook))).send().await;
        assert_eq!(rotated.status, 200, "{}", rotated.text);
        let new = secret(&rotated.json()).to_owned();
        assert_ne!(old, new);
        assert!(show(&world, &hook).await["status"]["formerSecretUntil"].is_string());

        issued(&world, "one").await;
        world.deliver().await;
        world.clock.advance(Duration::hours(25));
        issued(&world, "two").await;
        world.deliver().await;

        let got = receiver.got();
        assert_eq!(got[0].header("webhook-signature").split(' ').count(), 2);
        assert!(is_signed(&got[0], &old) && is_signed(&got[0], &new));
        assert!(!is_signed(&got[1], &old) && is_signed(&got[1], &new));
        assert!(reasons(&world, &hook).await.contains(&"SecretRotated".to_owned()));
    }

    async fn a_secret_that_others_know_is_void_at_once(world: World) {
        let (receiver, hook) = hooked(&world, json!({})).await;
        let rotate = format!("{}/rotate", path(&hook));
        world.post(&rotate, json!({"formerValidFor": "9000h"})).await.is_problem(422, "validation_failed");
        let new = world.post(&rotate, json!({"formerValidFor": "0s"})).await.json();
        issued(&world, "web").await;
        world.deliver().await;

        let got = receiver.got();
        assert!(!is_signed(&got[0], secret(&hook)) && is_signed(&got[0], secret(&new)));
    }

    async fn a_test_comes_first_and_its_result_is_told_to_who_waits(world: World) {
        let (receiver, hook) = hooked(&world, json!({})).await;
        receiver.usually_answers(Reply::Status(500));
        for n in 0..4 {
            issued(&world, &format!("web-{n}")).await;
        }
        world.deliver().await;
        let seen = receiver.got().len();
        let running = tokio::spawn(world.worker().run_deliveries());
        let test = format!("{}/test", path(&hook));
        let ask = || world.ask(Method::POST, &test).header("prefer", "wait=20").send();

        let failed = ask().await;
        assert_eq!(failed.header("preference-applied"), "wait=20");
        assert_eq!(failed.accepted()["state"], "dead");
        assert_eq!(failed.accepted()["responseStatus"], 500);
        assert_eq!(receiver.got()[seen].kind(), "webhook.test", "although the endpoint is left alone");
        assert_eq!(world.get(failed.header("location")).await.json()["id"], failed.accepted()["id"]);
        receiver.usually_answers(Reply::Status(202));
        assert_eq!(ask().await.accepted()["state"], "delivered");

        // The endpoint accepts messages again, so nothing waits any longer.
        receiver.until(seen + 2 + 4).await;
        assert_eq!(show(&world, &hook).await["status"]["phase"], "Ready");
        running.abort();
    }

    async fn a_disabled_webhook_is_sent_nothing_but_tests(world: World) {
        let (receiver, hook) = hooked(&world, json!({"disabled": true})).await;
        issued(&world, "web").await;
        world.post(&format!("{}/test", path(&hook)), json!({})).await.accepted();

        world.deliver().await;

        assert_eq!(receiver.types(), ["webhook.test"]);
        let held = deliveries(&world, &hook, "?state=held").await;
        assert_eq!((held.len(), &held[0]["type"]), (1, &json!("certificate.issued")));
        let enabled = world.patch(&path(&hook), json!({"disabled": false})).await.json();
        assert_eq!((&enabled["disabled"], &enabled["status"]["phase"]), (&json!(false), &json!("Ready")));
    }

    async fn the_log_is_filtered_and_paged(world: World) {
        let (receiver, hook) = hooked(&world, json!({})).await;
        let first = issued(&world, "one").await;
        world.clock.advance(Duration::minutes(1));
        let since = "2026-11-24T12:01:00Z";
        renew(&world, &first).await;
        issued(&world, "two").await;
        world.deliver().await;
        assert_eq!(receiver.got().len(), 3);

        for (query, count) in [
            ("?state=delivered".to_owned(), 3),
            ("?state=dead".to_owned(), 0),
            ("?type=certificate.renewed".to_owned(), 1),
            (format!("?certificate={first}"), 2),
            (format!("?since={since}"), 2),
            ("?limit=2".to_owned(), 2),
        ] {
            assert_eq!(deliveries(&world, &hook, &query).await.len(), count, "{query}");
        }
        let page = world.get(&format!("{}?limit=2", deliveries_path(&hook))).await.json();
        let rest = format!("?limit=2&cursor={}", page["nextCursor"].as_str().unwrap());
        assert_eq!(deliveries(&world, &hook, &rest).await.len(), 1);
        let bad = format!("{}?since=yesterday", deliveries_path(&hook));
        world.get(&bad).await.is_problem(400, "malformed_request");
    }

    async fn what_was_told_since_a_moment_is_sent_again_in_order(world: World) {
        let (receiver, hook) = hooked(&world, json!({})).await;
        issued(&world, "before").await;
        world.clock.advance(Duration::minutes(1));
        let web = issued(&world, "web").await;
        renew(&world, &web).await;
        world.deliver().await;
        let first = receiver.got();

        let body = json!({"since": "2026-11-24T12:01:00Z"});
        let again = world.post(&format!("{}/redeliver", path(&hook)), body).await.accepted();
        assert_eq!(again["redelivered"], 2);
        world.deliver().await;

        let got = receiver.got();
        assert_eq!(got.len(), 5);
        for (again, once) in got[3..].iter().zip(&first[1..]) {
            assert_eq!(again.header("webhook-id"), once.header("webhook-id"));
            assert_eq!(again.body, once.body);
        }
    }

    async fn a_webhook_is_changed_and_deleted_with_its_log(world: World) {
        let (receiver, hook) = hooked(&world, json!({})).await;
        let (other, _) = hooked(&world, json!({"events": ["webhook.test"]})).await;
        let etag = world.get(&path(&hook)).await.header("etag").to_owned();
        let change = |tag: &str, patch: Value| world.ask(Method::PATCH, &path(&hook)).header("if-match", tag).json(&patch);
        change("\"other\"", json!({"events": []})).send().await.is_problem(412, "precondition_failed");
        world.patch(&path(&hook), json!({"namespace": "other"})).await.is_problem(422, "validation_failed");
        world.patch(&path(&hook), json!({"url": "https://10.0.0.1/"})).await.is_problem(422, "validation_failed");
        let changed = change(&etag, json!({"url": other.url(), "events": ["certificate.renewed"]})).send().await;
        assert_eq!(changed.status, 200, "{}", changed.text);

        let web = issued(&world, "web").await;
        renew(&world, &web).await;
        world.deliver().await;
        assert_eq!((receiver.got().len(), other.types()), (0, vec!["certificate.renewed".to_owned()]));
        assert_eq!(only_delivery(&world, &hook).await["state"], "delivered");

        assert_eq!(world.delete(&path(&hook)).await.status, 204);
        world.get(&path(&hook)).await.is_problem(404, "not_found");
        world.get(&deliveries_path(&hook)).await.is_problem(404, "not_found");
        renew(&world, &web).await;
        world.clock.advance(Duration::days(31));
        world.worker().forget_deliveries().await.unwrap();
        world.deliver().await;
        assert_eq!(other.got().len(), 1);
    }
}
