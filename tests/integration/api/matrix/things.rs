//! One of everything, in a namespace or of the whole service, and requests about it.

use std::collections::BTreeMap;

use axum::http::Method;
use certwright::domain::failure::{Failure, code};
use certwright::domain::id::EventId;
use certwright::domain::throttle::Scope;
use certwright::storage::{Page, throttles};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use serde_json::{Value, json};

use super::Operation;
use crate::api::imports::{pair, tls_secret};
use crate::api::manifests::{send, stream};
use crate::house::audit::db_ask_for_approval;
use crate::policies::policy;
use crate::support::asking::Ask;
use crate::support::world::{World, acme, id};

/// What somebody may name in a request: a thing of each collection.
#[derive(Debug, Clone)]
pub struct Things {
    pub namespace: &'static str,
    /// What everything is called, or begins with.
    pub name: &'static str,
    /// By the collection's path; `deliveries` too.
    ids: BTreeMap<&'static str, String>,
}

const NOTHING: &str = "019ab000-0000-7000-8000-000000000000";

/// What takes an identifier of its own, in place of those that [`Things::of`] made.
pub const COLLECTIONS: [&str; 11] = [
    "api-keys",
    "certificates",
    "challenges",
    "deliveries",
    "issuers",
    "orders",
    "policies",
    "requests",
    "secrets",
    "throttles",
    "webhooks",
];

impl Things {
    /// Names of what is not there.
    pub fn missing() -> Self {
        let ids = COLLECTIONS.map(|collection| (collection, NOTHING.to_owned())).into();
        Self { namespace: "nobody", name: "missing", ids }
    }

    /// One of everything in a namespace, made by the administrator.
    pub async fn of(world: &World, namespace: &'static str, name: &'static str) -> Self {
        let Self { mut ids, .. } = Self::missing();
        let post = async |path: &str, wanted: Value| id(&world.post(path, wanted).await.accepted());
        let issuer = json!({"name": name, "namespace": namespace, "acme": acme()});
        ids.insert("issuers", post("/issuers", issuer).await);
        let secret = json!({"name": name, "namespace": namespace, "stringData": {"a": "b"}});
        ids.insert("secrets", post("/secrets", secret).await);
        let webhook = json!({"namespace": namespace, "name": name, "url": "https://1.1.1.1/"});
        ids.insert("webhooks", post("/webhooks", webhook).await);
        let this = Self { namespace, name, ids };

        let served = imported(world, &this).await;
        let ordered = post("/certificates", this.certificate(&format!("{name}-ordered"))).await;
        let order = world.db_order(&ordered).await;
        let waiting = post("/certificates", this.certificate(&format!("{name}-waiting"))).await;
        let request = db_ask_for_approval(world, &waiting).await;
        let hook = this.id("webhooks");
        world.ask(Method::POST, &format!("/webhooks/{hook}/test")).send().await.accepted();
        let sent = world.get(&format!("/webhooks/{hook}/deliveries")).await.json();
        let mut ids = this.ids;
        ids.insert("certificates", served);
        ids.insert("orders", order.id.to_string());
        ids.insert("challenges", order.challenges[0].id.to_string());
        ids.insert("requests", request.to_string());
        ids.insert("deliveries", id(&sent["items"][0]));
        Self { namespace, name, ids }.with_new_key(world).await
    }

    /// The same with another API key of the namespace, which may be deleted.
    pub async fn with_new_key(mut self, world: &World) -> Self {
        // What several keys are called is nobody's address. As long as other names, so that answers are.
        let name = EventId::generate(world.now()).tail()[..self.name.len()].to_owned();
        let key = json!({"name": name, "role": "reader", "namespaces": [self.namespace]});
        let key = world.post("/api-keys", key).await.accepted();
        self.ids.insert("api-keys", id(&key));
        self.ids.insert("names of api-keys", name);
        self
    }

    /// The same with a policy and a throttle of the whole service, which may be lifted.
    pub async fn with_those_of_the_service(mut self, world: &World, number: usize) -> Self {
        let name = format!("{}-{number}", self.name);
        let made = world.post("/policies", policy(&name, "none", &["none.example.org"])).await;
        self.ids.insert("policies", id(&made.accepted()));
        self.ids.insert("names of policies", name.clone());
        let why = Failure::of(code::ACME_RATE_LIMITED, "");
        let until = world.now() + time::Duration::HOUR;
        let mut tx = world.db.begin();
        let key = format!("endpoint {name}");
        throttles::hold(&mut tx, &key, &Scope::Endpoint, until, &why, world.now()).await.unwrap();
        let all = throttles::list(&mut tx, Page::first(500), world.now()).await.unwrap().rows;
        let throttle = all.into_iter().find(|one| one.counted_by() == name).unwrap().id;
        tx.commit().await.unwrap();
        self.ids.insert("throttles", throttle.0.to_string());
        self
    }

    /// The same with this issuer.
    pub fn with_issuer(mut self, id: &str) -> Self {
        self.ids.insert("issuers", id.to_owned());
        self
    }

    pub fn called(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    pub fn id(&self, collection: &str) -> &str {
        self.ids.get(collection).unwrap_or_else(|| panic!("{collection} is not among the things"))
    }

    /// Everything that a request may name.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.ids.values().map(String::as_str).chain([self.namespace, self.name])
    }

    /// The operation's path to the thing.
    pub fn path(&self, operation: &Operation) -> String {
        let names = match operation.collection() {
            "api-keys" => "names of api-keys",
            "policies" => "names of policies",
            _ => "",
        };
        let own_name = self.ids.get(names);
        operation
            .path
            .replace("{id}", self.ids.get(operation.collection()).map_or(NOTHING, String::as_str))
            .replace("{delivery}", self.id("deliveries"))
            .replace("{namespace}", self.namespace)
            .replace("{name}", own_name.map_or(self.name, String::as_str))
            .replace("{code}", "not-found")
    }

