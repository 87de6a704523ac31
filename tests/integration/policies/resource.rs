//! Policies as a resource, and what they answer when they are asked.

use axum::http::Method;
use serde_json::{Value, json};

use super::{allow, path, policy, post, send};
use crate::support::world::{World, on_every_database};

on_every_database! {
    async fn a_policy_is_created_replaced_and_withdrawn_like_other_resources(world: World) {
        let create = async |key: &str, body: &Value| {
            world.ask(Method::POST, "/policies").header("idempotency-key", key).json(body).send().await
        };
        let wanted = policy("payments", "payments", &["**.Payments.Example.com", "pay.example.com."]);
        let created = create("one", &wanted).await;
        let made = created.accepted();
        assert_eq!(created.header("location"), path(&made));
        assert_eq!(made["names"], json!([
            {"pattern": "**.payments.example.com", "wildcards": true}, {"pattern": "pay.example.com", "wildcards": false},
        ]));
        assert_eq!(made["keys"], json!({"algorithms": ["ECDSA", "RSA"], "minRsaSize": 2048, "heldBy": "Anyone"}));
        assert_eq!((&made["maxNames"], &made["approval"], &made["generation"]), (&json!(100), &json!("Auto"), &json!(1)));

        let replayed = create("one", &wanted).await;
        assert_eq!((replayed.accepted(), replayed.header("idempotency-replayed")), (made.clone(), "true"));
        create("two", &wanted).await.is_problem(409, "already_exists");

        let shown = world.get(&path(&made)).await;
        assert_eq!(shown.json(), made);
        let listed = async |query: &str| world.get(&format!("/policies{query}")).await.json()["items"].clone();
        for query in ["", "?name=payments", "?namespace=payments"] {
            assert_eq!(listed(query).await, json!([made]), "{query}");
        }
        for query in ["?name=other", "?namespace=other"] {
            assert_eq!(listed(query).await, json!([]), "{query}");
        }

        let mut next = policy("payments", "*", &["*.example.com"]);
        let put = async |tag: &str, body: &Value| {
            world.ask(Method::PUT, &path(&made)).header("if-match", tag).json(body).send().await
        };
        let changed = put(shown.header("etag"), &next).await;
        assert_eq!((changed.status, &changed.json()["generation"]), (200, &json!(2)));
        assert_eq!(listed("?namespace=anything").await, json!([changed.json()]));
        put(shown.header("etag"), &wanted).await.is_problem(412, "precondition_failed");
        let again = put("*", &next).await;
        assert_eq!(again.text, changed.text, "nothing changed");
        next["name"] = json!("other");
        put("*", &next).await.is_problem(422, "validation_failed");

        let delete = async |tag: &str| world.ask(Method::DELETE, &path(&made)).header("if-match", tag).send().await;
        delete(shown.header("etag")).await.is_problem(412, "precondition_failed");
        assert_eq!(delete(changed.header("etag")).await.status, 204);
        world.get(&path(&made)).await.is_problem(404, "not_found");
        assert_eq!(listed("").await, json!([]));
    }

    async fn a_policy_that_means_nothing_is_refused_with_every_fault(world: World) {
        let wanted = json!({
            "name": "No", "namespaces": ["Team"],
            "names": [{"pattern": "**"}, {"pattern": "a.test", "wildcards": true}, {"pattern": "192.0.2.1/24"}, {"pattern": "**.com"}],
            "issuers": [], "keys": {"algorithms": [], "minRsaSize": 1024}, "maxNames": 0,
        });
        let problem = world.post("/policies", wanted).await.is_problem(422, "validation_failed");
        let errors = problem["errors"].as_array().unwrap();
        let mut pointers: Vec<_> = errors.iter().map(|error| error["pointer"].as_str().unwrap()).collect();
        pointers.sort_unstable();
        assert_eq!(pointers, [
            "/issuers", "/keys/algorithms", "/keys/minRsaSize", "/maxNames", "/name", "/names/0/pattern",
            "/names/1/wildcards", "/names/2/pattern", "/names/3/pattern", "/namespaces/0",
        ], "{problem:#}");

        let several = json!({"name": "twice", "namespaces": ["a", "*", "a"], "names": [{"pattern": "a.test"}],
            "issuers": [{"kind": "Issuer", "name": "*"}]});
        assert_eq!(world.post("/policies", several).await.accepted()["namespaces"], json!(["a", "*"]));
        let unknown = json!({"name": "x", "namespaces": ["a"], "names": [], "issuers": [], "allow": true});
        world.post("/policies", unknown).await.is_problem(422, "validation_failed");
    }

    async fn whoever_is_bound_to_namespaces_neither_reads_nor_writes_policies(world: World) {
        let made = allow(&world, "team", "team", &["**.team.example.com"]).await;
        let tenant = world.key(&["*"], &["team"]).await;
        for (method, path, body) in [
            (Method::GET, "/policies".to_owned(), json!(null)),
            (Method::GET, path(&made), json!(null)),
            (Method::POST, "/policies".to_owned(), policy("mine", "team", &["**.example.com"])),
            (Method::PUT, path(&made), policy("team", "team", &["**.example.com"])),
            (Method::DELETE, path(&made), json!(null)),
        ] {
            let reply = send(&world, &tenant, method.clone(), &path, &body).await;
            let problem = reply.is_problem(403, "permission_denied");
            assert!(problem["detail"].as_str().unwrap().contains("/policies/evaluate"), "{method} {path}: {problem}");
        }
        let manifest = json!({"apiVersion": "certwright.dev/v1", "kind": "Policy", "metadata": {"name": "mine"},
            "spec": {"namespaces": ["team"], "names": [{"pattern": "**.example.com"}], "issuers": [{"name": "le"}]}});
        post(&world, &tenant, "/apply", manifest).await.is_problem(403, "permission_denied");
        assert_eq!(world.get("/policies").await.json()["items"], json!([made]));
    }

    async fn a_tenant_may_ask_what_its_policies_allow_and_by_which_rule(world: World) {
        allow(&world, "team", "team", &["**.team.example.com", "192.0.2.0/24"]).await;
        allow(&world, "www", "team", &["www.example.com"]).await;
        let tenant = world.key(&["certificates:write"], &["team"]).await;
        let ask = async |namespace: &str, names: &[&str], more: Value| {
            let mut question = json!({"namespace": namespace, "dnsNames": names, "issuerRef": {"name": "le", "kind": "ClusterIssuer"}});
            for (key, value) in more.as_object().unwrap() {
                question[key] = value.clone();
            }
            post(&world, &tenant, "/policies/evaluate", question).await
        };

        let allowed = ask("team", &["A.team.example.com.", "*.team.example.com"], json!({"ipAddresses": ["192.0.2.7"]})).await.json();
        assert_eq!((&allowed["allowed"], &allowed["policy"], &allowed["approval"]), (&json!(true), &json!("team"), &json!("Auto")));
        let name = |name: &str| json!({"name": name, "allowed": true, "policy": "team", "reason": null});
        assert_eq!(allowed["names"], json!([name("a.team.example.com"), name("*.team.example.com"), name("192.0.2.7")]));

        let mixed = ask("team", &["a.team.example.com", "www.example.com", "mail.example.com"], json!({})).await.json();
        assert_eq!((&mixed["allowed"], &mixed["policy"]), (&json!(false), &Value::Null));
        let verdicts: Vec<_> = mixed["names"].as_array().unwrap().iter().map(|one| (&one["allowed"], &one["policy"])).collect();
        assert_eq!(verdicts, [(&json!(true), &json!("team")), (&json!(true), &json!("www")), (&json!(false), &Value::Null)]);
        assert!(mixed["names"].to_string().contains("several certificates"), "{mixed}");

        let other = ask("team", &["www.example.com"], json!({"issuerRef": {"name": "other", "kind": "ClusterIssuer"}})).await.json();
        assert!(other["names"][0]["reason"].as_str().unwrap().contains("only from ClusterIssuer `le`"), "{other}");
        ask("team", &["no name"], json!({})).await.is_problem(422, "validation_failed");
        ask("other", &["www.example.com"], json!({})).await.is_problem(403, "permission_denied");
        let reader = world.key(&["certificates:read"], &["team"]).await;
        let question = json!({"namespace": "team", "dnsNames": ["a.test"], "issuerRef": {"name": "le"}});
        post(&world, &reader, "/policies/evaluate", question).await.is_problem(403, "permission_denied");
    }
}
