//! Manifests that are refused because of the present state.

use serde_json::{Value, json};

use super::imports::{pair, tls_secret};
use super::manifests::{CLUSTER_ISSUER, apply, faults, send, stream, www};
use crate::issuance::csr::csr;
use crate::support::world::{World, on_every_database};

on_every_database! {
    async fn a_certificate_whose_key_a_client_holds_is_not_imported(world: World) {
        apply(&world, CLUSTER_ISSUER).await.done();
        let mut held = www("www-tls");
        let spec = held["spec"].as_object_mut().unwrap();
        spec.remove("dnsNames");
        spec.insert("csr".into(), csr(&["www.example.com"]).0.into());
        let text = stream(&[tls_secret("www-tls", &pair(&["www.example.com"], 60)), held.clone()]);

        let reply = send(&world, "/import?strict=true", &text).await;

        let (document, _, pointer, code) = &faults(&reply)[0];
        assert_eq!((*document, &**pointer, &**code), (1, "", "conflicting"), "{}", reply.text);
        assert!(reply.text.contains("its key stays with the client"), "{}", reply.text);
        assert_eq!(world.certificates().await, [] as [Value; 0]);
        // Without the key it is a certificate like any other.
        send(&world, "/import", &stream(&[held])).await.done();
        assert_eq!(world.certificates().await[0]["privateKey"], Value::Null);
    }

    async fn what_waits_to_be_deleted_is_neither_applied_nor_imported_over(world: World) {
        apply(&world, &[CLUSTER_ISSUER, &www("www-tls").to_string()].join("\n---\n")).await.done();
        let made = world.certificates().await.remove(0);
        let id = made["id"].as_str().unwrap();
        world.db_issue(&world.db_order(id).await).await;
        world.delete(&format!("/certificates/{id}?revoke=true")).await.accepted();
        let before = world.certificates().await;

        let beside = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "beside"}, "stringData": {"a": "b"}});
        let mut other = www("www-tls");
        other["spec"]["dnsNames"] = json!(["other.example.com"]);
        for text in [stream(&[beside.clone(), www("www-tls")]), stream(&[beside, other])] {
            let problem = apply(&world, &text).await.is_problem(409, "being_deleted");
            assert!(problem["detail"].as_str().unwrap().contains(id), "{problem}");
        }
        let text = stream(&[tls_secret("www-tls", &pair(&["www.example.com"], 60)), www("www-tls")]);
        send(&world, "/import", &text).await.is_problem(409, "being_deleted");

        assert_eq!(world.certificates().await, before);
        assert_eq!(world.get("/secrets?name=beside").await.json()["items"], json!([]), "all or nothing");
        assert_eq!(world.delete(&format!("/certificates/{id}")).await.status, 204);
        apply(&world, &www("www-tls").to_string()).await.done();
    }
}
