//! Lists of certificates: selectors, filters, orders, fields and counts; and addresses by name.

use axum::http::Method;
use certwright::domain::certificate::{Certificate, Issued, State};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use super::auth::operations;
use crate::policies::policy;
use crate::support::world::{World, certificate, cluster_issuer, id, on_every_database};

/// Five certificates with labels, of which three were issued.
async fn some(world: &World) {
    world.create_issuer().await;
    world.post("/issuers", cluster_issuer("other")).await.accepted();
    for (name, issuer, labels) in [
        ("delta", "le", json!({"team": "web", "tier": "1"})),
        ("alpha", "le", json!({"team": "api"})),
        ("echo", "le", json!({"team": "web"})),
        ("bravo", "other", json!({})),
        ("charlie", "le", json!({"team": "db", "legacy": ""})),
    ] {
        let mut body = certificate(name);
        body["labels"] = labels;
        body["issuerRef"] = json!({"name": issuer, "kind": "ClusterIssuer"});
        world.post("/certificates", body).await.accepted();
    }
    for (name, days) in [("delta", 90), ("alpha", 10), ("echo", 50)] {
        let known = world.get(&format!("/certificates/by-name/default/{name}")).await.json();
        let now = world.now();
        world.db_change(&id(&known), |known| issued(known, now + Duration::days(days))).await;
    }
}

fn issued(known: Certificate, not_after: OffsetDateTime) -> Certificate {
    let not_before = not_after - Duration::days(90);
    let current = Issued {
        revision: 1,
        serial: "0a".into(),
        not_before,
        not_after,
        renewal_time: not_after - Duration::days(1),
    };
    Certificate { state: State::Idle, current: Some(current), ..known }
}

async fn names(world: &World, query: &str) -> Vec<String> {
    let reply = world.get(&format!("/certificates?{query}")).await;
    assert_eq!(reply.status, 200, "{query}: {}", reply.text);
    let items = reply.json()["items"].as_array().unwrap().clone();
    items.iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
}

