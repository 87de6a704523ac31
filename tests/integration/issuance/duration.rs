//! How long a certificate is to live, where its CA takes that.

use http::Method;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{assert_ready, download};
use crate::support::databases;
use crate::support::fault_proxy::{Fault, Kind};
use crate::support::pebble::PebbleOptions;
use crate::support::person::Person;
use crate::support::site::{Site, on_each_site};
use crate::support::world::{World, certificate, cluster_issuer, id, on_every_database};

mod asked {
    use super::*;

    on_every_database! {
        async fn a_duration_is_refused_where_it_would_mean_nothing(world: World) {
            world.create_issuer().await;
            timed(&world).await;
            for (issuer, change, pointer, code) in [
                ("le", json!({"duration": "48h"}), "/duration", "unsupported"),
                ("timed", json!({"duration": "59m"}), "/duration", "invalid"),
                ("timed", json!({"duration": "90000h"}), "/duration", "invalid"),
                ("timed", json!({"duration": "forever"}), "/duration", "invalid"),
                ("timed", json!({"duration": "2h", "renewBefore": "2h"}), "/renewBefore", "invalid"),
            ] {
                let mut body = certificate("web");
                body["issuerRef"]["name"] = json!(issuer);
                body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
                let problem = world.post("/certificates", body).await.is_problem(422, "validation_failed");
                let fault = &problem["errors"][0];
                assert_eq!((&fault["pointer"], &fault["code"]), (&json!(pointer), &json!(code)), "{problem}");
                let says_what_to_do = fault["detail"].as_str().unwrap().contains("enableDurationFeature");
                assert_eq!(says_what_to_do, code == "unsupported", "{problem}");
            }
        }

        async fn another_duration_is_another_certificate(world: World) {
            timed(&world).await;
            let mut body = certificate("web");
            body["issuerRef"]["name"] = json!("timed");
            body["duration"] = json!("48h");
            let made = world.post("/certificates", body).await.accepted();
            let path = format!("/certificates/{}", id(&made));
            assert_eq!(made["duration"], "48h");
            world.db_issue(&world.db_order(&id(&made)).await).await;

            let same = world.patch(&path, json!({"renewBefore": "12h"})).await.json();
            assert_eq!((&same["status"]["phase"], &same["duration"]), (&json!("Ready"), &json!("48h")));
            let changed = world.patch(&path, json!({"duration": "72h"})).await.json();
            assert_eq!(changed["status"]["phase"], "Renewing");
            let left = world.patch(&path, json!({"duration": null})).await.json();
            assert_eq!(left["duration"], Value::Null);
        }

        async fn manifests_keep_a_duration_that_the_issuer_asks_for(world: World) {
            let text = |feature: bool| format!("
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {{name: web}}
spec:
  secretName: web-tls
  issuerRef: {{name: timed, kind: ClusterIssuer}}
  dnsNames: [web.example.org]
  duration: 48h
---
apiVersion: cert-manager.io/v1
kind: ClusterIssuer
metadata: {{name: timed}}
spec:
  acme:
    server: https://ca.example/directory
    enableDurationFeature: {feature}
    solvers: [{{http01: {{}}}}]
");
            let apply = async |text: String| {
                let ask = world.ask(Method::POST, "/apply").text(&text);
                let reply = ask.header("content-type", "application/yaml").send().await;
                assert_eq!(reply.status, 200, "{}", reply.text);
                reply.json()["results"].clone()
            };
            let duration = async || world.certificates().await[0]["duration"].clone();

            let without = apply(text(false)).await;
            assert!(without[0]["warnings"].to_string().contains("spec.duration: "), "{without}");
            assert_eq!(duration().await, Value::Null);
            let with = apply(text(true)).await;
            assert_eq!((&with[0]["result"], &with[1]["result"]), (&json!("configured"), &json!("configured")));
            assert!(!with.to_string().contains("uration"), "nothing to warn of: {with}");
            assert_eq!(duration().await, "48h");
            let again = apply(text(true)).await;
            assert_eq!((&again[0]["result"], &again[1]["result"]), (&json!("unchanged"), &json!("unchanged")));
        }
    }
}

on_each_site! {
    async fn a_certificate_ends_when_it_is_to_end_and_so_does_the_next(site: Site) {
        timed_on(&site).await;
        let more = json!({"duration": "48h", "renewBefore": "12h"});

        let issued = site.ask_for("timed", &["timed.example.com"], &more, 60).await.expect_status(202);

        assert_ready(&issued);
        let order = site.get(issued["status"]["order"].as_str().unwrap()).await.body;
        assert_eq!(end_of(&site, &issued).await, moment(&order["notAfter"]));
        let life = moment(&order["notAfter"]) - moment(&order["createdAt"]);
        assert!(time::Duration::hours(48) - life < time::Duration::seconds(1) && life <= time::Duration::hours(48), "{life}");
        let left = moment(&issued["status"]["notAfter"]) - moment(&issued["status"]["renewalTime"]);
        let hours = time::Duration::hours;
        assert!(left > hours(11) && left <= hours(12), "{left}");

        let path = format!("/certificates/{}", issued["id"].as_str().unwrap());
        site.patch(&path, &json!({"duration": "2h", "renewBefore": null})).await.expect_status(200);
        let anew = site.until(&path, |now| now["status"]["revision"] == 2).await;
        let life = end_of(&site, &anew).await - moment(&anew["status"]["notBefore"]);
        assert!(life > time::Duration::minutes(119) && life <= time::Duration::hours(2), "{life}");
        let order = site.get(anew["status"]["order"].as_str().unwrap()).await.body;
        assert!(moment(&order["deadline"]) - moment(&order["createdAt"]) <= hours(1), "{order}");

        let person = Person::of(&site);
        let exported = person.run(&["export"]).succeeded().out;
        assert!(exported.contains("duration: 2h\n") && exported.contains("enableDurationFeature: true\n"), "{exported}");
        std::fs::write(person.path("export.yaml"), exported).unwrap();
        let same = person.run(&["apply", "-f", "export.yaml"]).succeeded();
        assert!(same.out.lines().all(|line| line.ends_with(" unchanged")) && !same.err.contains("duration"), "{same:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_whose_answer_is_lost_asks_for_the_same_end_again_on_sqlite() {
    let (_folder, url) = databases::sqlite_url();
    same_end_again(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_whose_answer_is_lost_asks_for_the_same_end_again_on_postgres() {
    same_end_again(&crate::support::postgres::fresh_database().await).await;
}

async fn same_end_again(url: &str) {
    let site = Site::through_proxy(url, PebbleOptions::default()).await;
    timed_on(&site).await;
    site.proxy().lose_answers(Kind::NewOrder, 1);
    let more = json!({"duration": "48h"});

    let issued = site.ask_for("timed", &["lost.example.com"], &more, 60).await.expect_status(202);

    assert_ready(&issued);
    assert_eq!(site.proxy().faults(Fault::Lost), 1);
    let asked = site.proxy().orders_asked();
    assert_eq!((asked.len(), &asked[0]), (2, &asked[1]), "{asked:?}");
    let order = site.get(issued["status"]["order"].as_str().unwrap()).await.body;
    assert_eq!(order["notAfter"], asked[0]["notAfter"]);
    assert_eq!(end_of(&site, &issued).await, moment(&asked[0]["notAfter"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ca_that_takes_no_end_is_said_with_what_to_do_and_heals_when_that_was_done() {
    let (_folder, url) = databases::sqlite_url();
    let site = Site::through_proxy(&url, PebbleOptions::default()).await;
    let issuer = timed_on(&site).await;
    site.proxy().refuse_ends();
    let more = json!({"duration": "48h"});

    let refused = site.ask_for("timed", &["no.example.com"], &more, 60).await.expect_status(202);

    assert_eq!(refused["status"]["phase"], "Blocked", "{refused:#}");
    let error = &refused["status"]["lastError"];
    assert_eq!(error["code"], "acme_not_after_refused", "{error}");
    for part in ["NotBefore and NotAfter are not supported", "`enableDurationFeature: false`"] {
        assert!(error["detail"].as_str().unwrap().contains(part), "{error}");
    }
    let path = format!("/certificates/{}", refused["id"].as_str().unwrap());
    let explained = site.get(&format!("{path}/explain")).await.body.to_string();
    assert!(explained.contains("`enableDurationFeature: false`"), "{explained}");
    assert_eq!(site.proxy().faults(Fault::End), 1);

    let mut acme = site.get(&issuer).await.body["acme"].clone();
    acme["enableDurationFeature"] = json!(false);
    let without = json!({"kind": "ClusterIssuer", "name": "timed", "acme": acme});
    site.put(&issuer, &without).await.expect_status(200);
    let healed = site.until(&path, |now| now["status"]["phase"] == "Ready").await;
    let order = site.get(healed["status"]["order"].as_str().unwrap()).await.body;
    assert_eq!((&order["notAfter"], site.proxy().faults(Fault::End)), (&Value::Null, 1), "{order}");
}

/// The `ClusterIssuer` `timed`, which asks its CA for durations.
async fn timed(world: &World) {
    let mut issuer = cluster_issuer("timed");
    issuer["acme"]["enableDurationFeature"] = json!(true);
    let made = world.post("/issuers", issuer).await.accepted();
    assert_eq!(made["acme"]["enableDurationFeature"], true);
}

/// The same at a real CA; where it is.
async fn timed_on(site: &Site) -> String {
    let more = json!({"enableDurationFeature": true});
    let made = site.create_issuer("timed", &json!([site.dns_solver()]), &more).await;
    site.ready("timed").await;
    format!("/issuers/{}", made["id"].as_str().unwrap())
}

/// When the served certificate itself says that it ends.
async fn end_of(site: &Site, certificate: &Value) -> OffsetDateTime {
    let pem = download(site, certificate, "cert.pem").await;
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
    pem.parse_x509().unwrap().validity().not_after.to_datetime()
}

fn moment(value: &Value) -> OffsetDateTime {
    OffsetDateTime::parse(value.as_str().unwrap(), &Rfc3339).unwrap()
}
