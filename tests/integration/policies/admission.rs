//! Every write of a certificate is judged: by what right it is there is decided once, wherever it comes from.

use axum::http::Method;
use certwright::domain::certificate::Certificate;
use certwright::domain::policy::{AdmittedBy, BEFORE_POLICIES};
use serde_json::{Value, json};

use super::{allow, of_team, path, post, refused_at, send};
use crate::support::world::{World, certificate, cluster_issuer, id, on_every_database};

on_every_database! {
    async fn a_namespace_without_a_policy_has_no_names(world: World) {
        world.create_issuer().await;
        let tenant = world.key(&["*"], &["team"]).await;
        let wanted = of_team("web", &["a.example.com", "*.example.com"]);

        let refused = post(&world, &tenant, "/certificates", wanted.clone()).await;
        assert_eq!(refused_at(&refused), ["/dnsNames/0", "/dnsNames/1"]);
        assert!(refused.json()["errors"][0]["detail"].as_str().unwrap().contains("POST /policies"), "{}", refused.text);
        for path in ["/apply?dryRun=true", "/apply", "/import"] {
            let refused = post(&world, &tenant, path, manifest(&wanted)).await;
            assert_eq!(refused_at(&refused), ["/spec/dnsNames/0", "/spec/dnsNames/1"], "{path}");
            assert_eq!(refused.json()["errors"][1]["document"], 1);
        }
        assert_eq!(world.certificates().await, Vec::<Value>::new());

        let made = world.post("/certificates", wanted).await.accepted();
        assert_eq!(made["admittedBy"], json!({"administrator": "admin"}));
    }

    async fn a_tenant_gets_its_own_names_and_nobody_elses(world: World) {
        world.create_issuer().await;
        allow(&world, "a", "a", &["**.a.example.com"]).await;
        allow(&world, "b", "b", &["**.b.example.com"]).await;
        let tenant = world.key(&["*"], &["a"]).await;
        let want = async |name: &str, names: &[&str]| {
            let mut wanted = of_team(name, names);
            wanted["namespace"] = json!("a");
            post(&world, &tenant, "/certificates", wanted).await
        };

        let made = want("own", &["www.a.example.com"]).await.accepted();
        assert_eq!(made["admittedBy"], json!({"policy": "a"}));
        let both = want("both", &["www.a.example.com", "www.b.example.com"]).await;
        assert_eq!(refused_at(&both), ["/dnsNames/0", "/dnsNames/1"], "one policy has to allow all");
        for name in ["www.b.example.com", "a.example.com", "www.a.example.com.evil.test", "wwwa.example.com"] {
            assert_eq!(refused_at(&want("theirs", &[name]).await), ["/dnsNames/0"], "{name}");
        }
        let mut by_common_name = of_team("common", &["www.a.example.com"]);
        by_common_name["namespace"] = json!("a");
        by_common_name["commonName"] = json!("www.b.example.com");
        let refused = post(&world, &tenant, "/certificates", by_common_name).await;
        assert!(refused_at(&refused).contains(&"/commonName".to_owned()), "{}", refused.text);
    }

    async fn the_names_of_a_csr_are_judged_like_others(world: World) {
        world.create_issuer().await;
        allow(&world, "team", "team", &["**.team.example.com"]).await;
        let tenant = world.key(&["*"], &["team"]).await;
        let wanted = |name: &str, of: &str| json!({
            "namespace": "team", "name": name, "issuerRef": {"name": "le", "kind": "ClusterIssuer"}, "csr": csr(of),
        });

        let refused = post(&world, &tenant, "/certificates", wanted("theirs", "www.example.com")).await;
        assert_eq!(refused_at(&refused), ["/csr"]);
        let made = post(&world, &tenant, "/certificates", wanted("own", "www.team.example.com")).await.accepted();
        let replace = format!("/certificates/{}/csr", id(&made));
        let refused = send(&world, &tenant, Method::PUT, &replace, &json!({"csr": csr("www.example.com")})).await;
        assert_eq!(refused_at(&refused), ["/csr"]);
        let next = send(&world, &tenant, Method::PUT, &replace, &json!({"csr": csr("api.team.example.com")})).await;
        assert_eq!(next.status, 200, "{}", next.text);
    }

    async fn what_an_administrator_admitted_holds_until_a_tenant_wants_another(world: World) {
        world.create_issuer().await;
        let tenant = world.key(&["*"], &["team"]).await;
        let made = world.post("/certificates", of_team("web", &["web.example.com"])).await.accepted();
        let path = format!("/certificates/{}", id(&made));
        world.post("/issuers", cluster_issuer("other")).await.accepted();
        let change = async |key: &str, patch: Value| send(&world, key, Method::PATCH, &path, &patch).await;

        for patch in [json!({"labels": {"tier": "web"}}), json!({"renewBefore": "240h"}), json!({"dnsNames": ["WEB.example.com."]})] {
            let changed = change(&tenant, patch.clone()).await;
            assert_eq!((changed.status, &changed.json()["admittedBy"]), (200, &json!({"administrator": "admin"})), "{patch}");
        }
        for (patch, pointer) in [
            (json!({"dnsNames": ["web.example.com", "api.example.com"]}), "/dnsNames/0"),
            (json!({"issuerRef": {"name": "other", "kind": "ClusterIssuer"}}), "/dnsNames/0"),
            (json!({"privateKey": {"algorithm": "RSA", "size": 2048}}), "/dnsNames/0"),
        ] {
            assert_eq!(refused_at(&change(&tenant, patch.clone()).await)[0], pointer, "{patch}");
        }
        let present = world.get(&path).await.json();
        assert_eq!(present["dnsNames"], json!(["web.example.com"]));

        allow(&world, "team", "team", &["**.example.com"]).await;
        let changed = change(&tenant, json!({"dnsNames": ["api.example.com"]})).await.json();
        assert_eq!(changed["admittedBy"], json!({"policy": "team"}));
        let back = change(&world.admin, json!({"dnsNames": ["web.test"]})).await.json();
        assert_eq!(back["admittedBy"], json!({"administrator": "admin"}));
    }

    async fn what_was_there_before_policies_is_listed_and_goes_on(world: World) {
        world.create_issuer().await;
        let made = world.post("/certificates", of_team("old", &["old.example.com"])).await.accepted();
        world.create_certificate("new").await;
        let upgrade = AdmittedBy::Upgrade(BEFORE_POLICIES.to_owned());
        world.db_change(&id(&made), |found| Certificate { admitted_by: upgrade, ..found }).await;
        let listed = async |right: &str| {
            let found = world.get(&format!("/certificates?admittedBy={right}")).await.json();
            let names: Vec<_> = found["items"].as_array().unwrap().iter().map(|one| one["name"].clone()).collect();
            json!(names)
        };
        assert_eq!(listed("upgrade").await, json!(["old"]));
        assert_eq!(listed("administrator").await, json!(["new"]));
        assert_eq!(listed("policy").await, json!([]));

        let tenant = world.key(&["*"], &["team"]).await;
        let path = format!("/certificates/{}", id(&made));
        let label = json!({"labels": {"tier": "web"}});
        let kept = send(&world, &tenant, Method::PATCH, &path, &label).await.json();
        assert_eq!(kept["admittedBy"], json!({"upgrade": "before name policies"}));
        let renewed = post(&world, &tenant, &format!("{path}/renew"), json!({})).await;
        assert_eq!(renewed.status, 202);

        allow(&world, "team", "team", &["old.example.com"]).await;
        let written = send(&world, &tenant, Method::PATCH, &path, &json!({"labels": null})).await.json();
        assert_eq!(written["admittedBy"], json!({"policy": "team"}));
    }

    async fn a_label_chooses_no_solver_that_is_reserved_to_others(world: World) {
        let mut issuer = cluster_issuer("le");
        let mut reserved = issuer["acme"]["solvers"][0].clone();
        reserved["selector"] = json!({"matchLabels": {"zone": "paid"}, "namespaces": ["payments"]});
        issuer["acme"]["solvers"] = json!([reserved]);
        world.post("/issuers", issuer).await.accepted();
        for namespace in ["team", "payments"] {
            allow(&world, namespace, namespace, &["**.example.com"]).await;
        }
        let ask = async |namespace: &str, labels: Value| {
            let mut wanted = of_team("web", &["*.example.com"]);
            wanted["namespace"] = json!(namespace);
            wanted["labels"] = labels;
            post(&world, &world.key(&["*"], &[namespace]).await, "/certificates", wanted).await
        };

        for (namespace, labels) in [
            ("team", json!({"zone": "paid"})),
            ("team", json!({"zone": "paid", "namespaces": "payments"})),
            ("payments", json!({})),
        ] {
            let problem = ask(namespace, labels.clone()).await.is_problem(422, "validation_failed");
            let error = &problem["errors"][0];
            assert_eq!((&error["pointer"], &error["code"]), (&json!("/dnsNames/0"), &json!("no_solver")), "{labels}");
            assert!(error["detail"].as_str().unwrap().contains(&format!("namespace `{namespace}`")), "{error}");
        }
        ask("payments", json!({"zone": "paid"})).await.accepted();
    }

    async fn a_policy_holds_from_the_answer_on(world: World) {
        world.create_issuer().await;
        let tenant = world.key(&["*"], &["team"]).await;
        for number in 0..3 {
            let wanted = |kind: &str| of_team(&format!("{kind}-{number}"), &["web.example.com"]);
            let policy = allow(&world, "team", "team", &["web.example.com"]).await;
            post(&world, &tenant, "/certificates", wanted("allowed")).await.accepted();
            assert_eq!(world.delete(&path(&policy)).await.status, 204);
            refused_at(&post(&world, &tenant, "/certificates", wanted("refused")).await);
        }
    }
}

fn csr(name: &str) -> String {
    let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.serialize_request(&rcgen::KeyPair::generate().unwrap()).unwrap().pem().unwrap()
}

/// The certificate as a manifest.
fn manifest(wanted: &Value) -> Value {
    json!({
        "apiVersion": "cert-manager.io/v1", "kind": "Certificate",
        "metadata": {"name": wanted["name"], "namespace": wanted["namespace"]},
        "spec": {"secretName": "tls", "dnsNames": wanted["dnsNames"], "issuerRef": certificate("x")["issuerRef"]},
    })
}
