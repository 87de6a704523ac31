//! Name policies: who may have certificates for which names.

/// Expands each test once per database, with this in the issuer's `acme`.
macro_rules! at_a_ca {
    ($(async fn $name:ident($site:ident: Driven, $more:expr) $body:block)*) => {
        mod sqlite {
            use super::*;
            $(#[tokio::test] async fn $name() {
                let (_folder, url) = crate::support::databases::sqlite_url();
                let $site = Driven::on(&url, &$more).await;
                $body
            })*
        }
        mod postgres {
            use super::*;
            $(#[tokio::test] async fn $name() {
                let url = crate::support::postgres::fresh_database().await;
                let $site = Driven::on(&url, &$more).await;
                $body
            })*
        }
    };
}

pub(crate) mod admission;
pub(crate) mod approval;
pub(crate) mod dry_run;
pub(crate) mod judging;
pub(crate) mod manifests;
pub(crate) mod resource;
pub(crate) mod reviews;
pub(crate) mod solvers;

use axum::http::Method;
use serde_json::{Value, json};

use crate::support::world::{Reply, World, certificate};

/// A policy that allows a namespace these names, wildcards included where a pattern covers any, from `le`.
pub(crate) fn policy(name: &str, namespace: &str, patterns: &[&str]) -> Value {
    let names: Vec<Value> = patterns
        .iter()
        .map(|pattern| json!({"pattern": pattern, "wildcards": pattern.starts_with('*')}))
        .collect();
    json!({
        "name": name, "namespaces": [namespace], "names": names,
        "issuers": [{"kind": "ClusterIssuer", "name": "le"}],
    })
}

/// The same, created.
pub(crate) async fn allow(world: &World, name: &str, namespace: &str, patterns: &[&str]) -> Value {
    world.post("/policies", policy(name, namespace, patterns)).await.accepted()
}

pub(crate) fn path(policy: &Value) -> String {
    format!("/policies/{}", policy["id"].as_str().unwrap())
}

/// A certificate of the namespace `team`.
fn of_team(name: &str, names: &[&str]) -> Value {
    let mut wanted = certificate(name);
    wanted["namespace"] = json!("team");
    wanted["dnsNames"] = json!(names);
    wanted
}

async fn send(world: &World, key: &str, method: Method, path: &str, body: &Value) -> Reply {
    world.ask(method, path).with_key(key).json(body).send().await
}

async fn post(world: &World, key: &str, path: &str, body: Value) -> Reply {
    send(world, key, Method::POST, path, &body).await
}

/// The pointers of a refusal that says `name_not_allowed`.
#[track_caller]
fn refused_at(reply: &Reply) -> Vec<String> {
    let problem = reply.is_problem(403, "name_not_allowed");
    let errors = problem["errors"].as_array().unwrap();
    assert!(errors.iter().all(|error| error["code"] == "name_not_allowed"), "{problem}");
    errors.iter().map(|error| error["pointer"].as_str().unwrap().to_owned()).collect()
}