on_every_database! {
    async fn what_is_not_understood_is_refused_with_what_was_wrong(world: World) {
        for (query, word) in [
            ("labelSelector=team%20in%20web", "team in web"),
            ("labelSelector=team%3Dweb,", "comma too many"),
            ("label=a%3Db%3Dc", "a=b=c"),
            ("label=%21", "label"),
            ("issuer=Fancy/le", "ClusterIssuer/NAME"),
            ("phase=Happy", "`phase`"),
            ("expiresAfter=soon", "expiresAfter"),
            ("sort=colour", "`sort`"),
            ("fields=name,colour", "colour"),
            ("fields=status.colour", "status.colour"),
            ("fields=", "fields"),
            ("count=perhaps", "count"),
            ("colour=red", "colour"),
            ("sort=name&cursor=AZqwAAAAcACAAAAAAAAAAA", "cursor"),
            ("sort=name&cursor=%21", "cursor"),
        ] {
            let problem = world.get(&format!("/certificates?{query}")).await.is_problem(400, "malformed_request");
            assert!(problem["detail"].as_str().unwrap().contains(word), "{query}: {problem}");
        }
    }

    async fn selectors_and_filters_take_what_they_say(world: World) {
        some(&world).await;
        for (query, expected) in [
            ("labelSelector=team%3Dweb", "delta echo"),
            ("label=team%3D%3Dweb", "delta echo"),
            ("label=team%3Dweb&labelSelector=tier", "delta"),
            ("labelSelector=team%21%3Dweb", "alpha bravo charlie"),
            ("labelSelector=team%20in%20(web,api)", "delta alpha echo"),
            ("labelSelector=team%20notin%20(web,api)", "bravo charlie"),
            ("labelSelector=team", "delta alpha echo charlie"),
            ("labelSelector=%21team", "bravo"),
            ("labelSelector=legacy,team", "charlie"),
            ("labelSelector=legacy%3D", "charlie"),
            // A key is no beginning of another one, nor a pattern.
            ("labelSelector=tea", ""),
            ("labelSelector=t_am", ""),
            ("issuer=le", "delta alpha echo charlie"),
            ("issuer=ClusterIssuer/other", "bravo"),
            ("issuer=Issuer/other", ""),
            ("phase=Ready", "delta alpha echo"),
            ("phase=Issuing", "bravo charlie"),
            ("phase=Expired", ""),
            ("expiresAfter=2026-12-20T00:00:00Z", "delta echo"),
            ("expiresAfter=2026-12-20T00:00:00Z&expiresBefore=2027-02-01T00:00:00Z", "echo"),
        ] {
            assert_eq!(names(&world, query).await.join(" "), expected, "{query}");
        }
    }

    async fn a_phase_is_found_by_what_certificates_show(world: World) {
        some(&world).await;
        let now = world.now();
        for (name, state, days) in [
            ("delta", State::Backoff, 90), ("alpha", State::Blocked, 10), ("echo", State::Idle, -1),
        ] {
            let known = world.get(&format!("/certificates/by-name/default/{name}")).await.json();
            world.db_change(&id(&known), |known| {
                Certificate { state, ..issued(known, now + Duration::days(days)) }
            }).await;
        }
        for phase in ["Issuing", "Ready", "Renewing", "Failed", "Blocked", "Expired", "Revoked"] {
            let all = world.get("/certificates").await.json()["items"].as_array().unwrap().clone();
            let shown = all.iter().filter(|one| one["status"]["phase"] == phase);
            let shown: Vec<_> = shown.map(|one| one["name"].as_str().unwrap().to_owned()).collect();
            assert_eq!(names(&world, &format!("phase={phase}")).await, shown, "{phase}");
        }
        assert_eq!(names(&world, "phase=Failed").await, ["delta"]);
        assert_eq!(names(&world, "phase=Expired").await, ["echo"]);
    }

    async fn every_order_is_paged_by_key(world: World) {
        some(&world).await;
        for (sort, expected) in [
            ("createdAt", "delta alpha echo bravo charlie"),
            ("-createdAt", "charlie bravo echo alpha delta"),
            ("name", "alpha bravo charlie delta echo"),
            ("-name", "echo delta charlie bravo alpha"),
            // What was never issued comes last, by age.
            ("notAfter", "alpha echo delta bravo charlie"),
            ("-notAfter", "charlie bravo delta echo alpha"),
        ] {
            for limit in [1, 2, 5] {
                let (mut seen, mut path) = (Vec::new(), format!("/certificates?sort={sort}&limit={limit}&count=true"));
                loop {
                    let reply = world.get(&path).await;
                    let page = reply.json();
                    assert_eq!(page["count"], 5, "{sort}");
                    seen.extend(page["items"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()));
                    let Some(cursor) = page["nextCursor"].as_str() else { break };
                    let link = reply.header("link").to_owned();
                    path = link[1..link.find('>').unwrap()].to_owned();
                    assert!(path.contains(cursor), "{link}");
                }
                assert_eq!(seen.join(" "), expected, "{sort} by {limit}");
            }
        }
        let of_names = world.get("/certificates?sort=name&limit=1").await.json();
        let cursor = of_names["nextCursor"].as_str().unwrap();
        let elsewhere = world.get(&format!("/certificates?sort=notAfter&cursor={cursor}")).await;
        elsewhere.is_problem(400, "malformed_request");
    }

    async fn an_item_has_the_fields_that_are_asked_for(world: World) {
        some(&world).await;
        let listed = world.get("/certificates?sort=name&limit=1&fields=name,status.phase,labels&count=true&label=team").await.json();
        assert_eq!(listed["items"], json!([{"name": "alpha", "labels": {"team": "api"}, "status": {"phase": "Ready"}}]));
        assert_eq!(listed["count"], 4);
        let counted = world.get("/certificates?count=false").await.json();
        assert_eq!(counted.get("count"), None);
    }

    async fn every_list_counts_and_shows_the_fields_that_are_asked_for(world: World) {
        some(&world).await;
        for name in ["one", "two"] {
            let webhook = json!({"name": name, "url": "https://1.1.1.1/"});
            world.post("/webhooks", webhook).await.accepted();
            world.post(&format!("/webhooks/by-name/default/{name}/test"), Value::Null).await.accepted();
            world.post("/secrets", json!({"name": name, "stringData": {"k": "v"}})).await.accepted();
            world.post("/policies", policy(name, "none", &["none.example.org"])).await.accepted();
            world.key(&["certificates:read"], &["default"]).await;
        }
        let (mut lists, mut filled) = (0, 0);
        for (method, path, described) in operations() {
            let parameters = described["parameters"].as_array().cloned().unwrap_or_default();
            let takes = |name: &str| parameters.iter().any(|one| one["name"] == name);
            if method != Method::GET || !takes("cursor") || path.contains("/by-name/") {
                continue;
            }
            let (path, field) = match &*path {
                "/certificates/{id}/revisions" => ("/certificates/by-name/default/delta/revisions", "revision"),
                "/webhooks/{id}/deliveries" => ("/webhooks/by-name/default/one/deliveries", "id"),
                path => (path, "id"),
            };
            lists += 1;
            let all = world.get(&format!("{path}?limit=500")).await.json()["items"].as_array().unwrap().len();
            filled += usize::from(all > 0);
            let part = world.get(&format!("{path}?limit=1&count=true&fields={field}")).await;
            assert_eq!((part.status, &part.json()["count"]), (200, &json!(all)), "{path}: {}", part.text);
            for item in part.json()["items"].as_array().unwrap() {
                assert_eq!(item.as_object().unwrap().keys().collect::<Vec<_>>(), [field], "{path}");
            }
            let strange = world.get(&format!("{path}?fields={field},colour")).await.is_problem(400, "malformed_request");
            assert!(strange["detail"].as_str().unwrap().contains("`colour`"), "{strange}");
        }
        assert_eq!((lists, filled > 8), (14, true), "{filled}");
    }

    async fn resources_have_addresses_by_name(world: World) {
        some(&world).await;
        let known = world.get("/certificates?name=delta").await.json()["items"][0].clone();
        world.post("/secrets", json!({"name": "token", "stringData": {"k": "v"}})).await.accepted();
        world.post("/issuers", json!({"name": "le", "acme": cluster_issuer("x")["acme"]})).await.accepted();

        let by_name = world.get("/certificates/by-name/default/delta").await;
        let by_id = world.get(&format!("/certificates/{}", id(&known))).await;
        assert_eq!((by_name.status, by_name.json()), (200, by_id.json()));
        assert_eq!(by_name.header("etag"), by_id.header("etag"));
        let patched = world.patch("/certificates/by-name/default/delta", json!({"renewBefore": "240h"})).await;
        assert_eq!((patched.status, &patched.json()["renewBefore"]), (200, &json!("240h")));
        assert_eq!(world.post("/certificates/by-name/default/delta/renew", Value::Null).await.status, 202);
        assert_eq!(world.get("/certificates/by-name/default/delta/explain").await.status, 200);
        let revisions = world.get("/certificates/by-name/default/delta/revisions?limit=1").await;
        assert_eq!(revisions.status, 200, "{}", revisions.text);
        let refused = world.get("/certificates/by-name/default/delta/revisions?limit=0").await;
        refused.is_problem(400, "malformed_request");
        assert_eq!(world.get("/secrets/by-name/default/token").await.json()["name"], "token");
        world.post("/policies", policy("payments", "default", &["**.example.com"])).await.accepted();
        assert_eq!(world.get("/policies/by-name/payments").await.json()["name"], "payments");
        let changed = world.put("/policies/by-name/payments", policy("payments", "default", &["**.example.org"])).await;
        assert_eq!(changed.status, 200, "{}", changed.text);
        assert_eq!(world.delete("/policies/by-name/payments").await.status, 204);
        assert_eq!(world.get("/issuers/by-name/le").await.json()["kind"], "ClusterIssuer");
        assert_eq!(world.get("/issuers/by-name/default/le").await.json()["kind"], "Issuer");

        for (path, detail) in [
            ("/certificates/by-name/default/nobody", "There is no certificate `nobody` in the namespace `default`."),
            ("/certificates/by-name/default/nobody/explain", "There is no certificate `nobody` in the namespace `default`."),
            ("/secrets/by-name/shop/token", "There is no secret `token` in the namespace `shop`."),
            ("/policies/by-name/payments", "There is no policy `payments`."),
            ("/issuers/by-name/nobody", "There is no ClusterIssuer `nobody`."),
            ("/issuers/by-name/default/nobody", "There is no Issuer `nobody` in the namespace `default`."),
        ] {
            let problem = world.get(path).await.is_problem(404, "not_found");
            assert_eq!(problem["detail"], detail);
        }
        let strange = world.ask(Method::GET, "/certificates/by-name/default/a%0Ab");
        let strange = strange.header("x-request-id", "build-42").send().await;
        assert_eq!(strange.is_problem(400, "malformed_request")["instance"], "build-42");

        assert_eq!(world.delete("/certificates/by-name/default/delta").await.status, 204);
        world.get("/certificates/by-name/default/delta").await.is_problem(404, "not_found");
    }

    // Whoever may not read it learns nothing from its name.
    async fn a_name_tells_no_stranger_whether_it_is_taken(world: World) {
        some(&world).await;
        let elsewhere = world.key(&["certificates:read"], &["shop"]).await;
        let writer = world.key(&["secrets:write"], &["default"]).await;
        for name in ["delta", "nobody"] {
            let path = format!("/certificates/by-name/default/{name}");
            let ask = || world.ask(Method::GET, &path);
            let missing = ask().with_key(&elsewhere).send().await.is_problem(404, "not_found");
            assert_eq!(missing["detail"], format!("There is no certificate `{name}` in the namespace `default`."));
            ask().with_key(&writer).send().await.is_problem(403, "permission_denied");
            ask().without_key().send().await.is_problem(401, "unauthenticated");
        }
    }
}
