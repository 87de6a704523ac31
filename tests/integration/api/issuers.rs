//! Issuers, as a client sees them.

use axum::http::Method;
use certwright::domain::certificate::State;
use serde_json::{Value, json};

use crate::support::world::{World, acme, cluster_issuer, id, on_every_database};

on_every_database! {
    async fn an_issuer_is_accepted_and_registered_later(world: World) {
        let reply = world.post("/issuers", cluster_issuer("le")).await;
        let made = reply.accepted();

        assert_eq!(made["status"]["conditions"][0]["status"], "Unknown");
        assert_eq!(made["namespace"], Value::Null);
        assert_eq!(made["status"]["acme"], json!({"uri": null, "lastRegisteredEmail": null}));
        assert_eq!(world.get(reply.header("location")).await.json(), made);
        let listed = world.get("/issuers?kind=ClusterIssuer&name=le").await.json();
        assert_eq!(listed["items"], json!([made]));
        world.post("/issuers", cluster_issuer("le")).await.is_problem(409, "already_exists");
    }

    async fn what_is_known_to_fail_is_refused_with_nothing_stored(world: World) {
        let both = json!([{"http01": {}, "dns01": {"cloudflare": {"apiTokenSecretRef": {"name": "a"}}}}]);
        let server = json!([{"dns01": {"nameservers": ["192.0.2.1"], "cloudflare": {"apiTokenSecretRef": {"name": "a"}}}}]);
        let slow = json!([{"dns01": {"propagation": {"timeout": "soon"}, "cloudflare": {"apiTokenSecretRef": {"name": "a"}}}}]);
        let followed = |zones: Value| json!([{"dns01": {"cnameStrategy": "Follow", "cnameZones": zones, "cloudflare": {"apiTokenSecretRef": {"name": "a"}}}}]);
        let ignored = json!([{"dns01": {"cnameZones": ["acme.test"], "cloudflare": {"apiTokenSecretRef": {"name": "a"}}}}]);
        let reserved = json!([{"selector": {"namespaces": ["team", "Team"]}, "http01": {}}]);
        for (change, pointer, code) in [
            (json!({"solvers": followed(json!(["acme.test", "*.acme.test"]))}), "/acme/solvers/0/dns01/cnameZones/1", "invalid"),
            (json!({"solvers": followed(json!(["*"]))}), "/acme/solvers/0/dns01/cnameZones/0", "invalid"),
            (json!({"solvers": followed(json!(["com"]))}), "/acme/solvers/0/dns01/cnameZones/0", "invalid"),
            (json!({"solvers": ignored}), "/acme/solvers/0/dns01/cnameZones", "conflicting"),
            (json!({"solvers": reserved}), "/acme/solvers/0/selector/namespaces/1", "invalid"),
            (json!({"server": "http://ca.example/directory"}), "/acme/server", "invalid"),
            (json!({"server": "https://user:pw@ca.example/"}), "/acme/server", "invalid"),
            (json!({"server": "directory"}), "/acme/server", "invalid"),
            (json!({"email": "nobody"}), "/acme/email", "invalid"),
            (json!({"caBundle": "!!"}), "/acme/caBundle", "invalid"),
            (json!({"caBundle": "!!", "skipTLSVerify": true}), "/acme/caBundle", "conflicting"),
            (json!({"limits": {"newOrders": {"count": 0, "per": "3h"}}}), "/acme/limits/newOrders/count", "invalid"),
            (json!({"limits": {"newOrders": {"count": 3, "per": "soon"}}}), "/acme/limits/newOrders/per", "invalid"),
            (json!({"retry": {"initial": "1s"}}), "/acme/retry/initial", "invalid"),
            (json!({"retry": {"initial": "3h", "max": "2h"}}), "/acme/retry/max", "invalid"),
            (json!({"solvers": []}), "/acme/solvers", "required"),
            (json!({"solvers": [{}]}), "/acme/solvers/0", "required"),
            (json!({"solvers": both}), "/acme/solvers/0", "conflicting"),
            (json!({"solvers": [{"dns01": {}}]}), "/acme/solvers/0/dns01/cloudflare", "required"),
            (json!({"solvers": server}), "/acme/solvers/0/dns01/nameservers/0", "invalid"),
            (json!({"solvers": slow}), "/acme/solvers/0/dns01/propagation/timeout", "invalid"),
            (json!({"solvers": [{"dns02": {}}]}), "/acme/solvers/0/dns02", "unknown_field"),
        ] {
            let mut body = cluster_issuer("le");
            body["acme"].as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            let problem = world.post("/issuers", body).await.is_problem(422, "validation_failed");

            let fault = &problem["errors"][0];
            assert_eq!((&fault["pointer"], &fault["code"]), (&json!(pointer), &json!(code)), "{problem}");
        }
        let mut own = json!({"kind": "Issuer", "namespace": "team", "name": "le", "acme": acme()});
        own["acme"]["solvers"][1]["selector"] = json!({"namespaces": ["team"]});
        let problem = world.post("/issuers", own).await.is_problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], "/acme/solvers/1/selector/namespaces");
        let placed = json!({"kind": "ClusterIssuer", "namespace": "a", "name": "le", "acme": acme()});
        world.post("/issuers", placed).await.is_problem(422, "validation_failed");
        assert_eq!(world.get("/issuers").await.json()["items"], json!([]));
    }

    async fn a_replaced_issuer_wakes_the_certificates_that_wait_for_it(world: World) {
        let issuer = world.create_issuer().await;
        let made = id(&world.create_certificate("web").await);
        let later = world.now() + time::Duration::hours(9);
        world.db_change(&made, |mut found| {
            found.state = State::Blocked;
            found.next_action_at = later;
            found
        }).await;
        let path = format!("/issuers/{}", id(&issuer));
        let mut body = cluster_issuer("le");
        body["acme"]["email"] = json!("other@example.com");

        let replaced = world.put(&path, body.clone()).await;
        assert_eq!((replaced.status, &replaced.json()["generation"]), (200, &json!(2)));
        let woken = world.get(&format!("/certificates/{made}")).await.json();
        assert_eq!(woken["status"]["nextAttemptAt"], "2026-11-24T12:00:00Z");
        assert_eq!(world.put(&path, body).await.json()["generation"], 2, "nothing to change");
        let renamed = world.put(&path, cluster_issuer("other")).await;
        assert_eq!(renamed.is_problem(422, "validation_failed")["errors"][0]["code"], "immutable");
        let stale = world.ask(Method::PUT, &path).header("if-match", "\"x\"").json(&cluster_issuer("le"));
        stale.send().await.is_problem(412, "precondition_failed");
    }

    async fn an_issuer_that_is_needed_cannot_be_deleted(world: World) {
        let issuer = format!("/issuers/{}", id(&world.create_issuer().await));
        let made = id(&world.create_certificate("web").await);
        world.db_order(&made).await;

        let problem = world.delete(&issuer).await.is_problem(409, "issuer_in_use");
        assert!(problem["detail"].as_str().unwrap().contains(&made));
        assert_eq!(world.delete(&format!("/certificates/{made}")).await.status, 204);
        let problem = world.delete(&issuer).await.is_problem(409, "issuer_in_use");
        assert!(problem["detail"].as_str().unwrap().contains("order"), "its record is still there");
    }

    async fn an_issuer_that_nobody_needs_is_deleted(world: World) {
        let issuer = format!("/issuers/{}", id(&world.create_issuer().await));

        assert_eq!(world.delete(&issuer).await.status, 204);
        world.get(&issuer).await.is_problem(404, "not_found");
    }
}