    /// What a list that is asked about the thing has in its query.
    pub fn filters(&self, operation: &Operation) -> Vec<String> {
        let Self { namespace, name, .. } = self;
        let value = |parameter: &str| match parameter {
            "namespace" => (*namespace).to_owned(),
            "name" | "issuer" => (*name).to_owned(),
            "dnsName" => format!("{name}.example.com"),
            "label" | "labelSelector" => format!("team={name}"),
            "certificate" | "order" => self.id(&format!("{parameter}s")).to_owned(),
            "resource" => format!("certificates/{}", self.id("certificates")),
            _ => {
                panic!("{}: say what `{parameter}` names, or that it names nothing", operation.name)
            }
        };
        let names = operation.queries.iter().filter(|one| !NAME_NOTHING.contains(&one.as_str()));
        let count =
            if operation.queries.iter().any(|one| one == "count") { "&count=true" } else { "" };
        names.map(|one| format!("?{one}={}{count}", value(one))).collect()
    }

    /// The request's body, and its headers.
    pub fn dress<'w>(&self, ask: Ask<'w>, operation: &Operation, number: usize) -> Ask<'w> {
        let Self { namespace, name, .. } = self;
        let new = format!("new-{number}");
        let ask = ask.header("x-keystore-password", "correct horse");
        let body = match operation.base() {
            "createCertificate" => self.certificate(&new),
            "createCertificates" => json!({"items": [self.certificate(&new)]}),
            "evaluatePolicies" => {
                let mut wanted = self.certificate(&new);
                wanted.as_object_mut().unwrap().retain(|key, _| key != "name" && key != "labels");
                wanted
            }
            "createIssuer" => json!({"name": new, "namespace": namespace, "acme": acme()}),
            "replaceIssuer" => json!({"name": name, "namespace": namespace, "acme": acme()}),
            "createSecret" => {
                json!({"name": new, "namespace": namespace, "stringData": {"a": "b"}})
            }
            "replaceSecret" => {
                json!({"name": name, "namespace": namespace, "stringData": {"a": "c"}})
            }
            "createWebhook" => json!({"namespace": namespace, "url": "https://1.1.1.1/"}),
            "createApiKey" => json!({"name": new, "role": "reader", "namespaces": [namespace]}),
            "rotateApiKey" => json!({"formerValidFor": "1h"}),
            "createPolicy" | "replacePolicy" => policy(&new, "none", &["none.example.org"]),
            "changeCertificate" => json!({"labels": {"a": "b"}}),
            "replaceCsr" => json!({"csr": csr(&format!("{name}.example.com"))}),
            "changeWebhook" | "revokeCertificate" | "rotateWebhookSecret" => json!({}),
            "redeliverSince" => json!({"since": "2026-11-24T12:00:00Z"}),
            "approveRequest" | "denyRequest" => json!({"reason": "as agreed"}),
            "applyManifests" | "importCertificates" => {
                let text = self.manifest(&format!("{name}-applied")).to_string();
                return ask.header("content-type", "application/yaml").text(&text);
            }
            _ => return ask,
        };
        ask.json(&body)
    }

    /// A certificate of the namespace, from the issuer that serves all of them.
    fn certificate(&self, name: &str) -> Value {
        json!({
            "name": name, "namespace": self.namespace, "labels": {"team": self.name},
            "issuerRef": {"name": "le", "kind": "ClusterIssuer"},
            "dnsNames": [format!("{name}.{}.example.com", self.namespace)],
        })
    }

    fn manifest(&self, name: &str) -> Value {
        json!({
            "apiVersion": "cert-manager.io/v1", "kind": "Certificate",
            "metadata": {"name": name, "namespace": self.namespace, "labels": {"team": self.name}},
            "spec": {"secretName": name, "dnsNames": [format!("{name}.{}.example.com", self.namespace)],
                     "issuerRef": {"name": "le", "kind": "ClusterIssuer"}},
        })
    }
}

/// Parameters of lists that name no resource.
const NAME_NOTHING: &[&str] = &[
    "action",
    "admittedBy",
    "count",
    "cursor",
    "expiresAfter",
    "expiresBefore",
    "fields",
    "kind",
    "limit",
    "phase",
    "principal",
    "ready",
    "reason",
    "since",
    "sort",
    "state",
    "ticket",
    "type",
];

/// A certificate that is served, with its key; its identifier.
async fn imported(world: &World, things: &Things) -> String {
    let Things { namespace, name, .. } = things;
    let mut wanted = things.manifest(name);
    wanted["spec"]["dnsNames"] = json!([format!("{name}.example.com")]);
    wanted["spec"]["issuerRef"] = json!({"name": name, "kind": "Issuer"});
    let mut secret = tls_secret(name, &pair(&[&format!("{name}.example.com")], 60));
    secret["metadata"]["namespace"] = json!(namespace);
    let imported = send(world, "/import", &stream(&[secret, wanted])).await;
    assert_eq!(imported.status, 200, "{}", imported.text);
    id(&imported.json()["results"][0])
}

fn csr(name: &str) -> String {
    let key = KeyPair::generate().unwrap();
    let mut wanted = CertificateParams::new([name.to_owned()]).unwrap();
    wanted.distinguished_name = DistinguishedName::new();
    wanted.serialize_request(&key).unwrap().pem().unwrap()
}
