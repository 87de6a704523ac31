//! Several clients that apply the same manifests at once: those that come later find them applied.

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::manifests::{CLUSTER_ISSUER, apply, results, stream, www};
use crate::support::world::{World, on_every_database};

/// Clients that send the same at once.
const CLIENTS: usize = 6;

on_every_database! {
    async fn a_new_certificate_that_many_apply_at_once_is_created_once(world: World) {
        apply(&world, CLUSTER_ISSUER).await.done();
        for round in 0..100 {
            let mut manifest = www("www-tls");
            manifest["metadata"]["name"] = format!("www-{round}").into();
            race(&world, &manifest.to_string(), 1).await;
        }
    }

    async fn a_new_stream_that_many_apply_at_once_is_created_once(world: World) {
        for round in 0..25 {
            race(&world, &stream(&everything_new(round)), 4).await;
        }
    }

    async fn streams_in_another_order_do_not_wait_for_each_other(world: World) {
        apply(&world, CLUSTER_ISSUER).await.done();
        for round in 0..25 {
            let one_way: Vec<Value> = (0..8).map(|number| certificate(round, number)).collect();
            let other_way: Vec<Value> = one_way.iter().rev().cloned().collect();
            let texts = [stream(&one_way), stream(&other_way)];

            let replies = join_all((0..CLIENTS).map(|client| apply(&world, &texts[client % 2]))).await;
            let created = replies.iter().flat_map(|reply| results(&reply.done()));
            assert_eq!(created.filter(|result| result.ends_with(" created")).count(), 8, "round {round}");
        }
    }
}

/// Sends the same from many clients at once: each is answered with 200, and each object created by one of them.
async fn race(world: &World, text: &str, objects: usize) {
    let replies = join_all((0..CLIENTS).map(|_| apply(world, text))).await;

    let all: Vec<String> = replies.iter().flat_map(|reply| results(&reply.done())).collect();
    assert_eq!(all.len(), CLIENTS * objects);
    let created = all.iter().filter(|result| result.ends_with(" created")).count();
    assert_eq!(created, objects, "{all:?}");
}

fn certificate(round: usize, number: usize) -> Value {
    let mut manifest = www("www-tls");
    manifest["metadata"]["name"] = format!("www-{round}-{number}").into();
    manifest
}

/// A certificate, a certificate's issuer in its namespace, that one's Secret, and an issuer of all namespaces.
fn everything_new(round: usize) -> Vec<Value> {
    let metadata = |kind: &str| json!({"name": format!("{kind}-{round}")});
    let issuer = |kind: &str| {
        json!({
            "apiVersion": "cert-manager.io/v1", "kind": kind,
            "metadata": {"name": format!("{}-{round}", kind.to_lowercase())},
            "spec": {"acme": {
                "server": "https://acme.example.com/directory",
                "privateKeySecretRef": {"name": format!("account-{round}")},
                "solvers": [{"http01": {}}],
            }},
        })
    };
    let certificate = json!({
        "apiVersion": "cert-manager.io/v1", "kind": "Certificate", "metadata": metadata("web"),
        "spec": {"dnsNames": ["web.example.com"], "issuerRef": {"name": format!("issuer-{round}")}},
    });
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": metadata("secret"),
        "stringData": {"api-token": "canary-secret-value"},
    });
    vec![certificate, issuer("Issuer"), issuer("ClusterIssuer"), secret]
}
