//! Validation of a wanted issuer.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use x509_parser::pem::Pem;

use super::outside::Outside;
use crate::api::auth::{Permission as _, Principal, SecretsWrite};
use crate::api::problem::{ApiError, Faults, FieldCode};
use crate::api::{AppState, field, limits};
use crate::domain::issuer::{
    Acme, CnameStrategy, Dns01, ExternalAccountBinding, Http01, Kind, SecretKeySelector, Solver,
};
use crate::domain::name::DnsName;
use crate::view::spec::IssuerSpec;

/// Refuses an issuer that is known to fail, or that this principal may not write.
pub(crate) fn check(spec: &IssuerSpec, app: &AppState, who: &Principal) -> Result<(), ApiError> {
    let mut faults = Faults::default();
    match (spec.kind, spec.namespace.as_deref()) {
        (Kind::ClusterIssuer, Some(given)) if !given.is_empty() => {
            let detail = "a ClusterIssuer serves every namespace and belongs to none";
            faults.add("/namespace", FieldCode::Conflicting, detail);
        }
        (Kind::Issuer, Some(given)) => field::namespace(given, &mut faults),
        _ => {}
    }
    field::name(&spec.name, "/name", &mut faults);
    acme(&spec.acme, spec.kind, &mut faults);
    let may_set_base = !who.is_bound() && who.may(SecretsWrite::NAME);
    Outside { guard: app.outbound.guard(), kind: spec.kind, may_set_base }
        .check(&spec.acme, &mut faults);
    Ok(faults.refuse()?)
}
/// Bytes of `acme` at most: every order reads it.
const MOST_BYTES: usize = 64 * 1024;
/// Bytes of `ingress`, which means nothing here.
const MOST_BYTES_OF_INGRESS: usize = 4 * 1024;
/// Nesting of `ingress` at most; a deeper one could not be read back from the database.
const DEEPEST_INGRESS: usize = 16;

fn acme(acme: &Acme, kind: Kind, faults: &mut Faults) {
    if serde_json::to_vec(acme).map_or(0, |text| text.len()) > MOST_BYTES {
        faults.invalid("/acme", format!("is larger than {} KiB", MOST_BYTES / 1024));
        return;
    }
    field::url(&acme.server, &["https"], "/acme/server", faults);
    if acme.email.as_deref().is_some_and(|email| !is_email(email)) {
        faults.invalid("/acme/email", "is not an e-mail address");
    }
    if acme.profile.as_ref().is_some_and(|profile| profile.len() > 64) {
        faults.invalid("/acme/profile", "is longer than 64 characters");
    }
    if acme.preferred_chain.as_ref().is_some_and(|chain| chain.len() > 64) {
        faults.invalid("/acme/preferredChain", "is longer than 64 characters");
    }
    if let Some(reference) = &acme.private_key_secret_ref {
        token(reference, "/acme/privateKeySecretRef", faults);
    }
    if let Some(binding) = &acme.external_account_binding {
        external_account(binding, faults);
    }
    if let Some(bundle) = &acme.ca_bundle {
        if acme.skip_tls_verify {
            let detail = "says whom to trust, `skipTLSVerify` to trust anybody: give one of them";
            faults.add("/acme/caBundle", FieldCode::Conflicting, detail);
        }
        if !is_bundle(bundle) {
            faults.invalid("/acme/caBundle", "is not base64 of PEM certificates");
        }
    }
    limits::limits(acme.limits.as_ref(), "/acme/limits", faults);
    limits::retry(acme.retry.as_ref(), "/acme/retry", faults);
    if acme.solvers.is_empty() {
        let detail = "at least one solver is needed to prove names";
        faults.add("/acme/solvers", FieldCode::Required, detail);
    }
    for (place, one) in acme.solvers.iter().enumerate() {
        let pointer = format!("/acme/solvers/{place}");
        if let Some(selector) = &one.selector {
            namespaces(
                &selector.namespaces,
                kind,
                &format!("{pointer}/selector/namespaces"),
                faults,
            );
        }
        solver(one, &pointer, faults);
    }
}

fn external_account(binding: &ExternalAccountBinding, faults: &mut Faults) {
    let within = "/acme/externalAccountBinding";
    if binding.key_id.is_empty() || binding.key_id.len() > 1_024 {
        faults.invalid(format!("{within}/keyID"), "has 1 to 1024 characters");
    }
    if binding.key_algorithm.as_ref().is_some_and(|known| known != "HS256") {
        let detail = "is `HS256`, the only one that there is; leave it out";
        faults.add(format!("{within}/keyAlgorithm"), FieldCode::Unsupported, detail);
    }
    token(&binding.key_secret_ref, &format!("{within}/keySecretRef"), faults);
}

fn namespaces(given: &[String], kind: Kind, pointer: &str, faults: &mut Faults) {
    if kind == Kind::Issuer && !given.is_empty() {
        let detail = "an Issuer serves its own namespace only: leave it out";
        faults.add(pointer, FieldCode::Unsupported, detail);
        return;
    }
    for (place, namespace) in given.iter().enumerate() {
        field::namespace_at(namespace, &format!("{pointer}/{place}"), faults);
    }
}

fn solver(solver: &Solver, pointer: &str, faults: &mut Faults) {
    match (&solver.http01, &solver.dns01) {
        (Some(_), Some(_)) => {
            let detail = "is one of `http01` and `dns01`; write two solvers for both";
            faults.add(pointer, FieldCode::Conflicting, detail);
        }
        (None, None) => {
            let detail = "says how to prove names: `http01` or `dns01`";
            faults.add(pointer, FieldCode::Required, detail);
        }
        (Some(one), None) => ingress(one, &format!("{pointer}/http01/ingress"), faults),
        (None, Some(one)) => dns01(one, &format!("{pointer}/dns01"), faults),
    }
}

