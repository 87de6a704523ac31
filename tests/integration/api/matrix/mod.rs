//! Who may do what to whose: every operation of the description, by every role and kind of principal, about its own
//! namespace, another one, and what is not there. What is another's and what is not there have one answer, to the
//! byte.

mod table;
mod things;

use std::fmt;

use axum::http::Method;
use certwright::domain::access_rule::{Namespaces, Rule};
use certwright::domain::role::Role;
use certwright::domain::token_issuer::TokenIssuer;
use serde_json::{Value, json};

use super::auth::operations;
use crate::policies::allow;
use crate::support::client_ca::ClientCa;
use crate::support::openid_provider::{AUDIENCE, OpenIdProvider};
use crate::support::world::{Reply, World, id, on_every_database};
use table::{OPERATIONS, Place, ROLES, may};
use things::Things;

/// Every request is of one trace, so that answers differ by nothing else.
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

on_every_database! {
    async fn nobody_does_or_learns_what_is_not_theirs(world: World) {
        let shared = id(&world.create_issuer().await);
        allow(&world, "ours", "ours", &["**.ours.example.com"]).await;
        let ours = Things::of(&world, "ours", "ourself").await;
        let theirs = Things::of(&world, "theirs", "foreign").await;
        let (provider, world) = trusting(world).await;
        let before = all_of(&world, &theirs).await;

        let mut leaks = Vec::new();
        let mut asked = 0;
        for (number, who) in principals(&world, &provider).await.into_iter().enumerate() {
            let ours = ours.clone().with_new_key(&world).await;
            let ours = ours.with_those_of_the_service(&world, number).await;
            let mut walk = Walk { world: &world, who: &who, number: number * 1_000, leaks: Vec::new() };
            walk.all(&ours, &theirs, &shared).await;
            asked += walk.number % 1_000;
            leaks.append(&mut walk.leaks);
        }

        assert_eq!(leaks, [""; 0], "{} leaks", leaks.len());
        assert!(asked > 3_000, "{asked} requests");
        assert_eq!(all_of(&world, &theirs).await, before, "somebody changed what is not theirs");
    }
}

#[test]
fn every_operation_has_its_line_and_every_line_its_operation() {
    let mut described: Vec<_> = described().iter().map(|one| one.base().to_owned()).collect();
    described.sort_unstable();
    described.dedup();

    let known: Vec<_> = OPERATIONS.iter().map(|(name, ..)| *name).collect();
    assert_eq!(described, known, "give a new operation its line in matrix/table.rs");
}

/// An operation of the description.
#[derive(Debug)]
struct Operation {
    name: String,
    method: Method,
    path: String,
    /// Its parameters in the query.
    queries: Vec<String>,
    takes_if_match: bool,
}

fn described() -> Vec<Operation> {
    let read = |(method, path, described): (Method, String, Value)| {
        let none = Vec::new();
        let parameters = described["parameters"].as_array().unwrap_or(&none);
        let name = |one: &Value| one["name"].as_str().unwrap().to_owned();
        let queries = parameters.iter().filter(|one| one["in"] == "query").map(name).collect();
        let takes_if_match = parameters.iter().any(|one| one["name"] == "If-Match");
        let named = described["operationId"].as_str().unwrap().to_owned();
        Operation { name: named, method, path, queries, takes_if_match }
    };
    let mut all: Vec<_> = operations().into_iter().map(read).collect();
    // What takes a thing away comes last.
    all.sort_by_key(|one| one.method == Method::DELETE);
    all
}

impl Operation {
    /// The name of the same operation by identifier.
    fn base(&self) -> &str {
        let name = self.name.strip_suffix("ByName").unwrap_or(&self.name);
        name.strip_suffix("ByClusterName").unwrap_or(name)
    }

    fn collection(&self) -> &str {
        self.path.split('/').nth(1).unwrap()
    }

    fn line(&self) -> (&'static str, Place) {
        let line = OPERATIONS.iter().find(|(name, ..)| *name == self.base());
        let (_, permission, place) = line.unwrap_or_else(|| panic!("{} has no line", self.name));
        (permission, *place)
    }

    /// True if its path names a resource.
    fn is_about_one(&self) -> bool {
        self.path.contains('{')
    }

    fn is_list(&self) -> bool {
        self.method == Method::GET && !self.is_about_one()
    }

    /// True if its path names a `ClusterIssuer`, whom all namespaces share.
    fn is_about_cluster_issuer(&self) -> bool {
        self.path.starts_with("/issuers/by-name/{name}")
    }
}

/// Somebody who asks.
#[derive(Debug)]
struct Who {
    role: &'static str,
    /// Bound to the namespace `ours`, or to none.
    bound: bool,
    kind: Kind,
    /// A key, a token, or a certificate in PEM.
    credential: String,
}

/// How somebody is recognised.
#[derive(Debug, Clone, Copy)]
enum Kind {
    ApiKey,
    Token,
    ClientCertificate,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { role, bound, kind, .. } = self;
        write!(f, "{role}, {kind:?}, {}", if *bound { "bound" } else { "unbound" })
    }
}

