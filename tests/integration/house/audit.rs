//! The audit log: nothing that changes something may leave it out.

use std::collections::BTreeMap;

use axum::http::Method;
use certwright::api;
use certwright::domain::approval::Approval;
use certwright::domain::certificate::Certificate;
use certwright::domain::failure::{Failure, code};
use certwright::domain::id::{CertificateId, IssuerId, OrderId, RequestId};
use certwright::domain::issuer::Account;
use certwright::domain::throttle::{Asker, Scope as Limit};
use certwright::storage::requests::RequestState;
use certwright::storage::{Scope, certificates, issuers, requests, throttles};
use serde_json::{Value, json};
use time::Duration;
use uuid::Uuid;

use super::architecture::{code as code_of, sources_of};
use crate::api::manifests::CLUSTER_ISSUER;
use crate::policies::policy;
use crate::support::world::{World, certificate, cluster_issuer, id, on_every_database};
use crate::webhooks::{deliveries, hooked};

/// Where the API begins a transaction that leaves no entry, and why.
const WITHOUT_ENTRY: &[(&str, usize, &str)] = &[
    ("src/api/mod.rs", 1, "the one place that gives a transaction its author"),
    ("src/api/auth/last_uses.rs", 1, "that a key was used is no change that anybody asked for"),
    ("src/api/auth/ticket.rs", 1, "uses a ticket up, whose making has its entry"),
    ("src/api/audit/refusals.rs", 1, "writes entries itself"),
    (
        "src/api/throttles.rs",
        1,
        "orders that look again once a throttle was lifted, which has its entry",
    ),
];

#[test]
fn a_transaction_of_the_api_leaves_an_entry_or_says_here_why_not() {
    let mut found = BTreeMap::new();
    for (file, text) in sources_of("api") {
        let begun = code_of(&text).filter(|line| line.contains("db.begin()")).count();
        let path = file.to_string_lossy().into_owned();
        let path =
            path.split("/src/").nth(1).map_or(path.clone(), |inside| format!("src/{inside}"));
        if begun > 0 {
            found.insert(path, begun);
        }
    }
    let allowed = WITHOUT_ENTRY.iter().map(|(file, times, _)| ((*file).to_owned(), *times));
    assert_eq!(found, allowed.collect(), "begin it with `app.begin(&who)` or `attempt.begin(app)`");
}

/// Operations that change nothing although their method says so.
const NO_CHANGES: &[(&str, &str)] = &[("evaluatePolicies", "a question")];

on_every_database! {
    async fn every_operation_that_changes_something_leaves_an_entry(world: World) {
        let mut walk = Walk { world: &world, actions: BTreeMap::new() };
        walk.all().await;

        for (operation, action) in &walk.actions {
            let found = entries_of(&world, operation).await;
            assert!(!found.is_empty(), "{operation} leaves no entry: begin its transaction with `app.begin(&who)`");
            for entry in found {
                assert_eq!(entry["action"], *action, "{operation}: {entry}");
                assert_eq!((&entry["outcome"], &entry["principal"]["name"]), (&json!("allowed"), &json!("admin")), "{entry}");
                assert_eq!(entry["from"], "192.0.2.7", "{entry}");
                let collection = action.split('.').next().unwrap();
                let resource = entry["resource"].as_str().unwrap_or_default();
                assert!(resource.starts_with(&format!("{collection}/")) && resource.len() > 36, "{operation}: {entry}");
            }
        }
        let missing: Vec<_> = operations().into_iter().filter(|name| !walk.actions.contains_key(name)).collect();
        assert_eq!(missing, [""; 0], "perform them in this test, so that it sees their entries");
    }
}

/// The operations of the description that change something, by identifiers; addresses by name are the same ones.
fn operations() -> Vec<String> {
    let document = serde_json::to_value(api::document()).unwrap();
    let mut names = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let writes = item.as_object().unwrap().iter().filter(|(method, _)| *method != "get");
        let of_item =
            writes.map(|(_, operation)| operation["operationId"].as_str().unwrap().to_owned());
        let is_new = |name: &String| NO_CHANGES.iter().all(|(known, _)| known != name);
        if !path.contains("/by-name/") {
            names.extend(of_item.filter(is_new));
        }
    }
    names
}

async fn entries_of(world: &World, request: &str) -> Vec<Value> {
    let all = world.get("/audit?limit=500").await.json()["items"].as_array().unwrap().clone();
    all.into_iter().filter(|entry| entry["requestId"] == request).collect()
}

/// Requests that have been sent, by operation, with the action that each is.
struct Walk<'w> {
    world: &'w World,
    actions: BTreeMap<String, &'static str>,
}

