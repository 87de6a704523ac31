//! The audit log: what is in it, who reads it, and what is found when somebody has been at it.

pub(crate) mod crash;
pub(crate) mod pruning;
pub(crate) mod tampering;

use std::num::NonZeroU32;

use axum::http::Method;
use certwright::api::CallerLimits;
use serde_json::{Value, json};
use time::Duration;

use crate::support::world::{World, certificate, cluster_issuer, id, on_every_database};

async fn entries(world: &World, query: &str) -> Vec<Value> {
    world.get(&format!("/audit{query}")).await.json()["items"].as_array().unwrap().clone()
}

on_every_database! {
    async fn an_entry_says_who_did_what_from_where_on_what(world: World) {
        world.create_issuer().await;
        let ask = world.ask(Method::POST, "/certificates").from("192.0.2.7").header("x-request-id", "mine");
        let made = ask.json(&certificate("web")).send().await.accepted();

        let resource = format!("certificates/{}", id(&made));
        let found = entries(&world, &format!("?resource=/{resource}")).await;
        let [entry] = &found[..] else { panic!("{found:#?}") };
        assert_eq!(entry["action"], "certificates.create");
        assert_eq!((&entry["outcome"], &entry["count"], &entry["reason"]), (&json!("allowed"), &json!(1), &Value::Null));
        assert_eq!((&entry["from"], &entry["requestId"], &entry["namespace"]), (&json!("192.0.2.7"), &json!("mine"), &json!("default")));
        let who = world.get("/whoami").await.json();
        assert_eq!(entry["principal"], json!({"kind": "apiKey", "id": who["id"], "name": "admin"}));
        assert_eq!(entry["at"], "2026-11-24T12:00:00Z");
    }

    async fn what_changes_nothing_leaves_no_entry(world: World) {
        let made = world.create_issuer().await;
        let before = entries(&world, "").await;
        let path = format!("/issuers/{}", id(&made));
        let same = json!({"kind": "ClusterIssuer", "name": "le", "acme": made["acme"]});
        assert_eq!(world.put(&path, same).await.status, 200);
        world.post("/certificates", json!({"dnsNames": []})).await.is_problem(422, "validation_failed");
        world.delete("/certificates/019ab000-0000-7000-8000-000000000000").await.is_problem(404, "not_found");
        world.get("/certificates").await;
        assert_eq!(entries(&world, "").await, before);
    }

    async fn a_replay_leaves_no_second_entry(world: World) {
        world.create_issuer().await;
        for _ in 0..2 {
            let ask = world.ask(Method::POST, "/certificates").header("idempotency-key", "one");
            ask.json(&certificate("web")).send().await.accepted();
        }
        assert_eq!(entries(&world, "?action=certificates.create").await.len(), 1);
    }

    async fn a_secret_that_wakes_an_issuer_is_one_entry_and_manifests_are_one_for_each_object(world: World) {
        world.create_issuer().await;
        let secret = json!({"namespace": "certwright", "name": "cloudflare", "stringData": {"api-token": "canary-secret-value"}});
        world.post("/secrets", secret).await.accepted();
        let actions = async || -> Vec<Value> {
            entries(&world, "").await.iter().map(|entry| entry["action"].clone()).collect()
        };
        assert_eq!(actions().await, ["issuers.create", "secrets.create"]);

        let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {k: v}\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: b}\nstringData: {k: v}\n";
        for query in ["?dryRun=true", ""] {
            let ask = world.ask(Method::POST, &format!("/apply{query}")).header("content-type", "application/yaml");
            assert_eq!(ask.text(text).send().await.status, 200);
        }
        assert_eq!(actions().await[2..], ["secrets.apply", "secrets.apply"]);
    }

    async fn every_key_that_is_handed_out_is_an_entry(world: World) {
        world.create_issuer().await;
        let made = id(&world.create_certificate("web").await);
        let order = world.db_order(&made).await;
        world.db_issue(&order).await;
        let path = |file: &str| format!("/certificates/{made}/{file}");
        let first = world.get(&path("privkey.pem")).await;
        assert_eq!(first.status, 200);
        let again = world.ask(Method::GET, &path("privkey.pem")).header("if-none-match", first.header("etag"));
        assert_eq!(again.send().await.status, 304);
        assert_eq!(world.get(&path("fullchain.pem")).await.status, 200);

        let found = entries(&world, "?action=certificates.readKey").await;
        let [entry] = &found[..] else { panic!("{found:#?}") };
        assert_eq!((&entry["resource"], &entry["namespace"]), (&json!(format!("certificates/{made}")), &json!("default")));
        assert!(entry["reason"].as_str().unwrap().ends_with("of revision 1"), "{entry}");
    }

    async fn refusals_are_entries_and_repeated_ones_are_counted(world: World) {
        let guess = async |address: &str| {
            world.ask(Method::GET, "/certificates").with_key("cw_wrong").from(address).send().await.is_problem(401, "unauthenticated")
        };
        for _ in 0..50 {
            guess("192.0.2.7").await;
        }
        guess("192.0.2.8").await;
        let key = world.key(&["certificates:read"], &["team"]).await;
        for _ in 0..3 {
            let ask = world.ask(Method::POST, "/api-keys").with_key(&key).json(&json!({"name": "more"}));
            ask.send().await.is_problem(403, "permission_denied");
        }
        let seen = async || -> Vec<(Value, Value, Value, Value)> {
            let found = entries(&world, "").await;
            let shown = |one: &Value| (one["from"].clone(), one["principal"]["name"].clone(), one["outcome"].clone(), one["count"].clone());
            found.iter().map(shown).collect()
        };
        let first = [
            (json!("192.0.2.7"), Value::Null, json!("refused"), json!(1)),
            (json!("192.0.2.8"), Value::Null, json!("refused"), json!(1)),
            (Value::Null, json!("limited"), json!("refused"), json!(1)),
        ];
        assert_eq!(seen().await, first, "the first of each at once");

        world.clock.advance(Duration::minutes(1));
        world.refusals.write_counted(&world.db, world.now(), false).await;
        let mut counted: Vec<_> = seen().await[3..].iter().map(|one| one.3.clone()).collect();
        counted.sort_by_key(Value::as_i64);
        assert_eq!(counted, [2, 49], "and all that came after as one");
        let refused = entries(&world, "?action=apiKeys.create").await;
        assert!(refused[0]["reason"].as_str().unwrap().contains("apiKeys:write"), "{refused:#?}");
    }

    async fn what_a_batch_is_refused_is_counted_like_other_refusals(world: World) {
        world.create_issuer().await;
        let key = world.key(&["certificates:write"], &["default"]).await;
        let mut items: Vec<_> = (0..199).map(|number| certificate(&format!("n{number}"))).collect();
        items.push(json!({"namespace": "other", "issuerRef": {"name": "le", "kind": "ClusterIssuer"}, "dnsNames": ["x.example.com"]}));
        let ask = world.ask(Method::POST, "/certificates/batch").with_key(&key).from("192.0.2.7");
        let reply = ask.json(&json!({"items": items})).send().await;
        assert_eq!(reply.status, 207, "{}", reply.text);
        assert!(reply.json()["items"].as_array().unwrap().iter().all(|item| item["status"] == 403), "{}", reply.text);

        let first = entries(&world, "?action=certificates.create").await;
        let [entry] = &first[..] else { panic!("one at once: {first:#?}") };
        assert_eq!((&entry["outcome"], &entry["count"], &entry["namespace"]), (&json!("refused"), &json!(1), &json!("default")));
        assert_eq!((&entry["principal"]["name"], &entry["from"]), (&json!("limited"), &json!("192.0.2.7")));
        assert!(entry["reason"].as_str().unwrap().contains("n0.example.com"), "{entry}");
        world.clock.advance(Duration::minutes(1));
        world.refusals.write_counted(&world.db, world.now(), false).await;
        let all = entries(&world, "?action=certificates.create").await;
        let [_, rest] = &all[..] else { panic!("and one for all others: {all:#?}") };
        assert_eq!((&rest["count"], &rest["namespace"]), (&json!(199), &Value::Null), "of several namespaces: {rest}");
    }

    async fn what_a_principal_lacks_is_an_entry_whatever_its_status(world: World) {
        let key = world.key(&["apiKeys:write", "issuers:write", "certificates:write"], &["team"]).await;
        let seen = async |action: &str| entries(&world, &format!("?action={action}")).await;
        let ask = async |path: &str, body: &Value| world.ask(Method::POST, path).with_key(&key).json(body).send().await;
        let mistake = json!({"name": " ", "permissions": ["certificates:raed"], "namespaces": ["team"]});
        ask("/api-keys", &mistake).await.is_problem(422, "validation_failed");
        assert_eq!(seen("apiKeys.create").await.len(), 0, "a mistake is no refusal");

        let beyond = json!({"name": "more", "permissions": ["secrets:write"], "namespaces": ["team"]});
        ask("/api-keys", &beyond).await.is_problem(422, "validation_failed");
        let found = seen("apiKeys.create").await;
        assert_eq!((found.len(), &found[0]["outcome"]), (1, &json!("refused")), "{found:#?}");
        assert!(found[0]["reason"].as_str().unwrap().contains("/permissions/0"), "{found:#?}");

        let mut issuer = cluster_issuer("le");
        (issuer["kind"], issuer["namespace"]) = (json!("Issuer"), json!("team"));
        for solver in issuer["acme"]["solvers"].as_array_mut().unwrap() {
            if let Some(cloudflare) = solver.pointer_mut("/dns01/cloudflare") {
                cloudflare["baseURL"] = json!("https://collector.example/");
            }
        }
        ask("/issuers", &issuer).await.is_problem(422, "validation_failed");
        let found = seen("issuers.create").await;
        assert_eq!((found.len(), &found[0]["outcome"]), (1, &json!("refused")), "{found:#?}");
        assert_eq!(found[0]["namespace"], "team", "{found:#?}");

        ask("/certificates", &certificate("web")).await.is_problem(403, "permission_denied");
        assert_eq!(seen("certificates.create").await[0]["namespace"], "default");
    }

    async fn what_an_import_leaves_out_for_want_of_a_right_is_an_entry(world: World) {
        let key = world.key(&["certificates:import", "certificates:write", "issuers:write"], &["team"]).await;
        let foreign = json!({
            "apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": {"name": "le", "namespace": "team"},
            "spec": {"acme": {"server": "https://ca.example/directory", "solvers": [{"dns01": {"cloudflare": {
                "baseURL": "https://collector.example/", "apiTokenSecretRef": {"name": "cloudflare", "key": "token"}}}}]}},
        });
        let ask = world.ask(Method::POST, "/import").with_key(&key).header("content-type", "application/yaml");

        let imported = ask.text(&foreign.to_string()).send().await.done();

        assert_eq!(imported["leftOut"][0]["name"], "le", "{imported:#}");
        let found = entries(&world, "?action=import").await;
        assert_eq!((found.len(), &found[0]["outcome"]), (1, &json!("refused")), "{found:#?}");
        assert_eq!(found[0]["namespace"], "team", "{found:#?}");
        assert!(found[0]["reason"].as_str().unwrap().starts_with("It is left out: "), "{found:#?}");
    }

    async fn a_policy_that_refuses_names_leaves_an_entry(world: World) {
        world.create_issuer().await;
        let key = world.key(&["certificates:write"], &["default"]).await;
        let ask = world.ask(Method::POST, "/certificates").with_key(&key);
        ask.json(&certificate("web")).send().await.is_problem(403, "name_not_allowed");
        let found = entries(&world, "?action=certificates.create").await;
        assert_eq!((found.len(), &found[0]["outcome"]), (1, &json!("refused")), "{found:#?}");
        assert_eq!(found[0]["namespace"], "default", "{found:#?}");
    }

    async fn behind_a_trusted_proxy_the_client_is_whom_the_proxy_names_and_never_whom_itself_says(world: World) {
        let world = world.behind(&["10.0.0.0/8"]);
        let own: &[u8] = b"203.0.113.9, 198.51.100.1";
        for (request, peer, headers, expected) in [
            ("proxied", "10.0.0.1", &[("x-forwarded-for", own)][..], "198.51.100.1"),
            ("stranger", "192.0.2.1", &[("x-forwarded-for", b"198.51.100.1")], "192.0.2.1"),
            ("both", "10.0.0.1", &[("x-forwarded-for", own), ("forwarded", b"for=203.0.113.9")], "198.51.100.1"),
            ("other", "10.0.0.1", &[("forwarded", b"for=203.0.113.9")], "10.0.0.1"),
            // The client's own part is not ASCII, or a line of its own.
            ("strange", "10.0.0.1", &[("x-forwarded-for", b"\xff\xfe, 198.51.100.1")], "198.51.100.1"),
            ("lines", "10.0.0.1", &[("x-forwarded-for", b"\xff"), ("x-forwarded-for", b"198.51.100.1")], "198.51.100.1"),
        ] {
            let secret = json!({"namespace": "default", "name": request, "stringData": {"k": "v"}});
            let mut ask = world.ask(Method::POST, "/secrets").from(peer).json(&secret);
            for (name, value) in headers {
                ask = ask.odd_header(name, value);
            }
            ask.send().await.accepted();
            let newest = entries(&world, "").await.pop().unwrap();
            assert_eq!(newest["from"], expected, "{request}: {newest:#}");
        }
    }

    async fn a_client_that_names_itself_in_another_header_is_limited_by_its_own_address(world: World) {
        let world = world.limited(CallerLimits::new(NonZeroU32::new(1), None)).behind(&["10.0.0.0/8"]);
        let guess = async |own: &str, client: &str| {
            let ask = world.ask(Method::GET, "/whoami").with_key("cw_wrong").from("10.0.0.1");
            ask.header("forwarded", own).header("x-forwarded-for", client).send().await
        };
        guess("for=203.0.113.1", "198.51.100.1").await.is_problem(401, "unauthenticated");
        guess("for=203.0.113.2", "198.51.100.1").await.is_problem(429, "too_many_requests");
        guess("for=203.0.113.1", "198.51.100.2").await.is_problem(401, "unauthenticated");
    }

    async fn only_whoever_is_bound_to_nothing_and_may_reads_it(world: World) {
        for (permissions, namespaces) in [(&["audit:read"][..], &["default"][..]), (&["events:read"], &["default"])] {
            let key = world.key(permissions, namespaces).await;
            let ask = world.ask(Method::GET, "/audit").with_key(&key);
            ask.send().await.is_problem(403, "permission_denied");
        }
        let auditor = world.post("/api-keys", json!({"name": "auditor", "permissions": ["audit:read"]})).await.accepted();
        let reply = world.ask(Method::GET, "/audit").with_key(auditor["key"].as_str().unwrap()).send().await;
        assert_eq!(reply.status, 200);
        assert!(!reply.text.contains(auditor["key"].as_str().unwrap()), "no value of a key");
    }

    async fn pages_and_filters_find_what_is_asked_for(world: World) {
        for name in ["a", "b", "c"] {
            let secret = json!({"namespace": "default", "name": name, "stringData": {"k": "v"}});
            world.post("/secrets", secret).await.accepted();
            world.clock.advance(Duration::minutes(1));
        }
        let who = world.get("/whoami").await.json();
        for (query, count) in [
            ("", 3), ("?since=2026-11-24T12:01:00Z", 2), ("?principal=admin", 3), ("?principal=other", 0),
            (&*format!("?principal={}", id(&who)), 3), ("?action=secrets.create", 3), ("?action=secrets.delete", 0), ("?limit=2", 2),
        ] {
            assert_eq!(entries(&world, query).await.len(), count, "{query}");
        }
        let all = entries(&world, "").await;
        let page = world.get("/audit?limit=2").await.json();
        let rest = entries(&world, &format!("?limit=2&cursor={}", page["nextCursor"].as_str().unwrap())).await;
        assert_eq!(rest, all[2..]);
        let newest = entries(&world, "?sort=-createdAt").await;
        assert_eq!(newest.iter().rev().cloned().collect::<Vec<_>>(), all);
    }
}