async fn principals(world: &World, provider: &OpenIdProvider) -> Vec<Who> {
    let (mut all, ca) = (Vec::new(), ClientCa::named("Clients"));
    for role in ROLES {
        for bound in [true, false] {
            let namespaces = bound.then_some(["ours"]);
            let wanted = json!({"name": role, "role": role, "namespaces": namespaces});
            let made = world.post("/api-keys", wanted).await.accepted();
            let key = made["key"].as_str().unwrap().to_owned();
            let token = provider.token(&json!({"groups": [group(role, bound)]})).await;
            all.push(Who { role, bound, kind: Kind::ApiKey, credential: key });
            let certificate = ca.sign(&uri(&group(role, bound))).certificate;
            all.push(Who { role, bound, kind: Kind::Token, credential: token });
            all.push(Who { role, bound, kind: Kind::ClientCertificate, credential: certificate });
        }
    }
    all
}

fn group(role: &str, bound: bool) -> String {
    format!("{role}-{bound}")
}

fn uri(group: &str) -> String {
    format!("urn:group:{group}")
}

/// A provider of tokens for each role, and the world with its tokens, and with certificates for the same.
async fn trusting(world: World) -> (OpenIdProvider, World) {
    let provider = OpenIdProvider::start().await;
    let (mut rules, mut client_rules) = (Vec::new(), Vec::new());
    for role in [Role::Admin, Role::Operator, Role::Requester, Role::Reader] {
        for bound in [true, false] {
            let namespaces =
                if bound { Namespaces::These(vec!["ours".into()]) } else { Namespaces::All };
            let group = group(json!(role).as_str().unwrap(), bound);
            let claims = vec![("uri".to_owned(), uri(&group))];
            client_rules.push(Rule { claims, role, namespaces: namespaces.clone() });
            rules.push(Rule { claims: vec![("groups".to_owned(), group)], role, namespaces });
        }
    }
    let issuer = TokenIssuer {
        issuer: provider.issuer().to_owned(),
        audience: AUDIENCE.to_owned(),
        cli_client_id: None,
        ca_bundle: None,
        rules,
    };
    (provider, world.recognising(vec![issuer], client_rules))
}

/// Everything that is another's, as the administrator sees it.
async fn all_of(world: &World, things: &Things) -> Vec<String> {
    let mut seen = Vec::new();
    for operation in described() {
        let (_, place) = operation.line();
        let shows = operation.method == Method::GET && !operation.name.starts_with("download");
        if !shows || place != Place::Namespace || operation.is_about_cluster_issuer() {
            continue;
        }
        let path = things.path(&operation);
        if operation.is_about_one() {
            seen.push(world.get(&path).await.text);
        } else {
            for filter in things.filters(&operation).iter().filter(|it| it.contains("namespace")) {
                seen.push(world.get(&format!("{path}{filter}&limit=500")).await.text);
            }
        }
    }
    seen
}

/// What somebody has to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// It is done, or would be but for the state of the resource.
    Done,
    /// 403, with the permission where one is missing.
    Refused(&'static str),
    /// 422: a key for a namespace that its maker has not.
    NotGiven,
    /// 404
    Hidden,
}

/// Whose the thing is that is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Ours,
    Theirs,
    Nobodys,
    Everybodys,
}

/// The requests of one principal.
struct Walk<'w> {
    world: &'w World,
    who: &'w Who,
    number: usize,
    leaks: Vec<String>,
}