fn ingress(http01: &Http01, pointer: &str, faults: &mut Faults) {
    let Some(ingress) = &http01.ingress else { return };
    if !ingress.is_object() {
        faults.add(pointer, FieldCode::WrongType, "expected a mapping");
    } else if !is_within(ingress, DEEPEST_INGRESS) {
        faults.invalid(pointer, format!("is nested more than {DEEPEST_INGRESS} times"));
    } else if ingress.to_string().len() > MOST_BYTES_OF_INGRESS {
        let detail = format!("is larger than {} KiB", MOST_BYTES_OF_INGRESS / 1024);
        faults.invalid(pointer, detail);
    }
}

fn is_within(value: &Value, depth: usize) -> bool {
    let below = |value| depth.checked_sub(1).is_some_and(|depth| is_within(value, depth));
    match value {
        Value::Array(items) => items.iter().all(below),
        Value::Object(map) => map.values().all(below),
        _ => true,
    }
}

fn dns01(dns01: &Dns01, pointer: &str, faults: &mut Faults) {
    match dns01.provider() {
        None => {
            let detail = "names no provider; `cloudflare` is the one that there is";
            faults.add(format!("{pointer}/cloudflare"), FieldCode::Required, detail);
        }
        Some(provider) => {
            let (name, credential) = provider.fields();
            token(provider.secret_ref().0, &format!("{pointer}/{name}/{credential}"), faults);
            if let Some(base) = provider.base_url() {
                field::url(base, &["https", "http"], &format!("{pointer}/{name}/baseURL"), faults);
            }
        }
    }
    for (place, server) in dns01.nameservers.iter().enumerate() {
        if !is_name_server(server) {
            let detail = "is written `IP:PORT`, such as `192.0.2.53:53`";
            faults.invalid(format!("{pointer}/nameservers/{place}"), detail);
        }
    }
    cname_zones(dns01, &format!("{pointer}/cnameZones"), faults);
    let within = format!("{pointer}/propagation");
    let timeout = Some(&*dns01.propagation.timeout);
    let timeout = field::duration(timeout, &format!("{within}/timeout"), faults);
    field::duration(Some(&dns01.propagation.delay), &format!("{within}/delay"), faults);
    if timeout.is_some_and(time::Duration::is_zero) {
        faults.invalid(format!("{within}/timeout"), "leaves no time at all");
    }
}

fn cname_zones(dns01: &Dns01, pointer: &str, faults: &mut Faults) {
    if !dns01.cname_zones.is_empty() && dns01.cname_strategy == CnameStrategy::None {
        let detail = "no CNAME is followed: set `cnameStrategy: Follow`, or leave this out";
        faults.add(pointer, FieldCode::Conflicting, detail);
    }
    for (place, zone) in dns01.cname_zones.iter().enumerate() {
        let pointer = format!("{pointer}/{place}");
        match DnsName::parse(zone) {
            Ok(zone) if zone.is_wildcard() => {
                faults.invalid(pointer, "holds every name below it anyway: write it without `*.`");
            }
            Ok(_) => {}
            Err(invalid) => faults.invalid(pointer, invalid.problem),
        }
    }
}

fn token(selector: &SecretKeySelector, pointer: &str, faults: &mut Faults) {
    field::name(&selector.name, &format!("{pointer}/name"), faults);
    if selector.key.as_ref().is_some_and(String::is_empty) {
        faults.invalid(format!("{pointer}/key"), "is empty");
    }
}

/// A rough check: the CA decides.
fn is_email(text: &str) -> bool {
    let strange = |c: char| c.is_whitespace() || c.is_control() || "<>,;:?".contains(c);
    text.len() <= 254
        && !text.contains(strange)
        && text.split_once('@').is_some_and(|(local, domain)| {
            !local.is_empty() && domain.contains('.') && !domain.contains('@')
        })
}

fn is_bundle(text: &str) -> bool {
    let Ok(bytes) = STANDARD.decode(text.split_whitespace().collect::<String>()) else {
        return false;
    };
    let blocks: Result<Vec<_>, _> = Pem::iter_from_buffer(&bytes).collect();
    blocks.is_ok_and(|blocks| {
        !blocks.is_empty()
            && blocks.iter().all(|block| block.label == "CERTIFICATE" && block.parse_x509().is_ok())
    })
}

/// Name servers are given as addresses only.
fn is_name_server(text: &str) -> bool {
    text.parse::<SocketAddr>().is_ok_and(|address| address.port() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_server_is_written_with_its_port() {
        for good in ["192.0.2.53:53", "[2001:db8::1]:53"] {
            assert!(is_name_server(good), "{good}");
        }
        let named = "ns.example.com:5353";
        for bad in [named, "192.0.2.53", "2001:db8::1", ":53", "192.0.2.53:0", "http://ns:53"] {
            assert!(!is_name_server(bad), "{bad}");
        }
    }

    #[test]
    fn an_address_has_two_sides() {
        assert!(is_email("user@example.com"));
        for bad in ["", "user", "@example.com", "user@host", "a b@example.com", "a@b@c.d"] {
            assert!(!is_email(bad), "{bad}");
        }
    }

    #[test]
    fn a_bundle_holds_certificates() {
        assert!(!is_bundle("not base64"));
        assert!(!is_bundle(&STANDARD.encode("not PEM")));
        assert!(!is_bundle(
            &STANDARD.encode("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        ));
        let pair = rcgen::generate_simple_self_signed(vec!["ca.example".to_owned()]).unwrap();
        assert!(is_bundle(&STANDARD.encode(pair.cert.pem())));
    }
}