impl Walk<'_> {
    async fn send(
        &mut self,
        operation: &str,
        action: &'static str,
        method: Method,
        path: &str,
        body: Value,
    ) -> Value {
        let ask = self.world.ask(method, path).from("192.0.2.7").header("x-request-id", operation);
        let ask = if body.is_null() { ask } else { ask.json(&body) };
        let reply = ask.send().await;
        assert!((200..300).contains(&reply.status), "{operation}: {reply:?}");
        self.actions.insert(operation.to_owned(), action);
        serde_json::from_str(&reply.text).unwrap_or_default()
    }

    async fn manifest(&mut self, operation: &str, action: &'static str, path: &str, text: &str) {
        let ask =
            self.world.ask(Method::POST, path).from("192.0.2.7").header("x-request-id", operation);
        let reply = ask.header("content-type", "application/yaml").text(text).send().await;
        assert_eq!(reply.status, 200, "{operation}: {reply:?}");
        self.actions.insert(operation.to_owned(), action);
    }

    async fn all(&mut self) {
        self.keys_and_secrets().await;
        self.policies().await;
        self.issuers().await;
        self.certificates().await;
        self.requests().await;
        self.webhooks().await;
        self.others().await;
        let path = "/events/ticket";
        self.send("createEventTicket", "events.ticket", Method::POST, path, Value::Null).await;
    }

    async fn keys_and_secrets(&mut self) {
        let key = json!({"name": "one", "permissions": ["certificates:read"]});
        let made =
            self.send("createApiKey", "apiKeys.create", Method::POST, "/api-keys", key).await;
        let path = format!("/api-keys/{}", id(&made));
        let rotate = format!("{path}/rotate");
        self.send("rotateApiKey", "apiKeys.rotate", Method::POST, &rotate, json!({})).await;
        self.send("deleteApiKey", "apiKeys.delete", Method::DELETE, &path, Value::Null).await;

        let secret = json!({"namespace": "default", "name": "one", "stringData": {"k": "v"}});
        let made =
            self.send("createSecret", "secrets.create", Method::POST, "/secrets", secret).await;
        let path = format!("/secrets/{}", id(&made));
        let next = json!({"namespace": "default", "name": "one", "stringData": {"k": "w"}});
        self.send("replaceSecret", "secrets.replace", Method::PUT, &path, next).await;
        self.send("deleteSecret", "secrets.delete", Method::DELETE, &path, Value::Null).await;
    }

    async fn policies(&mut self) {
        let wanted = policy("one", "team", &["one.example.com"]);
        let made =
            self.send("createPolicy", "policies.create", Method::POST, "/policies", wanted).await;
        let path = format!("/policies/{}", id(&made));
        let next = policy("one", "team", &["two.example.com"]);
        self.send("replacePolicy", "policies.replace", Method::PUT, &path, next).await;
        self.send("deletePolicy", "policies.delete", Method::DELETE, &path, Value::Null).await;
    }

    async fn issuers(&mut self) {
        let wanted = cluster_issuer("one");
        let made = self
            .send("createIssuer", "issuers.create", Method::POST, "/issuers", wanted.clone())
            .await;
        let path = format!("/issuers/{}", id(&made));
        let mut next = wanted;
        next["acme"]["email"] = json!("other@example.com");
        self.send("replaceIssuer", "issuers.replace", Method::PUT, &path, next).await;
        db_register(self.world, &id(&made)).await;
        let rotate = format!("{path}/rotate-account-key");
        self.send(
            "rotateAccountKey",
            "issuers.rotateAccountKey",
            Method::POST,
            &rotate,
            Value::Null,
        )
        .await;
        let other = self.world.post("/issuers", cluster_issuer("two")).await.accepted();
        db_register(self.world, &id(&other)).await;
        let give_up = format!("/issuers/{}/deactivate-account", id(&other));
        self.send(
            "deactivateAccount",
            "issuers.deactivateAccount",
            Method::POST,
            &give_up,
            Value::Null,
        )
        .await;
        self.send("deleteIssuer", "issuers.delete", Method::DELETE, &path, Value::Null).await;
    }

    async fn certificates(&mut self) {
        self.world.create_issuer().await;
        let made = self
            .send(
                "createCertificate",
                "certificates.create",
                Method::POST,
                "/certificates",
                certificate("web"),
            )
            .await;
        let path = format!("/certificates/{}", id(&made));
        let order = self.world.db_order(&id(&made)).await;
        self.world.db_issue(&order).await;
        let several = json!({"items": [certificate("several")]});
        let batch = "/certificates/batch";
        self.send("createCertificates", "certificates.create", Method::POST, batch, several).await;
        let labels = json!({"labels": {"a": "b"}});
        self.send("changeCertificate", "certificates.change", Method::PATCH, &path, labels).await;
        let renew = format!("{path}/renew");
        self.send("renewCertificate", "certificates.renew", Method::POST, &renew, Value::Null)
            .await;
        let revoke = format!("{path}/revoke");
        self.send("revokeCertificate", "certificates.revoke", Method::POST, &revoke, json!({}))
            .await;
        self.send("deleteCertificate", "certificates.delete", Method::DELETE, &path, Value::Null)
            .await;

        let mut held = certificate("held");
        held["csr"] = json!(csr("held.example.com"));
        held.as_object_mut().unwrap().remove("dnsNames");
        let made = self.world.post("/certificates", held).await.accepted();
        let path = format!("/certificates/{}/csr", id(&made));
        let next = json!({"csr": csr("held.example.com")});
        self.send("replaceCsr", "certificates.replaceCsr", Method::PUT, &path, next).await;

        self.manifest("applyManifests", "issuers.apply", "/apply", CLUSTER_ISSUER).await;
        let other = CLUSTER_ISSUER.replace("letsencrypt-staging", "other");
        self.manifest("importCertificates", "issuers.import", "/import", &other).await;
    }

    async fn requests(&mut self) {
        for (operation, action, verb) in [
            ("approveRequest", "requests.approve", "approve"),
            ("denyRequest", "requests.deny", "deny"),
        ] {
            let made = self.world.create_certificate(verb).await;
            let request = db_ask_for_approval(self.world, &id(&made)).await;
            let path = format!("/requests/{request}/{verb}");
            let reason = json!({"reason": "as agreed"});
            self.send(operation, action, Method::POST, &path, reason).await;
        }
    }

    async fn webhooks(&mut self) {
        let world = self.world;
        let (receiver, hook) = hooked(world, json!({})).await;
        let wanted = json!({"url": receiver.url()});
        let made =
            self.send("createWebhook", "webhooks.create", Method::POST, "/webhooks", wanted).await;
        let path = format!("/webhooks/{}", id(&made));
        let test = format!("{path}/test");
        self.send("testWebhook", "webhooks.test", Method::POST, &test, Value::Null).await;
        world.deliver().await;
        let rotate = format!("{path}/rotate");
        self.send("rotateWebhookSecret", "webhooks.rotate", Method::POST, &rotate, json!({})).await;
        let delivery = id(&deliveries(world, &made, "").await[0]);
        let again = format!("{path}/deliveries/{delivery}/redeliver");
        self.send("redeliver", "webhooks.redeliver", Method::POST, &again, Value::Null).await;
        let since = json!({"since": "2020-01-01T00:00:00Z"});
        let all = format!("{path}/redeliver");
        self.send("redeliverSince", "webhooks.redeliver", Method::POST, &all, since).await;
        let narrowed = json!({"events": ["certificate.issued"]});
        self.send("changeWebhook", "webhooks.change", Method::PATCH, &path, narrowed).await;
        self.send("deleteWebhook", "webhooks.delete", Method::DELETE, &path, Value::Null).await;
        world.delete(&format!("/webhooks/{}", id(&hook))).await;
    }

    async fn others(&mut self) {
        let world = self.world;
        let asker = Asker { server: "https://ca.example/directory", account: "", names: &[] };
        let limit = Limit::RegisteredDomain("example.com".to_owned());
        let why = Failure {
            scope: Some(limit.clone()),
            ..Failure::of(code::ACME_RATE_LIMITED, "enough")
        };
        let mut tx = world.db.begin();
        let (key, until) = (asker.key(&limit), world.now() + Duration::hours(1));
        throttles::hold(&mut tx, &key, &limit, until, &why, world.now()).await.unwrap();
        tx.commit().await.unwrap();
        let listed = world.get("/throttles").await.json();
        let path = format!("/throttles/{}", id(&listed["items"][0]));
        self.send("liftThrottle", "throttles.delete", Method::DELETE, &path, Value::Null).await;
    }
}