impl Walk<'_> {
    async fn all(&mut self, ours: &Things, theirs: &Things, shared_issuer: &str) {
        let missing = Things::missing();
        let shared = missing.clone().with_issuer(shared_issuer);
        for operation in described() {
            if operation.is_about_cluster_issuer() {
                self.ask(&operation, &shared.clone().called("le"), Whose::Everybodys).await;
                self.ask(&operation, &missing, Whose::Nobodys).await;
                continue;
            }
            let own = self.ask(&operation, ours, Whose::Ours).await;
            self.must_hold_nothing_of(&operation, &own, theirs);
            if operation.path.starts_with("/issuers/{id}") {
                self.ask(&operation, &shared, Whose::Everybodys).await;
            }
            if operation.is_list() {
                self.filter(&operation, theirs, &missing).await;
            } else if self.who.bound && operation.line().1 != Place::Caller {
                let another = self.ask(&operation, theirs, Whose::Theirs).await;
                let none = self.ask(&operation, &missing, Whose::Nobodys).await;
                self.must_be_alike(&operation, (&another, theirs), (&none, &missing));
            } else if operation.is_about_one() {
                self.ask(&operation, &missing, Whose::Nobodys).await;
            }
        }
    }

    /// Sends the request and judges the answer.
    async fn ask(&mut self, operation: &Operation, things: &Things, whose: Whose) -> Reply {
        let may_succeed = !self.who.bound || whose == Whose::Ours;
        let reply = self.send(operation, things, &things.path(operation), may_succeed).await;
        let expected = self.expected(operation, whose);
        let is_so = match expected {
            Answer::Done => matches!(reply.status, 200..=299 | 409 | 412 | 422),
            Answer::Refused(word) => {
                // A batch is answered for each of its items.
                let of_item = &reply.json()["items"][0];
                let (status, code) = match reply.status {
                    207 => (of_item["status"].clone(), of_item["problem"]["code"].clone()),
                    status => (json!(status), reply.json()["code"].clone()),
                };
                status == 403 && code == "permission_denied" && reply.text.contains(word)
            }
            Answer::NotGiven => reply.status == 422 && reply.text.contains("may give no more"),
            Answer::Hidden => reply.status == 404 && reply.json()["code"] == "not_found",
        };
        if !is_so {
            let name = &operation.name;
            self.leak(&format!(
                "{name}, {whose:?}: not {expected:?} but {} {}",
                reply.status, reply.text
            ));
        }
        reply
    }

    fn expected(&self, operation: &Operation, whose: Whose) -> Answer {
        let (permission, place) = operation.line();
        let Who { role, bound, .. } = self.who;
        match place {
            Place::Open | Place::Caller => return Answer::Done,
            _ if !may(role, permission) => return Answer::Refused(permission),
            Place::Service if *bound => return Answer::Refused(""),
            Place::Service | Place::Namespace => {}
        }
        let is_missing = match whose {
            Whose::Everybodys if *bound && operation.method != Method::GET => {
                return Answer::Refused("");
            }
            Whose::Ours | Whose::Everybodys => false,
            Whose::Theirs | Whose::Nobodys => true,
        };
        let names_a_namespace = !operation.is_about_one() && !operation.is_list();
        match place {
            Place::Namespace if names_a_namespace && is_missing && *bound => {
                if operation.name == "createApiKey" {
                    Answer::NotGiven
                } else {
                    Answer::Refused("")
                }
            }
            _ if operation.is_about_one() && is_missing => Answer::Hidden,
            _ => Answer::Done,
        }
    }

    async fn send(
        &mut self,
        operation: &Operation,
        things: &Things,
        path: &str,
        may_succeed: bool,
    ) -> Reply {
        self.number += 1;
        let (ask, credential) =
            (self.world.ask(operation.method.clone(), path), &self.who.credential);
        let ask = match self.who.kind {
            Kind::ApiKey | Kind::Token => ask.with_key(credential),
            Kind::ClientCertificate => ask.with_certificate(credential),
        };
        let ask = ask.header("x-request-id", "matrix").header("traceparent", TRACEPARENT);
        let ask = things.dress(ask, operation, self.number);
        // Where it can, it asks for another state of the thing, so that there is one for those who come after it.
        let ask = if may_succeed && operation.takes_if_match {
            ask.header("if-match", "\"other\"")
        } else {
            ask
        };
        ask.send().await
    }

    /// What is another's may not even be told from what is not there.
    fn must_be_alike(
        &mut self,
        operation: &Operation,
        another: (&Reply, &Things),
        none: (&Reply, &Things),
    ) {
        let [another, none] = [another, none].map(|(reply, things)| {
            let Reply { status, headers, text, .. } = reply;
            let mut headers = headers.clone();
            // Each answer has a span of its own.
            headers.remove("traceresponse");
            let seen = format!("{status} {headers:?} {text}");
            things.words().fold(seen, |seen, word| seen.replace(word, "…"))
        });
        if another != none {
            self.leak(&format!("{}: {another}\n but {none}", operation.name));
        }
    }

    /// Whoever is bound to another namespace sees nothing of it.
    fn must_hold_nothing_of(&mut self, operation: &Operation, reply: &Reply, things: &Things) {
        let (_, place) = operation.line();
        if self.who.bound && place != Place::Open {
            let seen = format!("{:?} {}", reply.headers, reply.text);
            if let Some(word) = things.words().find(|word| seen.contains(word)) {
                self.leak(&format!("{} shows `{word}`: {seen}", operation.name));
            }
            let listed = serde_json::from_str::<Value>(&reply.text).unwrap_or_default();
            let count = listed["count"].as_u64();
            let items = listed["items"].as_array().map(|items| items.len() as u64);
            if count.is_some() && count != items {
                self.leak(&format!("{} counts {count:?}, of {items:?}", operation.name));
            }
        }
    }

    /// A list that is asked for what is another's holds as little as when it is asked for what is not there.
    async fn filter(&mut self, operation: &Operation, theirs: &Things, missing: &Things) {
        if !self.who.bound {
            return;
        }
        let (another, none) = (theirs.filters(operation), missing.filters(operation));
        for (another, none) in another.into_iter().zip(none) {
            let path = &operation.path;
            let another = self.send(operation, theirs, &format!("{path}{another}"), false).await;
            let none = self.send(operation, missing, &format!("{path}{none}"), false).await;
            self.must_be_alike(operation, (&another, theirs), (&none, missing));
        }
    }

    fn leak(&mut self, what: &str) {
        self.leaks.push(format!("{}: {what}", self.who));
    }
}
