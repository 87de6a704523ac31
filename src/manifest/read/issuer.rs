//! Reading cert-manager's `Issuer` and `ClusterIssuer`.

use serde_json::{Map, Value, json};

use super::object::Object;
use super::spelling::{is_nothing, no_such_field};
use crate::domain::issuer;
use crate::manifest::kind::Kind;
use crate::validation::{FieldCode, boolean, escaped};
use crate::view::spec::IssuerSpec;

const OTHER_ISSUERS: [&str; 4] = ["ca", "selfSigned", "vault", "venafi"];

pub(super) const OTHER_PROVIDERS: [&str; 8] =
    ["acmeDNS", "akamai", "azureDNS", "cloudDNS", "digitalocean", "rfc2136", "route53", "webhook"];

/// Fields of `acme` without a meaning here.
const PASSED_OVER: [(&str, &str); 1] =
    [("disableAccountKeyGeneration", "the account key is made and kept by the service")];

const INGRESS: [&str; 6] =
    ["class", "ingressClassName", "ingressTemplate", "name", "podTemplate", "serviceType"];

/// Reads the manifest. Faults are added to the object.
pub(crate) fn read(object: &mut Object, default_namespace: &str) -> Option<IssuerSpec> {
    let mut spec = object.take_map("spec")?;
    object.nothing_else(&["metadata", "spec"]);
    for other in OTHER_ISSUERS {
        if spec.remove(other).is_some() {
            let detail = "certificates come from ACME CAs only: `acme`";
            object.fault(&format!("/spec/{other}"), FieldCode::Unsupported, detail);
        }
    }
    let acme = spec.remove("acme");
    for unknown in spec.keys() {
        let pointer = format!("/spec/{}", escaped(unknown));
        let known = [&["acme"][..], &OTHER_ISSUERS].concat();
        object.fault(&pointer, FieldCode::UnknownField, no_such_field(unknown, &known));
    }
    let Some(Value::Object(mut acme)) = acme else {
        if object.is_sound() {
            object.fault("/spec/acme", FieldCode::Required, "it has to be given, as a mapping");
        }
        return None;
    };
    account(&mut acme, object);
    if let Some(Value::Array(solvers)) = acme.get_mut("solvers") {
        for (index, one) in solvers.iter_mut().enumerate() {
            solver(one, &format!("/spec/acme/solvers/{index}"), object);
        }
    }
    if !object.labels.is_empty() {
        object.warn("metadata.labels", "labels are kept with Certificates only");
    }
    let (kind, namespace) = if object.kind == Kind::ClusterIssuer {
        if object.namespace.is_some() {
            object.warn("metadata.namespace", "a ClusterIssuer serves every namespace");
        }
        (issuer::Kind::ClusterIssuer, None)
    } else {
        let namespace = object.namespace.as_deref().unwrap_or(default_namespace);
        (issuer::Kind::Issuer, Some(namespace.to_owned()))
    };
    let stand_in = json!({"server": "https://none.invalid/"});
    let acme = object.parse(Value::Object(acme), "/spec/acme", &stand_in)?;
    Some(IssuerSpec { kind, namespace, name: object.name.clone(), acme })
}

/// Turns a pointer into the specification into one into its manifest.
pub(crate) fn place(pointer: &str) -> String {
    match pointer.split('/').nth(1) {
        Some("name" | "namespace") => format!("/metadata{pointer}"),
        Some("kind") => pointer.to_owned(),
        _ => format!("/spec{pointer}"),
    }
}

fn account(acme: &mut Map<String, Value>, object: &mut Object) {
    for (field, instead) in PASSED_OVER {
        if acme.remove(field).is_some_and(|given| boolean(&given) != Some(false)) {
            object.warn(&format!("spec.acme.{field}"), instead);
        }
    }
    if acme.get("privateKeySecretRef").is_some_and(is_nothing) {
        acme.remove("privateKeySecretRef");
    }
    if acme.contains_key("privateKeySecretRef") {
        let instead = "a key that this Secret has when the issuer is created is used; else the service makes one, and keeps it in no Secret";
        object.warn("spec.acme.privateKeySecretRef", instead);
    }
    if let Some(Value::Object(binding)) = acme.get_mut("externalAccountBinding") {
        binding.remove("keyAlgorithm");
    }
}

