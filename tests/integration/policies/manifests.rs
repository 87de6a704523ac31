//! `kind: Policy` beside cert-manager's manifests.

use axum::http::Method;
use serde_json::{Value, json};

use crate::support::world::{Reply, World, on_every_database};

const STREAM: &str = "
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: web, namespace: team}
spec:
  secretName: web-tls
  dnsNames: [web.team.example.com]
  issuerRef: {name: le, kind: ClusterIssuer}
---
apiVersion: certwright.dev/v1
kind: Policy
metadata: {name: team}
spec:
  namespaces: [team]
  names:
    - {pattern: '**.Team.example.com', wildcards: true}
  issuers:
    - {kind: ClusterIssuer, name: le}
";

async fn apply(world: &World, query: &str, text: &str) -> Reply {
    let ask = world.ask(Method::POST, &format!("/apply{query}"));
    ask.header("content-type", "application/yaml").text(text).send().await
}

fn results(reply: &Reply) -> Vec<String> {
    assert_eq!(reply.status, 200, "{}", reply.text);
    let word = |one: &Value, field: &str| one[field].as_str().unwrap().to_owned();
    let all = reply.json()["results"].as_array().unwrap().clone();
    all.iter().map(|one| format!("{} {}", word(one, "kind"), word(one, "result"))).collect()
}

on_every_database! {
    async fn certificates_of_a_stream_are_judged_by_the_policies_in_it(world: World) {
        world.create_issuer().await;
        assert_eq!(results(&apply(&world, "?dryRun=true", STREAM).await), ["Certificate created", "Policy created"]);
        assert_eq!(world.get("/policies").await.json()["items"], json!([]));

        assert_eq!(results(&apply(&world, "", STREAM).await), ["Certificate created", "Policy created"]);

        assert_eq!(world.certificates().await[0]["admittedBy"], json!({"policy": "team"}));
        assert_eq!(results(&apply(&world, "", STREAM).await), ["Certificate unchanged", "Policy unchanged"]);
        let narrowed = STREAM.replace("**.Team.example.com", "*.b.team.example.com");
        assert_eq!(results(&apply(&world, "", &narrowed).await), ["Certificate unchanged", "Policy configured"]);
        let policies = world.get("/policies?name=team").await.json()["items"].clone();
        assert_eq!(policies[0]["names"], json!([{"pattern": "*.b.team.example.com", "wildcards": true}]));
    }

    async fn faults_of_a_policy_are_told_with_their_lines(world: World) {
        let text = STREAM.replace("'**.Team.example.com'", "'**'").replace("namespaces: [team]", "namespaces: [team]\n  allow: all");
        let refused = apply(&world, "", &text).await.is_problem(422, "validation_failed");
        let told: Vec<_> = refused["errors"].as_array().unwrap().iter().map(|one| (one["pointer"].as_str().unwrap(), one["line"].as_u64().unwrap())).collect();
        assert_eq!(told, [("/spec/allow", 15), ("/spec/names/0/pattern", 17)], "{refused:#}");

        let text = STREAM.replace("'**.Team.example.com'", "'**'");
        let refused = apply(&world, "", &text).await.is_problem(422, "validation_failed");
        assert_eq!((&refused["errors"][0]["pointer"], &refused["errors"][0]["line"]), (&json!("/spec/names/0/pattern"), &json!(16)));
        let text = STREAM.replace("certwright.dev/v1", "cert-manager.io/v1");
        let refused = apply(&world, "", &text).await.is_problem(422, "validation_failed");
        assert!(refused["detail"].as_str().unwrap().contains("`certwright.dev/v1`"), "{refused}");
    }
}
