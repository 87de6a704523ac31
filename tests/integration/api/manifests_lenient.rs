//! Manifests as people, editors and tools really write them.

use axum::http::Method;
use serde_json::{Value, json};

use super::manifests::{CLUSTER_ISSUER, apply, faults, found, results, send, www};
use crate::support::world::{World, on_every_database};

on_every_database! {
    async fn a_value_may_be_wrapped_and_empty_fields_are_as_good_as_absent(world: World) {
        let bundle = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t";
        let issuer = CLUSTER_ISSUER.replacen("acme:", "acme:\n    preferredChain: \"\"\n    externalAccountBinding: null\n    skipTLSVerify: no\n    enableDurationFeature: off", 1);
        let text = format!("apiVersion: v1
kind: Secret
metadata:
  name: token
  namespace: \"\"
  selfLink: /api/v1/namespaces/default/secrets/token
  clusterName: \"\"
data:
  api-token: |
    {}
    {}
---
{issuer}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {{name: www, namespace: \"\", labels: {{}}, annotations: null}}
spec:
  secretName: \"\"
  commonName: \"\"
  dnsNames: [www.example.com]
  ipAddresses: []
  issuerRef: {{name: letsencrypt-staging, kind: ClusterIssuer, group: \"\"}}
  privateKey: {{}}
  profile: \"\"
  duration: \"\"
  renewal: {{}}
  subject: {{}}
  keystores: {{}}
  nameConstraints: {{}}
  isCA: no
", &bundle[..18], &bundle[18..]);
        let applied = apply(&world, &text).await.done();

        assert_eq!(results(&applied), [
            "Secret default/token created", "ClusterIssuer letsencrypt-staging created", "Certificate default/www created",
        ]);
        assert_eq!(applied["results"][2]["warnings"], json!([]), "nothing was given that could be missed");
        let plain = text.replace("  privateKey: {}\n", "").replace("  commonName: \"\"\n", "").replace("  renewal: {}\n", "");
        assert!(results(&apply(&world, &plain).await.done()).iter().all(|one| one.ends_with(" unchanged")));
    }

    async fn a_text_in_utf_16_with_a_mark_is_read(world: World) {
        let bytes: Vec<u8> = ["\u{FEFF}", CLUSTER_ISSUER].concat().encode_utf16().flat_map(u16::to_le_bytes).collect();
        let ask = world.ask(Method::POST, "/apply").header("content-type", "application/yaml");
        assert_eq!(results(&ask.bytes(bytes).send().await.done()), ["ClusterIssuer letsencrypt-staging created"]);
    }

    async fn a_name_has_the_length_that_kubernetes_allows(world: World) {
        apply(&world, CLUSTER_ISSUER).await.done();
        let named = |name: &str| {
            let mut one = www("www-tls");
            one["metadata"]["name"] = name.into();
            one.to_string()
        };
        for name in ["a".repeat(70), "a".repeat(253), format!("{}.example", "b".repeat(100))] {
            assert_eq!(results(&apply(&world, &named(&name)).await.done()), [format!("Certificate default/{name} created")]);
        }
        for name in ["a".repeat(254).as_str(), "a..b", "-a", "a.-b", "A"] {
            assert_eq!(faults(&apply(&world, &named(name)).await)[0].2, "/metadata/name", "{name}");
        }
    }

    async fn kinds_of_others_are_passed_over_and_told_unless_they_are_refused(world: World) {
        let text = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: web}}\n---\n{CLUSTER_ISSUER}");
        let applied = apply(&world, &text).await.done();

        assert_eq!(results(&applied), ["ClusterIssuer letsencrypt-staging created"]);
        let left_out = &applied["leftOut"][0];
        assert_eq!((&left_out["kind"], &left_out["name"]), (&json!("Namespace"), &json!("web")));
        assert_eq!((&left_out["errors"][0]["document"], &left_out["errors"][0]["line"]), (&json!(1), &json!(2)));
        let refused = send(&world, "/apply?strict=true", &text).await;
        assert_eq!(faults(&refused), [(1, 2, "/kind".into(), "unsupported".into())]);
        let misspelled = text.replace("kind: ClusterIssuer", "kind: ClusterIsuer");
        assert!(apply(&world, &misspelled).await.is_problem(422, "validation_failed")["detail"].as_str().unwrap().contains("did you mean `ClusterIssuer`?"));
    }

    async fn faults_are_told_all_at_once_in_the_words_of_the_manifest(world: World) {
        let text = r#"
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: one, lables: {a: b}}
spec:
  dnsNames: [a.example.com, "not a name"]
  dnsname: [b.example.com]
  privateKey: {algorithm: DSA, encodng: PKCS1}
  renewBefore: 7
  isCA: "maybe"
  revisionHistoryLimit: many
---
apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {name: le}
spec:
  acme:
    solvers:
    - dns01: {cloudfare: {}}
    - http01: []
    profile: 7
"#;
        let reply = apply(&world, text).await;
        let problem = reply.is_problem(422, "validation_failed");
        let all = problem["errors"].as_array().unwrap();
        let said = |pointer: &str| {
            let fault = all.iter().find(|one| one["pointer"] == pointer);
            fault.unwrap_or_else(|| panic!("{pointer}: {problem:#}"))["detail"].as_str().unwrap().to_owned()
        };
        for (pointer, words) in [
            ("/metadata/lables", "did you mean `labels`?"),
            ("/spec/issuerRef", "it has to be given"),
            ("/spec/dnsNames/1", "not a name"),
            ("/spec/dnsname", "did you mean `dnsNames`?"),
            ("/spec/privateKey/algorithm", "expected one of `ECDSA`"),
            ("/spec/privateKey/encodng", "did you mean `encoding`?"),
            ("/spec/isCA", "does not make certificates of CAs"),
            ("/spec/renewBefore", "expected"),
            ("/spec/revisionHistoryLimit", "expected a number"),
            ("/spec/acme/server", "it has to be given"),
            ("/spec/acme/solvers/0/dns01/cloudfare", "did you mean `cloudflare`?"),
            ("/spec/acme/solvers/1/http01", "expected a mapping"),
            ("/spec/acme/profile", "need quotes"),
        ] {
            assert!(said(pointer).contains(words), "{pointer}: {}", said(pointer));
        }
        let mut pointers: Vec<&Value> = all.iter().map(|one| &one["pointer"]).collect();
        let count = pointers.len();
        pointers.sort_by_key(ToString::to_string);
        pointers.dedup();
        assert_eq!(pointers.len(), count, "each once: {problem:#}");
    }

    async fn what_is_unchanged_is_not_judged_anew_and_a_change_says_what_it_breaks(world: World) {
        let both = CLUSTER_ISSUER.replacen("solvers:", "solvers:\n    - selector: {dnsZones: [example.com]}\n      dns01: {cloudflare: {apiTokenSecretRef: {name: cf, key: token}}}", 1);
        apply(&world, &both).await.done();
        let mut wildcard = www("www-tls");
        wildcard["spec"]["dnsNames"] = json!(["*.example.com"]);
        apply(&world, &wildcard.to_string()).await.done();

        let changed = apply(&world, CLUSTER_ISSUER).await.done();
        let warnings = changed["results"][0]["warnings"].to_string();
        assert!(warnings.contains("no solver is left for default/www (*.example.com)"), "{warnings}");
        assert_eq!(results(&apply(&world, &wildcard.to_string()).await.done()), ["Certificate default/www unchanged"]);
        wildcard["spec"]["renewBefore"] = json!("240h");
        assert_eq!(faults(&apply(&world, &wildcard.to_string()).await)[0].3, "no_solver", "a change is judged");
        let issuer = found(&world, "/issuers").await;
        let path = format!("/issuers/{}", issuer["id"].as_str().unwrap());
        assert_eq!(world.get(&path).await.json()["acme"]["solvers"].as_array().unwrap().len(), 1);
    }
}
