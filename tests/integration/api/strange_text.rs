//! Characters that no text may have, in every place of the API's description.

use axum::http::Method;
use certwright::api;
use serde_json::{Map, Value, json};

use super::manifests::CLUSTER_ISSUER;
use crate::support::world::{Reply, World, certificate, cluster_issuer, on_every_database};

/// Characters that do harm in a database, a terminal, a log or a reader's eye.
const STRANGE: [char; 4] = ['\0', '\u{1b}', '\n', '\u{202E}'];

/// An operation as the description has it.
struct Operation {
    method: Method,
    path: String,
    parameters: Vec<(String, String)>,
    /// A body of the right shape.
    body: Option<(&'static str, Value)>,
}

on_every_database! {
    async fn no_operation_takes_a_strange_character_anywhere(world: World) {
        let document = serde_json::to_value(api::document()).unwrap();
        let mut places = [0; 3];
        for operation in operations(&document) {
            for strange in STRANGE {
                for (within, name) in &operation.parameters {
                    match within.as_str() {
                        "path" => operation.in_path(&world, name, strange).await,
                        "query" => operation.in_query(&world, name, strange).await,
                        "header" => operation.in_header(&world, name, strange).await,
                        other => panic!("a parameter in {other}"),
                    }
                    places[0] += 1;
                }
                if let Some((kind, body)) = &operation.body {
                    for pointer in places_of(body) {
                        operation.in_body(&world, kind, body, &pointer, strange).await;
                        places[1] += 1;
                    }
                    operation.in_key(&world, kind, body, strange).await;
                    places[2] += 1;
                }
            }
        }

        assert!(places[0] > 300 && places[1] > 200 && places[2] > 50, "{places:?}");
        for list in ["certificates", "issuers", "secrets", "webhooks", "orders"] {
            let page = world.get(&format!("/{list}")).await.json();
            assert_eq!(page["items"], json!([]), "{list}");
        }
        let keys = world.get("/api-keys").await.json();
        assert_eq!(keys["items"].as_array().unwrap().len(), 1, "the first");
    }

    async fn no_manifest_takes_a_strange_character_anywhere(world: World) {
        let manifests = [
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "token"}, "type": "Opaque", "stringData": {"token": "t"}}),
            json!({"apiVersion": "cert-manager.io/v1", "kind": "ClusterIssuer", "metadata": {"name": "le"}, "spec": {"acme": cluster_issuer("le")["acme"]}}),
            json!({"apiVersion": "cert-manager.io/v1", "kind": "Certificate", "metadata": {"name": "www", "namespace": "default", "labels": {"team": "a"}},
                "spec": {"secretName": "www-tls", "issuerRef": {"name": "le", "kind": "ClusterIssuer"}, "dnsNames": ["www.example.com"], "profile": "p"}}),
        ];
        for manifest in &manifests {
            let free = |pointer: &String| {
                // Discriminators, and values of secrets, may be anything.
                !["/apiVersion", "/kind", "/stringData/token"].contains(&pointer.as_str())
            };
            for pointer in places_of(manifest).into_iter().filter(free) {
                for strange in STRANGE {
                    for list in [false, true] {
                        let mut bad = manifest.clone();
                        *bad.pointer_mut(&pointer).unwrap() = format!("a{strange}b").into();
                        if list {
                            bad = json!({"apiVersion": "v1", "kind": "List", "items": [bad]});
                        }
                        for path in ["/apply", "/import?strict=true"] {
                            let reply = apply(&world, path, &bad.to_string()).await;
                            refused_at(&reply, &pointer, strange);
                        }
                    }
                }
            }
        }
        assert_eq!(world.certificates().await, [] as [Value; 0]);
    }

    async fn what_kubernetes_wrote_into_a_manifest_may_have_many_lines(world: World) {
        let manifest = json!({"apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "token", "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}\n"}},
            "stringData": {"token": "one\ntwo\0three"}, "status": {"message": "a\nb"}});

        apply(&world, "/apply", &[CLUSTER_ISSUER, &manifest.to_string()].join("\n---\n")).await.done();
    }

    async fn the_values_of_secrets_are_taken_as_they_are(world: World) {
        let values = json!({"binary": "a\0b", "lines": "a\nb", "marks": "\u{202E}"});
        world.post("/secrets", json!({"name": "any", "stringData": values})).await.accepted();
        let data = json!({"binary": "YQBi"});
        world.post("/secrets", json!({"name": "data", "data": data})).await.accepted();
    }

    async fn a_profile_with_a_nul_is_refused_at_once(world: World) {
        world.create_issuer().await;
        let mut wanted = certificate("www");
        wanted["profile"] = "a\0b".into();

        let problem = world.post("/certificates", wanted).await.is_problem(422, "validation_failed");

        assert_eq!(problem["errors"][0]["pointer"], "/profile");
        assert_eq!(problem["errors"][0]["detail"], "must not hold the control character U+0000");
        assert_eq!(world.certificates().await, [] as [Value; 0]);
    }
}

