//! Approval, at a real CA: what a person has to approve is not ordered before, whoever asked for it.

use std::num::NonZeroU32;

use axum::http::Method;
use certwright::api::{CallerLimits, NamespaceLimits};
use serde_json::{Value, json};
use time::Duration;

use super::{path, policy, post, send};
use crate::support::driven::Driven;
use crate::support::fault_proxy::{Kind, RetryAfter};
use crate::support::world::{Reply, id};
use crate::webhooks::hooked;

at_a_ca! {
    async fn no_order_is_placed_until_somebody_else_approves(site: Driven, json!({})) {
        let world = &site.world;
        asking(&site, "Manual").await;
        let events = json!({"events": ["request.pending", "request.approved", "certificate.issued"]});
        let (receiver, _) = hooked(world, events).await;
        let boss = boss(&site).await;
        site.ask_for("web").await;
        site.step().await;

        let waiting = only(&site).await;
        assert_eq!(waiting["status"]["phase"], "Blocked");
        assert_eq!(waiting["status"]["lastError"]["code"], "approval_pending");
        assert_eq!(condition(&waiting["status"], "Approved")["status"], "False");
        let request = request(&site).await;
        assert_eq!(waiting["status"]["request"], request["path"]);
        assert_eq!(types(&request), ["Ready"], "nothing is decided");
        assert_eq!(condition(&request, "Ready")["reason"], "Pending");
        assert_eq!((&request["requestedBy"]["name"], &request["order"]), (&json!("admin"), &Value::Null));
        let explained = world.get(&format!("/certificates/{}/explain", id(&waiting))).await.json();
        assert_eq!((&explained["doing"], &explained["deadline"]), (&json!("waitingForApproval"), &request["approvalDeadline"]));
        assert!(explained["summary"].as_str().unwrap().contains("`requests:approve`"), "{explained}");
        assert!(explained["actions"][0].as_str().unwrap().contains(request["path"].as_str().unwrap()), "{explained}");

        world.clock.advance(Duration::minutes(10));
        world.post(&format!("/certificates/{}/renew", id(&waiting)), json!({})).await.accepted();
        site.step().await;
        let problem = decide(&site, &world.admin, &request, "approve").await;
        let problem = problem.is_problem(403, "permission_denied");
        assert!(problem["detail"].as_str().unwrap().contains("`admin`"), "{problem}");
        site.step().await;
        assert_eq!(site.proxy.requests(Kind::NewOrder), 0);

        let approved = decide(&site, &boss, &request, "approve").await;
        assert_eq!(approved.status, 200, "{}", approved.text);
        assert_eq!(types(&approved.json()), ["Approved", "Ready"]);
        assert_eq!(condition(&approved.json(), "Approved")["message"], "Approved by API key `limited`: as agreed");
        assert_eq!(condition(&only(&site).await["status"], "Approved")["status"], "True");
        let ready = site.until_all_ready().await.remove(0);
        assert_eq!((&ready["status"]["revision"], site.proxy.requests(Kind::NewOrder)), (&json!(1), 1));
        let issued = self::request(&site).await;
        assert_eq!((&issued["id"], &issued["csr"]), (&request["id"], &request["csr"]), "what was approved is issued");
        decide(&site, &boss, &request, "deny").await.is_problem(409, "not_pending");
        world.deliver().await;
        assert_eq!(receiver.types(), ["request.pending", "request.approved", "certificate.issued"]);
        assert_eq!(receiver.got()[0].json()["data"]["status"]["request"], request["path"]);

        renew(&site).await;
        assert_eq!(site.until_all_ready().await[0]["status"]["revision"], 2, "as it was approved");
    }

    async fn what_is_denied_rests_until_somebody_asks_again(site: Driven, json!({})) {
        let world = &site.world;
        asking(&site, "Manual").await;
        let (receiver, _) = hooked(world, json!({"events": ["request.denied", "certificate.blocked"]})).await;
        let boss = boss(&site).await;
        site.ask_for("web").await;
        site.step().await;
        let request = request(&site).await;

        let denied = decide(&site, &boss, &request, "deny").await.json();

        assert_eq!(types(&denied), ["Denied", "Ready"]);
        assert_eq!((&condition(&denied, "Ready")["reason"], denied["finishedAt"].is_string()), (&json!("Denied"), true));
        world.deliver().await;
        assert_eq!(receiver.types(), ["request.denied"]);
        for _ in 0..20 {
            world.clock.advance(Duration::days(2));
            site.step().await;
        }
        let blocked = only(&site).await;
        assert_eq!(blocked["status"]["lastError"]["code"], "request_denied");
        assert_eq!(condition(&blocked["status"], "Denied")["status"], "True");
        assert_eq!((requests(&site).await.len(), site.proxy.requests(Kind::NewOrder)), (1, 0));

        renew(&site).await;
        site.step().await;
        assert_eq!((requests(&site).await.len(), site.proxy.requests(Kind::NewOrder)), (2, 0));
        assert_eq!(only(&site).await["status"]["lastError"]["code"], "approval_pending");
    }

    async fn a_request_that_nobody_decides_about_is_denied_in_the_end(site: Driven, json!({})) {
        asking(&site, "Manual").await;
        let boss = boss(&site).await;
        site.ask_for("web").await;
        site.step().await;
        let asked = request(&site).await;

        site.world.clock.advance(Duration::days(7) + Duration::SECOND);
        site.step().await;

        let denied = request(&site).await;
        assert_eq!(condition(&denied, "Denied")["reason"], "ApprovalTimeout");
        assert_eq!(only(&site).await["status"]["lastError"]["code"], "request_denied");
        decide(&site, &boss, &asked, "approve").await.is_problem(409, "not_pending");
        site.step().await;
        assert_eq!(site.proxy.requests(Kind::NewOrder), 0);
    }

    async fn an_approval_days_later_takes_one_order(site: Driven, json!({})) {
        asking(&site, "Manual").await;
        let boss = boss(&site).await;
        site.ask_for("web").await;
        site.step().await;
        let asked = request(&site).await;
        // The CA's clock stays behind: its orders end in the past, as seen from here.
        site.world.clock.advance(Duration::days(6));

        assert_eq!(decide(&site, &boss, &asked, "approve").await.status, 200);

        let ready = site.until_all_ready().await.remove(0);
        assert_eq!((&ready["status"]["revision"], site.proxy.requests(Kind::NewOrder)), (&json!(1), 1));
    }

    async fn a_changed_certificate_has_a_request_of_its_own(site: Driven, json!({})) {
        let world = &site.world;
        asking(&site, "Manual").await;
        let boss = boss(&site).await;
        site.ask_for("web").await;
        site.step().await;
        let first = request(&site).await;
        let web = format!("/certificates/{}", id(&only(&site).await));
        assert_eq!(world.patch(&web, json!({"labels": {"a": "b"}})).await.status, 200);
        site.step().await;
        assert_eq!(requests(&site).await.len(), 1, "a label changes nothing of what is wanted");

        assert_eq!(world.patch(&web, json!({"dnsNames": ["other.example.com"]})).await.status, 200);
        site.step().await;

        decide(&site, &boss, &first, "approve").await.is_problem(409, "not_pending");
        let second = request(&site).await;
        assert_ne!(first["id"], second["id"]);
        assert_eq!(site.proxy.requests(Kind::NewOrder), 0);
        assert_eq!(decide(&site, &boss, &second, "approve").await.status, 200);
        let ready = site.until_all_ready().await.remove(0);

        assert_eq!(world.patch(&web, json!({"dnsNames": ["third.example.com"]})).await.status, 200);
        site.step().await;
        let third = only(&site).await;
        assert_eq!((&third["status"]["phase"], &third["status"]["revision"]), (&json!("Blocked"), &ready["status"]["revision"]));
        assert_eq!(site.proxy.requests(Kind::NewOrder), 1, "an approval holds for nothing else");
    }

    async fn a_policy_that_asks_nobody_any_more_lets_it_go_on(site: Driven, json!({})) {
        let world = &site.world;
        let team = asking(&site, "Manual").await;
        site.ask_for("web").await;
        site.step().await;
        let asked = request(&site).await;

        let auto = policy("team", "default", &["**.example.com"]);
        assert_eq!(world.put(&path(&team), auto).await.status, 200);

        assert_eq!(site.until_all_ready().await[0]["status"]["revision"], 1);
        let issued = request(&site).await;
        assert_eq!(issued["id"], asked["id"]);
        assert_eq!(condition(&issued, "Approved")["reason"], "certwright.dev");
    }

    async fn a_policy_that_is_withdrawn_ends_the_wait(site: Driven, json!({})) {
        let world = &site.world;
        let team = asking(&site, "Manual").await;
        let boss = boss(&site).await;
        site.ask_for("web").await;
        site.step().await;
        let asked = request(&site).await;

        assert_eq!(world.delete(&path(&team)).await.status, 204);
        site.step().await;

        assert_eq!(only(&site).await["status"]["lastError"]["code"], "name_not_allowed");
        decide(&site, &boss, &asked, "approve").await.is_problem(409, "not_pending");
        assert_eq!(site.proxy.requests(Kind::NewOrder), 0);
    }

    async fn where_a_policy_always_asks_it_asks_at_each_renewal(site: Driven, json!({})) {
        asking(&site, "Always").await;
        let boss = boss(&site).await;
        site.ask_for("web").await;
        for revision in 1..=2 {
            site.step().await;
            assert_eq!(site.proxy.requests(Kind::NewOrder), revision - 1);
            assert_eq!(decide(&site, &boss, &request(&site).await, "approve").await.status, 200);
            assert_eq!(site.until_all_ready().await[0]["status"]["revision"], revision);
            renew(&site).await;
        }
    }

    async fn whoever_has_it_issued_anew_does_not_approve_that(site: Driven, json!({})) {
        let world = &site.world;
        asking(&site, "Always").await;
        let boss = boss(&site).await;
        let own = ["requests:approve", "requests:read", "certificates:write", "certificates:read"];
        let busy = world.key(&own, &["default"]).await;
        site.ask_for("web").await;
        site.step().await;
        assert_eq!(decide(&site, &busy, &request(&site).await, "approve").await.status, 200, "another one asked");
        site.until_all_ready().await;
        let web = format!("/certificates/{}", id(&only(&site).await));
        let refused = async |why: &str| {
            site.step().await;
            let problem = decide(&site, &busy, &request(&site).await, "approve").await.is_problem(403, "permission_denied");
            assert!(problem["detail"].as_str().unwrap().contains("anew"), "{why}: {problem}");
            decide(&site, &world.admin, &request(&site).await, "approve").await.is_problem(403, "permission_denied");
        };

        post(world, &busy, &format!("{web}/renew"), json!({})).await.accepted();
        refused("renewed").await;
        let explained = world.get(&format!("{web}/explain")).await.json();
        assert!(explained["summary"].as_str().unwrap().contains("`limited`"), "{explained}");
        assert_eq!(decide(&site, &boss, &request(&site).await, "deny").await.status, 200);
        post(world, &busy, &format!("{web}/renew"), json!({})).await.accepted();
        refused("renewed after a denial").await;
        assert_eq!(decide(&site, &boss, &request(&site).await, "deny").await.status, 200);
        let labels = json!({"labels": {"a": "b"}});
        let relabelled = send(world, &busy, Method::PATCH, &web, &labels).await;
        assert_eq!(relabelled.status, 200, "{}", relabelled.text);
        refused("relabelled after a denial").await;

        assert_eq!(decide(&site, &boss, &request(&site).await, "approve").await.status, 200);
        site.until_all_ready().await;
        renew(&site).await;
        site.step().await;
        assert_eq!(decide(&site, &busy, &request(&site).await, "approve").await.status, 200, "this one is another's");
        site.until_all_ready().await;

        let sooner = send(world, &busy, Method::PATCH, &web, &json!({"renewBeforePercentage": 99})).await;
        assert_eq!(sooner.status, 200, "{}", sooner.text);
        world.clock.advance(Duration::days(60));
        refused("had its renewal come sooner").await;
        assert_eq!(decide(&site, &boss, &request(&site).await, "approve").await.status, 200);
        site.until_all_ready().await;
        assert_eq!(only(&site).await["status"]["revision"], 4);
        post(world, &busy, &format!("{web}/revoke"), json!({"reason": "superseded"})).await.accepted();
        refused("revoked").await;
    }

    async fn an_approval_is_for_the_ca_that_the_issuer_had(site: Driven, json!({})) {
        let world = &site.world;
        asking(&site, "Manual").await;
        let boss = boss(&site).await;
        site.ask_for("web").await;
        site.step().await;
        assert_eq!(decide(&site, &boss, &request(&site).await, "approve").await.status, 200);
        site.until_all_ready().await;
        let change = async |server: &str, email: &str| {
            let mut issuer = world.get(&site.issuer).await.json();
            (issuer["acme"]["server"], issuer["acme"]["email"]) = (json!(server), json!(email));
            let spec = json!({"kind": issuer["kind"], "name": issuer["name"], "acme": issuer["acme"]});
            let changed = world.put(&site.issuer, spec).await;
            assert_eq!(changed.status, 200, "{}", changed.text);
            site.step().await;
        };
        let server = world.get(&site.issuer).await.json()["acme"]["server"].as_str().unwrap().to_owned();

        change(&server, "other@example.com").await;
        renew(&site).await;
        assert_eq!(site.until_all_ready().await[0]["status"]["revision"], 2, "it is the same CA");

        change("https://other.example/directory", "other@example.com").await;
        change(&server, "other@example.com").await;
        let before = site.proxy.requests(Kind::NewOrder);
        renew(&site).await;
        site.step().await;
        assert_eq!(only(&site).await["status"]["lastError"]["code"], "approval_pending");
        assert_eq!(site.proxy.requests(Kind::NewOrder), before);

        // One that was approved, and waits for its issuer, waits for another approval as well.
        assert_eq!(decide(&site, &boss, &request(&site).await, "approve").await.status, 200);
        change("https://other.example/directory", "other@example.com").await;
        change(&server, "other@example.com").await;
        site.step().await;
        assert_eq!(only(&site).await["status"]["lastError"]["code"], "approval_pending");
        assert_eq!(site.proxy.requests(Kind::NewOrder), before);
        assert_eq!(decide(&site, &boss, &request(&site).await, "approve").await.status, 200);
        assert_eq!(site.until_all_ready().await[0]["status"]["revision"], 3);
    }

    async fn an_order_that_nobody_approved_stops_once_somebody_has_to(site: Driven, json!({})) {
        let world = &site.world;
        let team = asking(&site, "Auto").await;
        let boss = boss(&site).await;
        site.proxy.limit_new_orders(RetryAfter::Seconds, std::time::Duration::from_hours(1));
        site.ask_for("web").await;
        site.step().await;
        let asked = site.proxy.requests(Kind::NewOrder);
        assert!(asked > 0);
        let mut manual = policy("team", "default", &["**.example.com"]);
        manual["approval"] = json!("Manual");
        assert_eq!(world.put(&path(&team), manual).await.status, 200);

        world.clock.advance(Duration::hours(2));
        site.step().await;

        assert_eq!(site.proxy.requests(Kind::NewOrder), asked);
        assert_eq!(only(&site).await["status"]["lastError"]["code"], "approval_pending");
        assert_eq!(decide(&site, &boss, &request(&site).await, "approve").await.status, 200);
        site.until_all_ready().await;
    }

    async fn an_approval_does_not_go_beyond_the_orders_of_a_namespace(site: Driven, json!({})) {
        let most = NamespaceLimits { certificates: None, open_orders: NonZeroU32::new(1) };
        let site = site.limited(CallerLimits::default().within(most));
        asking(&site, "Manual").await;
        let boss = boss(&site).await;
        for name in ["web", "other"] {
            site.ask_for(name).await;
            site.step().await;
        }
        let waiting = requests(&site).await;
        let path = |one: &Value| json!({"path": format!("/requests/{}", id(one))});

        assert_eq!(decide(&site, &boss, &path(&waiting[0]), "approve").await.status, 200);
        decide(&site, &boss, &path(&waiting[1]), "approve").await.is_problem(429, "too_many_requests");
        assert_eq!(decide(&site, &boss, &path(&waiting[1]), "deny").await.status, 200, "a denial orders nothing");
    }

    async fn only_who_may_approve_in_the_namespace_decides_and_says_why(site: Driven, json!({})) {
        let world = &site.world;
        asking(&site, "Manual").await;
        site.ask_for("web").await;
        site.step().await;
        let request = request(&site).await;

        let reader = world.key(&["requests:read", "certificates:write"], &["default"]).await;
        decide(&site, &reader, &request, "approve").await.is_problem(403, "permission_denied");
        let stranger = world.key(&["requests:approve"], &["other"]).await;
        decide(&site, &stranger, &request, "approve").await.is_problem(404, "not_found");
        let boss = boss(&site).await;
        for reason in [json!(" "), json!("x".repeat(1_001)), Value::Null] {
            let silent = post(world, &boss, &decision(&request, "approve"), json!({"reason": reason})).await;
            assert_eq!(silent.status, 422, "{}", silent.text);
        }
        site.step().await;
        assert_eq!(site.proxy.requests(Kind::NewOrder), 0);
    }
}