fn csr(name: &str) -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut wanted = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
    wanted.distinguished_name = rcgen::DistinguishedName::new();
    wanted.serialize_request(&key).unwrap().pem().unwrap()
}

/// Saves what a worker would have made of a certificate that somebody has to approve; its request.
pub(crate) async fn db_ask_for_approval(world: &World, certificate: &str) -> RequestId {
    let (now, deadline) = (world.now(), world.now() + Duration::days(7));
    let mut tx = world.db.begin();
    let id = CertificateId(certificate.parse().unwrap());
    let found = certificates::find(&mut tx, id, &Scope::Everything).await.unwrap();
    let (certificate, lease) = found.unwrap();
    // Nobody is known who asked for it, so that anybody may decide.
    let certificate = Certificate { requested_by: None, ..certificate };
    let request = requests::Request {
        id: RequestId::generate(now),
        name: certificate.request_name(),
        certificate: id,
        namespace: certificate.namespace.clone(),
        revision: 1,
        csr: b"csr".to_vec(),
        state: RequestState::Pending,
        message: "Waiting for approval".to_owned(),
        order: OrderId(Uuid::nil()),
        requested_by: None,
        approval: Some(Approval::until(deadline)),
        created_at: now,
        finished_at: None,
    };
    requests::insert(&mut tx, &request, None).await.unwrap();
    let waits = certificate.await_approval(request.id, deadline, now);
    certificates::save(&mut tx, &waits, &lease, None).await.unwrap();
    tx.commit().await.unwrap();
    request.id
}

/// Saves what a worker would have made of a new issuer.
async fn db_register(world: &World, issuer: &str) {
    let mut tx = world.db.begin();
    let found = issuers::find(&mut tx, IssuerId(issuer.parse().unwrap()), &Scope::Everything).await;
    let (issuer, lease) = found.unwrap().unwrap();
    let account = Account {
        url: "https://ca.example/account/1".into(),
        server: "https://ca.example/directory".into(),
        email: None,
    };
    issuers::save(&mut tx, &issuer.registered(account, world.now()), &lease).await.unwrap();
    tx.commit().await.unwrap();
}
