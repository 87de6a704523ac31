//! `POST /apply`, with manifests as people have them.

use axum::http::Method;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::{Value, json};

use crate::support::world::{CANARIES, Reply, World, on_every_database};

pub(super) const ISSUER: &str = include_str!("../../manifests/issuer-cloudflare.yaml");
pub(crate) const CLUSTER_ISSUER: &str = include_str!("../../manifests/clusterissuer-http01.yaml");
const CERTIFICATES: &str = include_str!("../../manifests/certificates.yaml");

on_every_database! {
    async fn what_people_have_is_applied_whatever_the_order(world: World) {
        let all = [CERTIFICATES, ISSUER, CLUSTER_ISSUER].join("---\n");
        let applied = apply(&world, &all).await.done();

        assert_eq!(results(&applied), [
            "Certificate default/www created", "Certificate default/wildcard created",
            "Secret default/cloudflare-api-token-secret created", "Issuer default/example-issuer created",
            "ClusterIssuer letsencrypt-staging created",
        ]);
        let certificate = found(&world, "/certificates?name=wildcard").await;
        assert_eq!(certificate["dnsNames"], json!(["example.com", "*.example.com"]));
        assert_eq!((&certificate["commonName"], &certificate["renewBeforePercentage"]), (&json!("example.com"), &json!(33)));
        let www = found(&world, "/certificates?name=www&label=team%3Dweb").await;
        assert_eq!(www["renewBefore"], "360h");
        let issuer = found(&world, "/issuers?kind=ClusterIssuer").await;
        assert_eq!(issuer["acme"]["profile"], "tlsserver");

        let again = apply(&world, &all).await.done();
        for result in again["results"].as_array().unwrap() {
            assert_eq!(result["result"], "unchanged", "{again:#}");
        }
        assert_eq!(again["results"][2]["id"], applied["results"][2]["id"]);
    }

    async fn what_has_no_meaning_here_is_taken_with_a_warning(world: World) {
        let all = [ISSUER, CLUSTER_ISSUER, CERTIFICATES].join("---\n");
        let applied = apply(&world, &all).await.done();

        let warnings = |place: usize| applied["results"][place]["warnings"].to_string();
        for field in ["secretName", "duration", "usages", "secretTemplate", "keystores"] {
            assert!(warnings(4).contains(&format!("spec.{field}: ")), "{field}: {}", warnings(4));
        }
        assert!(warnings(2).contains("answers by itself"), "{}", warnings(2));
        assert!(warnings(1).contains("privateKeySecretRef"), "{}", warnings(1));
        assert_eq!(applied["results"][0]["warnings"], json!([]));
    }

    async fn every_field_of_cert_manager_has_its_place(world: World) {
        apply(&world, CLUSTER_ISSUER).await.done();
        let text = r#"
apiVersion: cert-manager.io/v1
kind: Certificate
metadata:
  name: all
  labels: {app.kubernetes.io/name: web}
  annotations: {cert-manager.io/issue-temporary-certificate: "true"}
  creationTimestamp: null
  uid: x
  managedFields: []
spec:
  secretName: all-tls
  secretTemplate: {labels: {a: b}}
  issuerRef: {name: letsencrypt-staging, kind: ClusterIssuer, group: cert-manager.io}
  commonName: a.example.com
  dnsNames: [a.example.com, B.Example.com.]
  ipAddresses: [192.0.2.1]
  uris: []
  emailAddresses: []
  otherNames: []
  subject: {organizations: [x]}
  duration: 2160h
  renewBefore: 360h
  renewal: {policy: RenewBefore}
  privateKey: {rotationPolicy: Never, size: 2048, encoding: PKCS1}
  usages: [server auth]
  encodeUsagesInRequest: false
  signatureAlgorithm: SHA256WithRSA
  isCA: false
  keystores: {jks: {create: true, password: p}}
  additionalOutputFormats: [{type: DER}]
  revisionHistoryLimit: 2
status: {conditions: []}
"#;
        apply(&world, text).await.done();

        let made = found(&world, "/certificates?name=all").await;
        assert_eq!(made["dnsNames"], json!(["a.example.com", "b.example.com"]));
        assert_eq!(made["privateKey"], json!({"algorithm": "RSA", "size": 2048, "rotationPolicy": "Never"}));
        assert_eq!(made["ipAddresses"], json!(["192.0.2.1"]));
        assert_eq!(made["revisionHistoryLimit"], 2);
        assert_eq!(made["labels"], json!({"app.kubernetes.io/name": "web"}));
    }

    async fn what_an_issuer_says_of_its_account_and_of_renewal_is_kept(world: World) {
        let more = "acme:\n    preferredChain: ISRG Root X1\n    renewalInformationSource: None\n    externalAccountBinding:\n      keyID: kid-1\n      keyAlgorithm: HS256\n      keySecretRef: {name: eab, key: hmac}";
        let applied = apply(&world, &CLUSTER_ISSUER.replacen("acme:", more, 1)).await.done();

        let acme = &found(&world, "/issuers?name=letsencrypt-staging").await["acme"];
        assert_eq!((&acme["preferredChain"], &acme["renewalInformationSource"]), (&json!("ISRG Root X1"), &json!("None")));
        let binding = json!({"keyID": "kid-1", "keySecretRef": {"name": "eab", "key": "hmac"}});
        assert_eq!(acme["externalAccountBinding"], binding);
        let warnings = applied["results"][0]["warnings"].to_string();
        assert!(warnings.contains("the Secret `eab` that it refers to is not in"), "{warnings}");
        assert!(!warnings.contains("renewalInformationSource"), "{warnings}");
    }

    async fn a_cluster_issuer_that_follows_cnames_anywhere_is_warned(world: World) {
        let issuer = |kind: &str, dns01: &str| format!("
apiVersion: cert-manager.io/v1
kind: {kind}
metadata: {{name: dns}}
spec:
  acme:
    server: https://ca.example/directory
    solvers:
      - selector: {{dnsZones: [example.com]}}
        dns01: {{{dns01}, cloudflare: {{apiTokenSecretRef: {{name: cloudflare}}}}}}
");
        for (kind, dns01, is_warned) in [
            ("ClusterIssuer", "cnameStrategy: Follow", true),
            ("ClusterIssuer", "cnameStrategy: None", false),
            ("Issuer", "cnameStrategy: Follow", false),
            ("ClusterIssuer", "cnameStrategy: Follow, cnameZones: [acme.example.net]", false),
        ] {
            let applied = apply(&world, &issuer(kind, dns01)).await.done();
            let warnings = applied["results"][0]["warnings"].to_string();
            assert_eq!(warnings.contains("CNAMEs are followed into the zones of `cnameZones` only"), is_warned, "{kind} {dns01}: {warnings}");
        }
        let kept = found(&world, "/issuers?kind=ClusterIssuer").await;
        assert_eq!(kept["acme"]["solvers"][0]["dns01"]["cnameZones"], json!(["acme.example.net"]));
        let reserved = CLUSTER_ISSUER.replacen("- http01", "- selector: {namespaces: [team]}\n      http01", 1);
        apply(&world, &reserved).await.done();
        let kept = found(&world, "/issuers?name=letsencrypt-staging").await;
        assert_eq!(kept["acme"]["solvers"][0]["selector"], json!({"namespaces": ["team"]}));
    }

    async fn webhooks_stay_where_a_manifest_is_silent_about_them(world: World) {
        apply(&world, CLUSTER_ISSUER).await.done();
        let hook = world.post("/webhooks", json!({"url": "https://1.1.1.1/hook", "selector": "named"})).await.accepted();
        let mut www = www("www-tls");
        apply(&world, &www.to_string()).await.done();
        let path = format!("/certificates/{}", found(&world, "/certificates?name=www").await["id"].as_str().unwrap());
        world.patch(&path, json!({"webhooks": [hook["id"]]})).await;

        assert_eq!(results(&apply(&world, &www.to_string()).await.done()), ["Certificate default/www unchanged"]);
        assert_eq!(world.get(&path).await.json()["webhooks"], json!([hook["id"]]));
        www["spec"]["webhooks"] = json!([]);
        apply(&world, &www.to_string()).await.done();
        assert_eq!(world.get(&path).await.json()["webhooks"], json!([]));
    }

    async fn what_is_wrong_is_said_all_at_once_with_document_and_line(world: World) {
        let text = r#"apiVersion: v1
kind: Secret
metadata: {name: token}
stringData:
  api-token: canary-secret-value
  "no spaces": x
---
apiVersion: cert-manager.io/v1
kind: ClusterIssuer
metadata:
  name: le
spec:
  acme:
    server: http://ca.example/directory
    sever: canary-secret-value
    solvers:
    - dns01:
        route53:
          region: eu-central-1
    - dns01:
        cloudflare:
          apiKeySecretRef: {name: token, key: api-key}
    - http01:
        ingress:
          ingresClassName: nginx
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata:
  name: web
spec:
  issuerRef: {name: le, kind: ClusterIssuer}
  dnsNames:
  - a.example.com
  - not a name
  dnsName: b.example.com
  emailAddresses: [a@example.com]
  isCA: true
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: x}
"#;
        let strict = faults(&send(&world, "/apply?strict=true", text).await);
        assert!(strict.contains(&(4, 41, "/kind".into(), "unsupported".into())), "{strict:?}");

        let reply = apply(&world, text).await;
        assert_eq!(strict.len(), faults(&reply).len() + 1, "the Ingress is passed over: {}", reply.text);
        for place in [
            (1, 6, "/stringData/no spaces", "invalid"),
            (2, 15, "/spec/acme/sever", "unknown_field"),
            (2, 18, "/spec/acme/solvers/0/dns01/route53", "unsupported"),
            (2, 22, "/spec/acme/solvers/1/dns01/cloudflare/apiKeySecretRef", "unsupported"),
            (2, 25, "/spec/acme/solvers/2/http01/ingress/ingresClassName", "unknown_field"),
            (3, 35, "/spec/dnsNames/1", "invalid"),
            (3, 36, "/spec/dnsName", "unknown_field"),
            (3, 37, "/spec/emailAddresses", "unsupported"),
            (3, 38, "/spec/isCA", "unsupported"),
        ] {
            let place = (place.0, place.1, place.2.to_owned(), place.3.to_owned());
            assert!(faults(&reply).contains(&place), "{place:?}: {}", reply.text);
        }
        assert!(reply.json()["detail"].as_str().unwrap().starts_with("document 1, line 6, "), "{}", reply.text);
        assert!(!reply.text.contains("canary"), "{}", reply.text);
        assert!(reply.text.contains("did you mean `server`?"), "{}", reply.text);
        assert!(reply.text.contains("did you mean `ingressClassName`?"), "{}", reply.text);
    }

    async fn what_is_no_yaml_is_refused_with_its_line(world: World) {
        let reply = apply(&world, "kind: Secret\nstringData:\n  a: [hunter2\n").await;
        let problem = reply.is_problem(422, "validation_failed");

        assert!(problem["errors"][0]["line"].as_u64().unwrap() >= 3, "{problem}");
        assert!(!reply.text.contains("hunter2"));
        apply(&world, "# nothing\n").await.is_problem(400, "malformed_request");
        let reply = world.ask(Method::POST, "/apply").header("content-type", "text/plain").text(ISSUER).send().await;
        reply.is_problem(415, "unsupported_media_type");
    }

    async fn nothing_is_half_applied(world: World) {
        let bad = CERTIFICATES.replace("example-issuer", "nobody");
        let all = [ISSUER, CLUSTER_ISSUER, &bad].join("---\n");

        let reply = apply(&world, &all).await;
        let line = 1 + all.lines().position(|line| line.contains("nobody")).unwrap();
        let place = (5, u64::try_from(line).unwrap(), "/spec/issuerRef/name".into(), "issuer_not_found".into());
        assert_eq!(faults(&reply), [place], "{}", reply.text);
        for path in ["/secrets", "/issuers", "/certificates"] {
            assert_eq!(world.get(path).await.json()["items"], json!([]), "{path}");
        }
    }

    async fn a_dry_run_says_what_would_happen_and_does_nothing(world: World) {
        let all = [ISSUER, CLUSTER_ISSUER, CERTIFICATES].join("---\n");
        let said = send(&world, "/apply?dryRun=true", &all).await.done();

        assert_eq!((&said["dryRun"], &said["results"][0]["result"]), (&json!(true), &json!("created")));
        for path in ["/secrets", "/issuers", "/certificates", "/events"] {
            assert_eq!(world.get(path).await.json()["items"], json!([]), "{path}");
        }
    }

    async fn what_has_changed_is_configured(world: World) {
        let all = [ISSUER, CLUSTER_ISSUER, CERTIFICATES].join("---\n");
        apply(&world, &all).await.done();

        let changed = all.replace("<API Token>", "another").replace("[www.example.com]", "[web.example.com]");
        let applied = apply(&world, &changed).await.done();
        let done: Vec<_> = applied["results"].as_array().unwrap().iter().map(|one| one["result"].as_str().unwrap()).collect();
        assert_eq!(done, ["configured", "unchanged", "unchanged", "configured", "unchanged"]);
        assert_eq!(found(&world, "/certificates?name=www").await["dnsNames"], json!(["web.example.com"]));
    }

    async fn a_secret_of_a_cluster_issuer_goes_where_those_look(world: World) {
        let cluster = ISSUER.replace("kind: Issuer", "kind: ClusterIssuer");
        for given in ["", "  namespace: cert-manager\n"] {
            let text = cluster.replacen("metadata:\n", &format!("metadata:\n{given}"), 1);
            let applied = apply(&world, &text).await.done();

            let secret = &applied["results"][0];
            assert_eq!(secret["namespace"], "certwright", "{applied:#}");
            assert!(secret["warnings"].to_string().contains("cluster_resource_namespace"), "{secret}");
        }
        // A Secret with a namespace stays in it.
        let text = cluster.replacen("metadata:\n", "metadata:\n  namespace: team\n", 1);
        let applied = apply(&world, &text.replace("staging-v02", "v02")).await.done();
        assert_eq!(applied["results"][0]["namespace"], "team");
        world.delete(&format!("/secrets/{}", found(&world, "/secrets?namespace=certwright").await["id"].as_str().unwrap())).await;
        let applied = apply(&world, &text).await.done();
        assert!(applied["results"][1]["warnings"].to_string().contains("not in the namespace `certwright`"), "{applied:#}");
    }

    async fn objects_go_to_the_namespace_that_is_asked_for(world: World) {
        let all = [ISSUER, &CERTIFICATES.replace("  namespace: default\n", "").replace("letsencrypt-staging, kind: ClusterIssuer", "example-issuer")].join("---\n");
        let applied = send(&world, "/apply?namespace=team", &all).await.done();
        for result in applied["results"].as_array().unwrap() {
            assert_eq!(result["namespace"], "team");
        }
        send(&world, "/apply?namespace=No", ISSUER).await.is_problem(422, "validation_failed");
        let twice = [ISSUER, ISSUER].join("---\n");
        assert_eq!(faults(&apply(&world, &twice).await).len(), 2);
    }

    async fn lists_and_json_are_manifests_too(world: World) {
        let item = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "stringData": {"k": "v"}});
        let list = json!({"apiVersion": "v1", "kind": "List", "items": [item.clone()]});
        let reply = world.ask(Method::POST, "/apply").json(&list).send().await;
        assert_eq!(results(&reply.done()), ["Secret default/a created"]);
        let reply = world.ask(Method::POST, "/apply").json(&item).send().await;
        assert_eq!(results(&reply.done()), ["Secret default/a unchanged"]);
    }

    async fn lists_show_what_was_applied_in_the_order_of_the_stream(world: World) {
        let names = ["b", "c", "a"];
        let objects = names.map(|name| {
            let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"k": "v"}});
            let issuer = CLUSTER_ISSUER.replace("letsencrypt-staging", name);
            let mut certificate = www("www-tls");
            certificate["metadata"]["name"] = json!(name);
            certificate["spec"]["issuerRef"]["name"] = json!(name);
            format!("{certificate}\n---\n{issuer}\n---\n{secret}")
        });
        apply(&world, &objects.join("\n---\n")).await.done();

        for path in ["/secrets", "/issuers", "/certificates"] {
            let listed = world.get(path).await.json();
            let shown: Vec<_> = listed["items"].as_array().unwrap().iter().map(|one| one["name"].clone()).collect();
            assert_eq!(shown, names, "{path}");
        }
    }

    async fn a_key_may_apply_only_what_it_may_write(world: World) {
        let all = [ISSUER, CERTIFICATES].join("---\n");
        for (permissions, namespaces) in [
            (&["secrets:write", "issuers:write"][..], &["default"][..]),
            (&["certificates:write", "secrets:write"], &["default"]),
            (&["certificates:write", "secrets:write", "issuers:write"], &["team"]),
        ] {
            let key = world.key(permissions, namespaces).await;
            let ask = world.ask(Method::POST, "/apply").with_key(&key).header("content-type", "application/yaml");
            ask.text(&all).send().await.is_problem(403, "permission_denied");
        }
        let key = world.key(&["issuers:write"], &["default"]).await;
        let ask = world.ask(Method::POST, "/apply").with_key(&key).header("content-type", "application/yaml");
        ask.text(CLUSTER_ISSUER).send().await.is_problem(403, "permission_denied");
    }

    async fn an_account_key_that_is_there_is_used_as_with_post_issuers(world: World) {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        for (name, pem) in [("first", key.serialize_pem()), ("second", "canary".to_owned())] {
            let secret = json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "example-issuer-account-key", "namespace": "cert-manager"},
                "stringData": {"tls.key": pem},
            });
            let issuer = CLUSTER_ISSUER.replace("letsencrypt-staging", name);
            let reply = apply(&world, &format!("{secret}\n---\n{issuer}")).await;

            if name == "first" {
                reply.done();
                assert_eq!(db_account_key(&world, name).await, key.serialize_der());
            } else {
                let (document, _, pointer, _) = &faults(&reply)[0];
                assert_eq!((*document, &**pointer), (2, "/spec/acme/privateKeySecretRef"), "{}", reply.text);
            }
        }
    }

    async fn no_secret_shows_in_any_answer(world: World) {
        let text = ISSUER.replace("<API Token>", CANARIES[1]);
        apply(&world, &text).await.done();
        apply(&world, &text.replace("api-token: ", "api-token: [")).await.is_problem(422, "validation_failed");
        apply(&world, &text.replace("type: Opaque", "typ: Opaque")).await.is_problem(422, "validation_failed");

        for (path, answer) in world.answers.lock().unwrap().iter() {
            assert!(!answer.contains("canary"), "{path}: {answer}");
        }
    }
}

