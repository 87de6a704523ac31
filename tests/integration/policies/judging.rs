//! Judged again and again, at a real CA: whatever policies do not allow any more is not issued.

use serde_json::{Value, json};
use time::Duration;

use super::{allow, path, policy};
use crate::support::driven::Driven;
use crate::support::fault_proxy::{Kind, RetryAfter};
use crate::support::world::id;
use crate::webhooks::hooked;

at_a_ca! {
    async fn a_policy_that_is_withdrawn_stops_the_renewal_and_tells(site: Driven, json!({})) {
        let world = &site.world;
        let team = allow(world, "team", "default", &["**.example.com"]).await;
        let (receiver, _) = hooked(world, json!({"events": ["certificate.blocked", "certificate.recovered"]})).await;
        site.ask_for("web").await;
        let ready = site.until_all_ready().await.remove(0);
        assert_eq!(ready["admittedBy"], json!({"policy": "team"}));

        assert_eq!(world.delete(&path(&team)).await.status, 204);
        site.step().await;

        let blocked = only(&site).await;
        assert_eq!(blocked["status"]["phase"], "Blocked");
        assert_eq!(blocked["status"]["lastError"]["code"], "name_not_allowed");
        let detail = blocked["status"]["lastError"]["detail"].as_str().unwrap();
        assert!(detail.contains("`team`") && detail.contains("`web.example.com`"), "{detail}");
        assert_eq!(events(&site).await.matches("NameNotAllowed").count(), 1);
        world.deliver().await;
        assert_eq!(receiver.types(), ["certificate.blocked"]);

        let orders = site.proxy.requests(Kind::NewOrder);
        world.clock.advance(Duration::days(4_000));
        site.step().await;
        assert_eq!(site.proxy.requests(Kind::NewOrder), orders, "its renewal is due, and nothing is ordered");
        assert_eq!(only(&site).await["status"]["phase"], "Blocked");

        allow(world, "others", "default", &["web.example.com"]).await;
        site.step().await;
        assert!(site.proxy.requests(Kind::NewOrder) > orders, "a policy that allows it again wakes it");
        assert_eq!(only(&site).await["admittedBy"], json!({"policy": "others"}));
    }

    async fn what_was_at_rest_rests_again_when_it_is_allowed_again(site: Driven, json!({})) {
        let world = &site.world;
        let team = allow(world, "team", "default", &["**.example.com"]).await;
        let (receiver, _) = hooked(world, json!({"events": ["certificate.blocked", "certificate.recovered"]})).await;
        site.ask_for("web").await;
        let ready = site.until_all_ready().await.remove(0);
        let narrowed = policy("team", "default", &["*.a.example.com"]);
        assert_eq!(world.put(&path(&team), narrowed).await.status, 200);
        site.step().await;
        assert_eq!(only(&site).await["status"]["phase"], "Blocked");

        assert_eq!(world.put(&path(&team), policy("team", "default", &["*.example.com"])).await.status, 200);
        site.step().await;

        let again = only(&site).await;
        assert_eq!(again["status"]["phase"], "Ready");
        for field in ["revision", "renewalTime", "order", "lastError", "nextAttemptAt"] {
            assert_eq!(again["status"][field], ready["status"][field], "{field}");
        }
        world.deliver().await;
        assert_eq!(receiver.types(), ["certificate.blocked", "certificate.recovered"]);
        assert_eq!(site.proxy.requests(Kind::NewOrder), 1);
    }

    async fn what_is_not_allowed_any_more_is_never_ordered(site: Driven, json!({})) {
        let world = &site.world;
        let team = allow(world, "team", "default", &["**.example.com"]).await;
        site.ask_for("web").await;
        assert_eq!(world.delete(&path(&team)).await.status, 204);

        site.step().await;

        assert_eq!(site.proxy.requests(Kind::NewOrder), 0);
        assert_eq!(code(&only(&site).await), "name_not_allowed");
        allow(world, "team", "default", &["**.example.com"]).await;
        assert_eq!(site.until_all_ready().await[0]["status"]["revision"], 1);
    }

    async fn an_order_that_waits_for_its_turn_is_judged_before_it_is_placed(site: Driven, json!({})) {
        let world = &site.world;
        let team = allow(world, "team", "default", &["**.example.com"]).await;
        site.proxy.limit_new_orders(RetryAfter::Seconds, std::time::Duration::from_hours(1));
        site.ask_for("web").await;
        site.step().await;
        let asked = site.proxy.requests(Kind::NewOrder);
        assert!(asked > 0);
        assert_eq!(world.delete(&path(&team)).await.status, 204);

        world.clock.advance(Duration::hours(2));
        site.step().await;

        assert_eq!(site.proxy.requests(Kind::NewOrder), asked);
        assert_eq!(code(&only(&site).await), "name_not_allowed");
    }

    async fn a_policy_that_is_narrowed_meanwhile_stops_an_order_before_it_is_finalized(
        site: Driven, json!({"propagation": {"mode": "none", "delay": "60s"}})
    ) {
        let world = &site.world;
        let team = allow(world, "team", "default", &["**.example.com"]).await;
        site.ask_for("web").await;
        site.step().await;
        assert_eq!(site.proxy.requests(Kind::NewOrder), 1);
        assert_eq!(only(&site).await["status"]["phase"], "Issuing");
        assert_eq!(world.put(&path(&team), policy("team", "default", &["api.example.com"])).await.status, 200);

        for _ in 0..50 {
            site.step().await;
            site.pass().await;
            if only(&site).await["status"]["phase"] == "Blocked" {
                break;
            }
        }

        let blocked = only(&site).await;
        assert_eq!(code(&blocked), "name_not_allowed");
        assert!(site.proxy.requests(Kind::Challenge) > 0, "it had come so far");
        assert_eq!((site.proxy.requests(Kind::Finalize), &blocked["status"]["revision"]), (0, &json!(0)));
    }

    async fn what_an_administrator_admitted_is_renewed_without_a_policy(site: Driven, json!({})) {
        let world = &site.world;
        let other = allow(world, "other", "default", &["other.example.com"]).await;
        site.ask_for("web").await;
        let ready = site.until_all_ready().await.remove(0);
        assert_eq!(ready["admittedBy"], json!({"administrator": "admin"}));
        assert_eq!(world.delete(&path(&other)).await.status, 204);

        world.post(&format!("/certificates/{}/renew", id(&ready)), json!({})).await.accepted();

        assert_eq!(site.until_all_ready().await[0]["status"]["revision"], 2);
    }
}

pub(super) async fn only(site: &Driven) -> Value {
    let mut all = site.world.certificates().await;
    assert_eq!(all.len(), 1);
    all.remove(0)
}

pub(super) fn code(certificate: &Value) -> &str {
    certificate["status"]["lastError"]["code"].as_str().unwrap_or_default()
}

async fn events(site: &Driven) -> String {
    site.world.get("/events?limit=500").await.text
}