fn solver(value: &mut Value, pointer: &str, object: &mut Object) {
    let Value::Object(solver) = value else { return };
    let waits = solver.remove("waitInsteadOfSelfCheck");
    if let Some(Value::Object(http01)) = solver.get_mut("http01") {
        responder(http01, &format!("{pointer}/http01"), object);
        if waits.is_some() {
            let instead = "the proof is looked for before the CA is told, as always";
            object.warn("solvers[].waitInsteadOfSelfCheck", instead);
        }
    }
    if let Some(Value::Object(dns01)) = solver.get_mut("dns01") {
        provider(dns01, &format!("{pointer}/dns01"), object);
        delegation(dns01, object);
        if let Some(delay) = waits {
            dns01.entry("propagation").or_insert(json!({"mode": "none", "delay": delay}));
        }
    }
}

fn responder(http01: &mut Map<String, Value>, pointer: &str, object: &mut Object) {
    let instead = "the service answers by itself; forward /.well-known/acme-challenge/ to it";
    if http01.remove("gatewayHTTPRoute").is_some() {
        object.warn("solvers[].http01.gatewayHTTPRoute", instead);
    }
    let Some(ingress) = http01.get("ingress") else { return };
    object.warn("solvers[].http01.ingress", instead);
    let fields = ingress.as_object().into_iter().flat_map(Map::keys);
    for unknown in fields.filter(|field| !INGRESS.contains(&field.as_str())) {
        let pointer = format!("{pointer}/ingress/{}", escaped(unknown));
        object.fault(&pointer, FieldCode::UnknownField, no_such_field(unknown, &INGRESS));
    }
}

/// Every tenant's CNAMEs lead a `ClusterIssuer`'s credential.
fn delegation(dns01: &Map<String, Value>, object: &mut Object) {
    let follows = dns01.get("cnameStrategy").is_some_and(|given| given == "Follow");
    if object.kind == Kind::ClusterIssuer && follows && !dns01.contains_key("cnameZones") {
        let instead = "CNAMEs are followed into the zones of `cnameZones` only, and none is listed: add those for delegation";
        object.warn("solvers[].dns01.cnameStrategy", instead);
    }
}

fn provider(dns01: &mut Map<String, Value>, pointer: &str, object: &mut Object) {
    let mut others = false;
    for other in OTHER_PROVIDERS {
        if dns01.remove(other).is_some() {
            others = true;
            let detail = format!(
                "the DNS provider `{other}` is not there yet; `cloudflare` is, and a zone elsewhere can delegate `_acme-challenge` to it by CNAME"
            );
            object.fault(&format!("{pointer}/{other}"), FieldCode::Unsupported, detail);
        }
    }
    let Some(Value::Object(cloudflare)) = dns01.get_mut("cloudflare") else {
        if others {
            // This stand-in avoids a second fault about the missing provider.
            let stand_in = json!({"apiTokenSecretRef": {"name": "none"}});
            dns01.insert("cloudflare".to_owned(), stand_in);
        }
        return;
    };
    if cloudflare.remove("apiKeySecretRef").is_some() {
        let detail = "global API keys may do everything and are not taken; make an API token with Zone:Read and DNS:Edit, and name it as `apiTokenSecretRef`";
        object.fault(
            &format!("{pointer}/cloudflare/apiKeySecretRef"),
            FieldCode::Unsupported,
            detail,
        );
        let stand_in = json!({"name": "none"});
        cloudflare.entry("apiTokenSecretRef").or_insert(stand_in);
    }
}