impl Operation {
    fn ask_path(&self, replaced: &str, with: &str) -> String {
        let parts = self.path.split('/').map(|part| {
            match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
                Some(name) if name == replaced => with,
                Some(_) => "00000000-0000-0000-0000-000000000000",
                None => part,
            }
        });
        parts.collect::<Vec<_>>().join("/")
    }

    async fn in_path(&self, world: &World, name: &str, strange: char) {
        let path = self.ask_path(name, &encoded(strange));
        let reply = world.ask(self.method.clone(), &path).send().await;
        self.refused(&reply, name, strange);
    }

    async fn in_query(&self, world: &World, name: &str, strange: char) {
        let path = format!("{}?{name}={}", self.ask_path("", ""), encoded(strange));
        let reply = world.ask(self.method.clone(), &path).send().await;
        self.refused(&reply, name, strange);
        let path = format!("{}?{}=a", self.ask_path("", ""), encoded(strange));
        let reply = world.ask(self.method.clone(), &path).send().await;
        self.refused(&reply, "the name of a parameter", strange);
    }

    /// Most of them cannot even be sent.
    async fn in_header(&self, world: &World, name: &str, strange: char) {
        let mut bytes = "a".to_owned();
        bytes.push(if strange.is_ascii() { '\t' } else { strange });
        bytes.push('b');
        let ask = world.ask(self.method.clone(), &self.ask_path("", ""));
        let reply = ask.odd_header(name, bytes.as_bytes()).send().await;
        self.refused(&reply, name, strange);
    }

    async fn in_body(&self, world: &World, kind: &str, body: &Value, pointer: &str, strange: char) {
        let mut bad = body.clone();
        *bad.pointer_mut(pointer).unwrap() = format!("a{strange}b").into();
        let reply = self.send(world, kind, &bad).await;
        let is_free = pointer.starts_with("/data/") || pointer.starts_with("/stringData/");
        let may_have_lines = ["/csr", "/items/0/csr", "/acme/caBundle"].contains(&pointer);
        if is_free || (may_have_lines && strange == '\n') {
            assert!(reply.status < 500, "{} {pointer}: {}", self.path, reply.text);
        } else {
            refused_at(&reply, pointer, strange);
        }
    }

    async fn in_key(&self, world: &World, kind: &str, body: &Value, strange: char) {
        let mut bad = body.clone();
        bad.as_object_mut().unwrap().insert(format!("a{strange}b"), "value".into());
        refused_at(&self.send(world, kind, &bad).await, "", strange);
    }

    async fn send(&self, world: &World, kind: &str, body: &Value) -> Reply {
        let ask = world.ask(self.method.clone(), &self.ask_path("", ""));
        ask.text(&body.to_string()).header("content-type", kind).send().await
    }

    #[track_caller]
    fn refused(&self, reply: &Reply, name: &str, strange: char) {
        let told = format!("{} {} {name} {strange:?}: {}", self.method, self.path, reply.text);
        assert_eq!(reply.status, 400, "{told}");
        assert_eq!(reply.json()["code"], "malformed_request", "{told}");
        assert!(!reply.text.contains(strange), "{told}");
    }
}

async fn apply(world: &World, path: &str, text: &str) -> Reply {
    let ask = world.ask(Method::POST, path).text(text);
    ask.header("content-type", "application/yaml").send().await
}

