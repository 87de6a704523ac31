//! Solvers at a real CA: where they write, and for whom. Whoever has a name writes its CNAMEs.

use serde_json::{Value, json};
use time::Duration;

use super::judging::{code, only};
use crate::support::driven::Driven;
use crate::support::fault_proxy::Kind;

at_a_ca! {
    async fn a_cname_that_leads_elsewhere_blocks_until_it_ends_in_a_zone_of_the_issuer(site: Driven, json!({})) {
        change_solver(&site, |solver| {
            solver["dns01"]["cnameStrategy"] = json!("Follow");
            solver["dns01"]["cnameZones"] = json!(["acme.example.com"]);
            solver["dns01"]["nameservers"] = json!([site.cloudflare.dns_addr().to_string()]);
        }).await;
        site.cloudflare.set_cname("_acme-challenge.web.example.com", "_acme-challenge.pay.example.com");
        site.ask_for("web").await;
        until_blocked(&site).await;

        let blocked = only(&site).await;
        assert_eq!(code(&blocked), "dns_cname_outside");
        let detail = blocked["status"]["lastError"]["detail"].as_str().unwrap();
        assert!(detail.contains("leads to _acme-challenge.pay.example.com, which is in none"), "{detail}");
        let orders = site.proxy.requests(Kind::NewOrder);
        site.world.clock.advance(Duration::minutes(10));
        site.step().await;
        assert_eq!((site.cloudflare.written(), site.proxy.requests(Kind::NewOrder)), (0, orders), "neither provider nor CA is asked");

        site.cloudflare.set_cname("_acme-challenge.web.example.com", "web.acme.example.com");
        site.world.clock.advance(Duration::minutes(33));
        site.until_all_ready().await;

        assert!(site.cloudflare.written() > 0);
        assert_eq!(site.proxy.requests(Kind::NewOrder), orders + 1);
    }

    async fn a_solver_that_is_reserved_to_others_meanwhile_writes_nothing_more(site: Driven, json!({})) {
        site.cloudflare.limit_next(1, "60");
        site.ask_for("web").await;
        site.step().await;
        assert_eq!(only(&site).await["status"]["phase"], "Issuing");

        change_solver(&site, |solver| solver["selector"] = json!({"namespaces": ["payments"]})).await;
        until_blocked(&site).await;

        let blocked = only(&site).await;
        assert_eq!((code(&blocked), site.cloudflare.written()), ("no_solver", 0), "{blocked}");
        change_solver(&site, |solver| solver["selector"] = json!({"namespaces": ["payments", "default"]})).await;
        site.until_all_ready().await;
    }
}

/// Changes the only solver of the issuer.
async fn change_solver(site: &Driven, change: impl FnOnce(&mut Value)) {
    let present = site.world.get(&site.issuer).await.json();
    let mut wanted =
        json!({"kind": present["kind"], "name": present["name"], "acme": present["acme"]});
    change(&mut wanted["acme"]["solvers"][0]);
    let changed = site.world.put(&site.issuer, wanted).await;
    assert_eq!(changed.status, 200, "{}", changed.text);
    site.step().await;
}

async fn until_blocked(site: &Driven) {
    for _ in 0..100 {
        site.step().await;
        if only(site).await["status"]["phase"] == "Blocked" {
            return;
        }
        site.pass().await;
    }
    panic!("it is not blocked: {}", only(site).await);
}
