//! Certificates, as a client sees them.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::http::Method;
use certwright::domain::certificate::State;
use certwright::domain::id::OrderId;
use certwright::storage::{Scope, orders};
use serde_json::{Value, json};

use crate::support::patience::within;
use crate::support::world::{
    Reply, World, acme, certificate, cluster_issuer, id, on_every_database, pem,
};

on_every_database! {
    async fn a_certificate_is_accepted_and_shown_as_it_was_accepted(world: World) {
        world.create_issuer().await;
        let body = json!({
            "issuerRef": {"name": "le", "kind": "ClusterIssuer"},
            "dnsNames": ["*.App.Example.com.", "app.example.com", "APP.example.com"],
            "commonName": "www.example.com", "labels": {"team": "payments"},
        });
        let reply = world.post("/certificates", body).await;
        let accepted = reply.accepted();

        assert_eq!(accepted["name"], "wildcard.app.example.com");
        assert_eq!(accepted["namespace"], "default");
        assert_eq!(
            accepted["dnsNames"],
            json!(["*.app.example.com", "app.example.com", "www.example.com"])
        );
        assert_eq!(accepted["status"]["phase"], "Issuing");
        assert_eq!(accepted["status"]["conditions"][0]["reason"], "DoesNotExist");
        assert_eq!(accepted["status"]["conditions"][1]["status"], "True");
        assert_eq!(accepted["createdAt"], "2026-11-24T12:00:00Z");
        let shown = world.get(reply.header("location")).await;
        assert_eq!(shown.json(), accepted);
        assert_eq!(shown.header("etag"), reply.header("etag"));
    }

    async fn what_is_known_to_fail_is_refused_with_nothing_stored(world: World) {
        world.create_issuer().await;
        world.post("/issuers", json!({"name": "http", "acme": {
            "server": "https://ca.example/directory", "solvers": [{"http01": {}}],
        }})).await.accepted();
        let many: Vec<_> = (0..101).map(|n| format!("n{n}.example.com")).collect();
        for (change, pointer, code) in [
            (json!({"colour": "red"}), "/colour", "unknown_field"),
            (json!({"dnsNames": ["a.example.com", "a..b"]}), "/dnsNames/1", "invalid"),
            (json!({"dnsNames": ["192.0.2.1"]}), "/dnsNames/0", "invalid"),
            (json!({"dnsNames": ["co.uk"]}), "/dnsNames/0", "invalid"),
            (json!({"dnsNames": []}), "/dnsNames", "required"),
            (json!({"dnsNames": many}), "/dnsNames", "invalid"),
            (json!({"dnsNames": "a.example.com"}), "/dnsNames", "wrong_type"),
            (json!({"dnsNames": ["a.example.com", 7]}), "/dnsNames/1", "wrong_type"),
            (json!({"commonName": "co.uk"}), "/commonName", "invalid"),
            (json!({"issuerRef": {}}), "/issuerRef/name", "required"),
            (json!({"issuerRef": {"name": "none"}}), "/issuerRef/name", "issuer_not_found"),
            (json!({"issuerRef": {"name": "le"}}), "/issuerRef/name", "issuer_not_found"),
            (json!({"issuerRef": {"name": "le", "kind": "Other"}}), "/issuerRef/kind", "invalid"),
            (json!({"issuerRef": {"name": "http"}, "dnsNames": ["a.example.com", "*.example.com"]}), "/dnsNames/1", "no_solver"),
            (json!({"privateKey": {"algorithm": "RSA", "size": 1024}}), "/privateKey/size", "invalid"),
            (json!({"privateKey": {"algorithm": "Ed25519"}}), "/privateKey/algorithm", "invalid"),
            (json!({"duration": "2160h"}), "/duration", "unsupported"),
            (json!({"ipAddresses": ["192.0.2"]}), "/ipAddresses/0", "invalid"),
            (json!({"ipAddresses": ["0.0.0.0"]}), "/ipAddresses/0", "invalid"),
            (json!({"csr": "text"}), "/csr", "invalid"),
            (json!({"renewBefore": "soon"}), "/renewBefore", "invalid"),
            (json!({"renewBeforePercentage": 0}), "/renewBeforePercentage", "invalid"),
            (json!({"renewBeforePercentage": 100}), "/renewBeforePercentage", "invalid"),
            (json!({"renewBefore": "720h", "renewBeforePercentage": 30}), "/renewBeforePercentage", "conflicting"),
            (json!({"revisionHistoryLimit": 0}), "/revisionHistoryLimit", "invalid"),
            (json!({"revisionHistoryLimit": 2_147_483_648_u32}), "/revisionHistoryLimit", "invalid"),
            (json!({"namespace": "No Such"}), "/namespace", "invalid"),
            (json!({"name": "Web"}), "/name", "invalid"),
            (json!({"labels": {"a/b": "no spaces"}}), "/labels/a~1b", "invalid"),
        ] {
            let mut body = certificate("web");
            body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            let problem =
                world.post("/certificates", body).await.is_problem(422, "validation_failed");

            let fault = &problem["errors"][0];
            assert_eq!((&fault["pointer"], &fault["code"]), (&json!(pointer), &json!(code)), "{problem}");
        }
        assert_eq!(world.certificates().await, [] as [Value; 0]);
        assert_eq!(world.get("/events").await.json()["items"], json!([]));
    }

    async fn every_fault_is_named_at_once(world: World) {
        let body = json!({"issuerRef": {"name": "le"}, "dnsNames": ["a_b.example.com", "com"], "duration": "1m"});
        let problem = world.post("/certificates", body).await.is_problem(422, "validation_failed");

        let pointers: Vec<_> =
            problem["errors"].as_array().unwrap().iter().map(|fault| &fault["pointer"]).collect();
        assert_eq!(pointers, ["/duration", "/dnsNames/0", "/dnsNames/1"]);
        assert!(problem["errors"][1]["detail"].as_str().unwrap().contains("`a_b.example.com`"));
    }

    async fn a_body_that_cannot_be_read_is_told_apart(world: World) {
        let post = || world.ask(Method::POST, "/certificates");
        let json = "application/json";

        post().text("{").header("content-type", json).send().await.is_problem(400, "malformed_request");
        post().text("{}").send().await.is_problem(415, "unsupported_media_type");
        post().text("{}").header("content-type", "text/plain").send().await
            .is_problem(415, "unsupported_media_type");
        let large = format!("{{\"name\": \"{}\"}}", "a".repeat(70_000));
        post().text(&large).header("content-type", json).send().await
            .is_problem(413, "payload_too_large");
    }

    async fn a_name_is_taken_once_in_a_namespace(world: World) {
        world.create_issuer().await;
        let first = world.create_certificate("web").await;
        let problem = world.post("/certificates", certificate("web")).await.is_problem(409, "already_exists");
        assert!(problem["detail"].as_str().unwrap().contains(&id(&first)));

        let mut elsewhere = certificate("web");
        elsewhere["namespace"] = json!("other");
        world.post("/certificates", elsewhere).await.accepted();
    }

    async fn lists_lead_to_their_end_without_gaps_or_repetitions(world: World) {
        world.create_issuer().await;
        let mut made = Vec::new();
        for n in 0..7 {
            world.clock.advance(time::Duration::seconds(1));
            made.push(id(&world.create_certificate(&format!("n{n}")).await));
        }
        for (sort, wanted) in
            [("createdAt", made.clone()), ("-createdAt", made.iter().rev().cloned().collect())]
        {
            let mut path = format!("/certificates?limit=3&sort={sort}&namespace=default");
            let mut seen = Vec::new();
            let mut pages = 0;
            loop {
                let reply = world.get(&path).await;
                let page = reply.json();
                seen.extend(page["items"].as_array().unwrap().iter().map(id));
                pages += 1;
                if page["nextCursor"].is_null() {
                    assert_eq!(reply.header("link"), "");
                    break;
                }
                let link = reply.header("link").to_owned();
                assert!(link.ends_with("; rel=\"next\""), "{link}");
                path = link[1..link.find('>').unwrap()].to_owned();
            }
            assert_eq!((seen, pages), (wanted, 3), "{sort}");
        }
    }

    async fn filters_choose(world: World) {
        world.create_issuer().await;
        let mut labelled = certificate("blue");
        labelled["labels"] = json!({"team": "payments"});
        world.post("/certificates", labelled).await.accepted();
        let plain = world.create_certificate("plain").await;
        let order = world.db_order(&id(&plain)).await;
        world.db_issue(&order).await;
        for (filter, names) in [
            ("name=blue", vec!["blue"]),
            ("label=team%3Dpayments", vec!["blue"]),
            ("dnsName=PLAIN.example.com", vec!["plain"]),
            ("ready=true", vec!["plain"]),
            ("ready=false", vec!["blue"]),
            ("issuer=le", vec!["blue", "plain"]),
            ("issuer=other", vec![]),
            ("expiresBefore=2028-01-01T00:00:00Z", vec!["plain"]),
            ("expiresBefore=2026-12-01T00:00:00Z", vec![]),
            ("namespace=none", vec![]),
        ] {
            let page = world.get(&format!("/certificates?{filter}")).await.json();
            let found: BTreeSet<_> = page["items"].as_array().unwrap().iter()
                .map(|one| one["name"].as_str().unwrap().to_owned()).collect();
            assert_eq!(found, names.into_iter().map(str::to_owned).collect(), "{filter}");
        }
    }

    async fn a_query_that_cannot_be_meant_is_refused(world: World) {
        for query in [
            "limit=0", "limit=501", "limit=many", "cursor=nonsense", "sort=colour", "colour=red",
            "expiresBefore=tomorrow", "ready=maybe",
        ] {
            let reply = world.get(&format!("/certificates?{query}")).await;
            reply.is_problem(400, "malformed_request");
        }
    }

    async fn tags_tell_whether_anything_has_changed(world: World) {
        world.create_issuer().await;
        let made = world.create_certificate("web").await;
        let path = format!("/certificates/{}", id(&made));
        let tag = world.get(&path).await.header("etag").to_owned();

        let known = world.ask(Method::GET, &path).header("if-none-match", &tag).send().await;
        assert_eq!((known.status, &*known.text), (304, ""));
        let labels = json!({"labels": {"a": "b"}});
        let stale = world.ask(Method::PATCH, &path).header("if-match", "\"other\"").json(&labels);
        stale.send().await.is_problem(412, "precondition_failed");
        let fresh = world.ask(Method::PATCH, &path).header("if-match", &tag).json(&labels).send().await;
        assert_eq!(fresh.status, 200, "{}", fresh.text);
        let stale = world.ask(Method::DELETE, &path).header("if-match", &tag).send().await;
        stale.is_problem(412, "precondition_failed");
        let now = world.ask(Method::GET, &path).header("if-none-match", &tag).send().await;
        assert_eq!((now.status, now.header("etag")), (200, fresh.header("etag")));
    }

    async fn a_changed_spec_is_issued_at_once_whatever_the_backoff(world: World) {
        world.create_issuer().await;
        let made = id(&world.create_certificate("web").await);
        let order = world.db_order(&made).await;
        world.db_issue(&order).await;
        let later = world.now() + time::Duration::hours(9);
        world.db_change(&made, |mut found| {
            found.state = State::Backoff;
            found.next_action_at = later;
            found.failed_attempts = 4;
            found
        }).await;
        let path = format!("/certificates/{made}");

        let changed = world.patch(&path, json!({"dnsNames": ["new.example.com"], "labels": {"a": "b"}})).await.json();
        assert_eq!(changed["generation"], 2);
        assert_eq!(changed["status"]["phase"], "Renewing");
        assert_eq!(changed["status"]["failedIssuanceAttempts"], 0);
        assert_eq!(changed["status"]["nextAttemptAt"], Value::Null);
        let by_name = world.get("/certificates?dnsName=new.example.com&label=a%3Db").await.json();
        assert_eq!(by_name["items"][0]["id"], json!(made));
        let old = world.get("/certificates?dnsName=web.example.com").await.json();
        assert_eq!(old["items"], json!([]));
    }

    async fn changed_pauses_hold_at_once(world: World) {
        world.create_issuer().await;
        let made = id(&world.create_certificate("web").await);
        let later = world.now() + time::Duration::hours(9);
        world.db_change(&made, |mut found| {
            found.state = State::Backoff;
            found.next_action_at = later;
            found
        }).await;
        let path = format!("/certificates/{made}");

        let retry = json!({"initial": "5m", "max": "1h"});
        let changed = world.patch(&path, json!({"retry": retry})).await.json();

        assert_eq!((&changed["retry"], &changed["status"]["phase"]), (&retry, &json!("Issuing")));
        assert_eq!(world.get(&path).await.json()["retry"], retry);
    }

    async fn a_patch_is_checked_like_a_new_certificate(world: World) {
        world.create_issuer().await;
        let path = format!("/certificates/{}", id(&world.create_certificate("web").await));
        for (patch, pointer, code) in [
            (json!({"dnsNames": ["*"]}), "/dnsNames/0", "invalid"),
            (json!({"issuerRef": {"name": "none"}}), "/issuerRef/name", "issuer_not_found"),
            (json!({"issuerRef": null}), "/issuerRef", "required"),
            (json!({"name": "other"}), "/name", "immutable"),
            (json!({"namespace": "other"}), "/namespace", "immutable"),
            (json!({"status": {}}), "/status", "unknown_field"),
            (json!({"duration": "1h"}), "/duration", "unsupported"),
            (json!({"retry": {"initial": "1s"}}), "/retry/initial", "invalid"),
            (json!({"retry": {"max": "9000h"}}), "/retry/max", "invalid"),
            (json!({"retry": {"initial": "3h", "max": "2h"}}), "/retry/max", "invalid"),
        ] {
            let problem = world.patch(&path, patch).await.is_problem(422, "validation_failed");
            let fault = &problem["errors"][0];
            assert_eq!((&fault["pointer"], &fault["code"]), (&json!(pointer), &json!(code)), "{problem}");
        }
        assert_eq!(world.get(&path).await.json()["generation"], 1);
    }

    async fn renewing_issues_now_and_joins_what_is_under_way(world: World) {
        world.create_issuer().await;
        let made = id(&world.create_certificate("web").await);
        let order = world.db_order(&made).await;
        world.db_issue(&order).await;
        let path = format!("/certificates/{made}/renew");

        let first = world.ask(Method::POST, &path).send().await.accepted();
        assert_eq!(first["status"]["phase"], "Renewing");
        assert_eq!(first["status"]["conditions"][1]["reason"], "ManuallyTriggered");
        let second = world.ask(Method::POST, &path).send().await.accepted();
        assert_eq!(second, first);
    }

    async fn deleting_gives_up_the_order_and_still_cleans_up(world: World) {
        world.create_issuer().await;
        let made = id(&world.create_certificate("web").await);
        let order = world.db_order(&made).await;
        let path = format!("/certificates/{made}");

        assert_eq!(world.delete(&path).await.status, 204);
        world.get(&path).await.is_problem(404, "not_found");
        world.delete(&path).await.is_problem(404, "not_found");
        let shown = world.get(&format!("/orders/{}", order.id)).await.json();
        assert_eq!(shown["state"], "errored");
        assert_eq!(shown["lastError"]["code"], "order_cancelled");
        let mut tx = world.db.read().await.unwrap();
        let (kept, _) = orders::find(&mut tx, OrderId(order.id.0), &Scope::Everything)
            .await.unwrap().unwrap();
        assert_eq!(kept.next_action_at, Some(world.now()), "the record still has to go");
        assert!(!kept.challenges[0].clean);
    }

    async fn deleting_passes_over_no_word_that_it_does_not_know(world: World) {
        world.create_issuer().await;
        let path = format!("/certificates/{}", id(&world.create_certificate("web").await));

        for query in ["revok=true", "revoke=perhaps", "reason=keyCompromise"] {
            let answer = world.delete(&format!("{path}?{query}")).await;
            answer.is_problem(400, "malformed_request");
        }
        assert_eq!(world.get(&path).await.status, 200);
    }

    async fn downloads_are_what_was_issued(world: World) {
        world.create_issuer().await;
        let made = id(&world.create_certificate("web").await);
        let path = |file: &str| format!("/certificates/{made}/{file}");
        world.get(&path("fullchain.pem")).await.is_problem(404, "not_issued");
        let order = world.db_order(&made).await;
        world.db_issue(&order).await;

        let full = world.get(&path("fullchain.pem")).await;
        assert_eq!(full.text, [pem("leaf"), pem("uppr")].concat());
        assert_eq!(full.header("content-type"), "application/pem-certificate-chain");
        assert_eq!(world.get(&path("cert.pem")).await.text, pem("leaf"));
        assert_eq!(world.get(&path("chain.pem?revision=1")).await.text, pem("uppr"));
        world.get(&path("cert.pem?revision=2")).await.is_problem(404, "not_issued");
        for file in ["fullchain.pem", "privkey.pem"] {
            let tag = world.get(&path(file)).await.header("etag").to_owned();
            let again = world.ask(Method::GET, &path(file)).header("if-none-match", &tag).send().await;
            assert_eq!((again.status, &*again.text), (304, ""), "{file}");
        }
        let revisions = world.get(&path("revisions")).await.json();
        assert_eq!(revisions["items"][0]["serialNumber"], "0abc");
        assert_eq!(revisions["items"][0]["current"], true);
        let shown = world.get(&format!("/certificates/{made}")).await.json();
        assert_eq!(shown["status"]["phase"], "Ready");
        assert_eq!(shown["status"]["notAfter"], "2027-02-22T12:00:00Z");
    }

    async fn waiting_ends_when_the_certificate_settles(world: World) {
        world.create_issuer().await;
        let made = id(&world.create_certificate("web").await);
        let order = world.db_order(&made).await;
        let path = format!("/certificates/{made}");
        let mut waiting = Box::pin(world.ask(Method::GET, &path).header("prefer", "wait=60").send());
        still_waits(&mut waiting).await;
        world.db_issue(&order).await;

        let shown = within("the answer", waiting).await;
        assert_eq!(shown.json()["status"]["phase"], "Ready");
        assert_eq!(shown.header("preference-applied"), "wait=60");
    }

    async fn waiting_ends_with_the_time_or_the_service(world: World) {
        world.create_issuer().await;
        let mut body = certificate("web");
        let timely = world.ask(Method::POST, "/certificates").header("prefer", "wait=1").json(&body);
        let timely = within("the answer", timely.send()).await;
        assert_eq!(timely.accepted()["status"]["phase"], "Issuing");
        assert_eq!(timely.header("preference-applied"), "wait=1");
        assert!(timely.header("location").starts_with("/certificates/"));

        body["name"] = json!("other");
        let stopped = world.ask(Method::POST, "/certificates").header("prefer", "wait=300").json(&body);
        let mut stopped = Box::pin(stopped.send());
        still_waits(&mut stopped).await;
        world.shutdown.cancel();
        let reply = within("the answer", stopped).await;
        reply.accepted();
    }

    async fn orders_challenges_requests_and_events_can_be_followed(world: World) {
        world.create_issuer().await;
        let made = id(&world.create_certificate("web").await);
        let order = world.db_order(&made).await;
        let shown = world.get(&format!("/certificates/{made}")).await.json();

        let order_path = shown["status"]["order"].as_str().unwrap().to_owned();
        assert_eq!(order_path, format!("/orders/{}", order.id));
        let shown = world.get(&order_path).await.json();
        assert_eq!(shown["state"], "pending");
        assert_eq!(shown["identifiers"], json!([{"type": "dns", "value": "web.example.com"}]));
        let challenge = &shown["challenges"][0];
        assert_eq!(challenge["record"], json!({"name": "_acme-challenge.web.example.com", "type": "TXT"}));
        assert_eq!((&challenge["presented"], &challenge["propagated"]), (&json!(true), &json!(false)));
        let path = format!("/challenges/{}", id(challenge));
        assert_eq!(world.get(&path).await.json(), *challenge);
        let request = world.get(shown["request"].as_str().unwrap()).await.json();
        assert!(request["csr"].as_str().unwrap().starts_with("-----BEGIN CERTIFICATE REQUEST-----"));
        for (list, count) in [
            (format!("/orders?certificate={made}&state=pending"), 1),
            ("/orders?state=valid".to_owned(), 0),
            (format!("/challenges?order={}&state=presented", order.id), 1),
            (format!("/requests?certificate={made}"), 1),
            (format!("/events?resource=certificates/{made}"), 5),
            (format!("/events?resource=/certificates/{made}&since=2026-11-24T12:00:01Z"), 0),
        ] {
            let page = world.get(&list).await.json();
            assert_eq!(page["items"].as_array().unwrap().len(), count, "{list}");
        }
    }

    async fn the_issuer_of_the_namespace_is_meant_unless_said_otherwise(world: World) {
        world.post("/issuers", cluster_issuer("le")).await.accepted();
        world.post("/issuers", json!({"name": "le", "namespace": "team", "acme": acme()})).await.accepted();
        let body = json!({"namespace": "team", "issuerRef": {"name": "le"}, "dnsNames": ["a.example.com"]});

        let made = world.post("/certificates", body).await.accepted();
        assert_eq!(made["issuerRef"], json!({"name": "le", "kind": "Issuer"}));
    }
}

/// Gives the request time to arrive, and to read once.
pub(super) async fn still_waits(request: &mut (impl Future<Output = Reply> + Unpin)) {
    let early = tokio::time::timeout(Duration::from_millis(500), request).await;
    assert!(early.is_err(), "answered too early: {early:?}");
}