#[track_caller]
fn refused_at(reply: &Reply, pointer: &str, strange: char) {
    assert_eq!(reply.status, 422, "{pointer} {strange:?}: {}", reply.text);
    let problem = reply.json();
    let number = format!("U+{:04X}", strange as u32);
    let at = problem["errors"].as_array().unwrap().iter().any(|fault| {
        fault["pointer"] == pointer && fault["detail"].as_str().unwrap().contains(&number)
    });
    assert!(at, "{pointer} {strange:?}: {}", reply.text);
    assert!(!reply.text.contains(strange), "{}", reply.text);
}

fn encoded(strange: char) -> String {
    let bytes = strange.to_string().into_bytes();
    let hexadecimal = bytes.iter().map(|byte| format!("%{byte:02X}")).collect::<Vec<_>>().concat();
    format!("a{hexadecimal}b")
}

fn operations(document: &Value) -> Vec<Operation> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let word = |one: &Value, field: &str| one[field].as_str().unwrap().to_owned();
            let content = &operation["requestBody"]["content"];
            let kinds = ["application/merge-patch+json", "application/json"];
            // A patch is a part of what its collection takes.
            let collection = path.trim_end_matches("/{id}");
            let whole = &document["paths"][collection]["post"]["requestBody"]["content"];
            let whole = &whole["application/json"]["schema"];
            let body = kinds.into_iter().find_map(|kind| {
                let schema = content.get(kind)?.get("schema").unwrap_or(whole);
                let sample = sample(document, schema, 0);
                // The schema of manifests says nothing of their fields; they have a test of their own.
                let has_fields = sample.as_object().is_some_and(|fields| !fields.is_empty());
                has_fields.then_some((kind, sample))
            });
            found.push(Operation {
                method: method.to_uppercase().parse().unwrap(),
                path: path.clone(),
                parameters: parameters
                    .iter()
                    .map(|one| (word(one, "in"), word(one, "name")))
                    .collect(),
                body,
            });
        }
    }
    assert!(found.len() > 40, "{}", found.len());
    assert!(found.iter().filter(|one| one.body.is_some()).count() >= 13);
    found
}

/// A value of this shape, with everything in it that may be there.
fn sample(document: &Value, schema: &Value, depth: usize) -> Value {
    if depth > 12 {
        return Value::Null;
    }
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(reference.trim_start_matches('#')).unwrap();
        return sample(document, target, depth + 1);
    }
    for several in ["oneOf", "anyOf", "allOf"] {
        let Some(parts) = schema[several].as_array() else { continue };
        let samples = parts.iter().map(|part| sample(document, part, depth + 1));
        let samples: Vec<_> = samples.filter(|sample| !sample.is_null()).collect();
        if several == "allOf" && samples.iter().all(Value::is_object) {
            let fields = samples.into_iter().filter_map(|one| one.as_object().cloned()).flatten();
            return Value::Object(fields.collect());
        }
        return samples.into_iter().next_back().unwrap_or_default();
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().find(|kind| *kind != "null").unwrap_or(&Value::Null),
        kind => kind,
    };
    match kind.as_str() {
        Some("object") => {
            let mut fields = Map::new();
            for (name, field) in schema["properties"].as_object().into_iter().flatten() {
                fields.insert(name.clone(), sample(document, field, depth + 1));
            }
            if schema["additionalProperties"].is_object() {
                let value = sample(document, &schema["additionalProperties"], depth + 1);
                fields.insert("key".to_owned(), value);
            }
            Value::Object(fields)
        }
        Some("array") => json!([sample(document, &schema["items"], depth + 1)]),
        Some("string") => "text".into(),
        Some("integer" | "number") => 1.into(),
        Some("boolean") => true.into(),
        _ => Value::Null,
    }
}

/// Pointers to every text in a value.
fn places_of(value: &Value) -> Vec<String> {
    fn gather(value: &Value, pointer: &str, found: &mut Vec<String>) {
        match value {
            Value::String(_) => found.push(pointer.to_owned()),
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    gather(item, &format!("{pointer}/{index}"), found);
                }
            }
            Value::Object(map) => {
                for (key, item) in map {
                    gather(item, &format!("{pointer}/{key}"), found);
                }
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    gather(value, "", &mut found);
    found
}