/// A policy for what is asked for here.
async fn asking(site: &Driven, approval: &str) -> Value {
    let mut asking = policy("team", "default", &["**.example.com"]);
    asking["approval"] = json!(approval);
    site.world.post("/policies", asking).await.accepted()
}

/// The key of somebody who may approve.
async fn boss(site: &Driven) -> String {
    site.world.key(&["requests:approve", "requests:read"], &["default"]).await
}

fn decision(request: &Value, verb: &str) -> String {
    format!("{}/{verb}", request["path"].as_str().unwrap())
}

async fn decide(site: &Driven, key: &str, request: &Value, verb: &str) -> Reply {
    post(&site.world, key, &decision(request, verb), json!({"reason": "as agreed"})).await
}

async fn renew(site: &Driven) {
    let web = format!("/certificates/{}/renew", id(&only(site).await));
    site.world.post(&web, json!({})).await.accepted();
}

async fn only(site: &Driven) -> Value {
    let mut all = site.world.certificates().await;
    assert_eq!(all.len(), 1);
    all.remove(0)
}

async fn requests(site: &Driven) -> Vec<Value> {
    site.world.get("/requests").await.json()["items"].as_array().unwrap().clone()
}

/// The newest request, with its path.
async fn request(site: &Driven) -> Value {
    let mut newest = requests(site).await.pop().expect("there is a request");
    newest["path"] = json!(format!("/requests/{}", id(&newest)));
    newest
}

fn types(of: &Value) -> Vec<&str> {
    let conditions = of["conditions"].as_array().unwrap();
    conditions.iter().map(|one| one["type"].as_str().unwrap()).collect()
}

#[track_caller]
fn condition<'a>(of: &'a Value, kind: &str) -> &'a Value {
    let conditions = of["conditions"].as_array().unwrap();
    let found = conditions.iter().find(|one| one["type"] == kind);
    found.unwrap_or_else(|| panic!("there is no condition {kind}: {of}"))
}