pub(crate) fn www(secret: &str) -> Value {
    json!({
        "apiVersion": "cert-manager.io/v1", "kind": "Certificate", "metadata": {"name": "www"},
        "spec": {"secretName": secret, "dnsNames": ["www.example.com"],
                 "issuerRef": {"name": "letsencrypt-staging", "kind": "ClusterIssuer"}},
    })
}

pub(crate) fn stream(objects: &[Value]) -> String {
    objects.iter().map(Value::to_string).collect::<Vec<_>>().join("\n---\n")
}

pub(crate) async fn apply(world: &World, text: &str) -> Reply {
    send(world, "/apply", text).await
}

pub(crate) async fn send(world: &World, path: &str, text: &str) -> Reply {
    let ask = world.ask(Method::POST, path).header("content-type", "application/yaml");
    ask.text(text).send().await
}

/// `Kind namespace/name result` of each.
pub(crate) fn results(applied: &Value) -> Vec<String> {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    applied["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            let place = match &one["namespace"] {
                Value::String(namespace) => format!("{namespace}/"),
                _ => String::new(),
            };
            format!("{} {place}{} {}", word(&one["kind"]), word(&one["name"]), word(&one["result"]))
        })
        .collect()
}

/// Document, line, pointer and code of each.
pub(crate) fn faults(reply: &Reply) -> Vec<(u64, u64, String, String)> {
    let problem = reply.is_problem(422, "validation_failed");
    let fault = |one: &Value| {
        let number = |field: &str| one[field].as_u64().unwrap_or_default();
        let word = |field: &str| one[field].as_str().unwrap().to_owned();
        (number("document"), number("line"), word("pointer"), word("code"))
    };
    problem["errors"].as_array().unwrap().iter().map(fault).collect()
}

/// The only item of the list.
pub(super) async fn found(world: &World, path: &str) -> Value {
    let listed = world.get(path).await.json();
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(1), "{path}: {listed}");
    listed["items"][0].clone()
}

pub(super) async fn db_account_key(world: &World, name: &str) -> Vec<u8> {
    use certwright::domain::issuer::Kind;
    use certwright::storage::issuers::{account_key, account_key_place, find_by_name};
    let mut tx = world.db.read().await.unwrap();
    let (issuer, _) = find_by_name(&mut tx, Kind::ClusterIssuer, "", name).await.unwrap().unwrap();
    let sealed = account_key(&mut tx, issuer.id).await.unwrap();
    world.sealer.open(&account_key_place(&issuer), &sealed).unwrap().expose().clone()
}

impl Reply {
    #[track_caller]
    pub(crate) fn done(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text);
        self.json()
    }
}
