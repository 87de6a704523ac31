//! The columns of `get`: kubectl's, for each kind.

use std::collections::BTreeMap;

use serde_json::Value;
use time::OffsetDateTime;

use super::names::Names;
use super::output::{age, condition, moment, text};
use crate::manifest::kind::Kind;

/// A column: its heading, whether only `-o wide` shows it, and what stands in it.
pub(super) type Column = (&'static str, bool, fn(&Value, &Around) -> String);

/// What columns show that is not in the resource itself.
pub(super) struct Around {
    /// Now.
    pub(super) now: OffsetDateTime,
    /// Names of issuers by the paths of certificates and issuers.
    pub(super) issuers: BTreeMap<String, String>,
    /// Names of what events are about.
    pub(super) names: Names,
}

impl Around {
    fn issuer(&self, value: &Value) -> String {
        let of = |field: &str| self.issuers.get(value.get(field)?.as_str()?).cloned();
        of("issuer").or_else(|| of("certificate")).unwrap_or_default()
    }
}

/// The columns of a kind.
pub(super) fn columns(kind: Kind) -> &'static [Column] {
    match kind {
        Kind::Certificate => CERTIFICATE,
        Kind::Request => REQUEST,
        Kind::Order => ORDER,
        Kind::Challenge => CHALLENGE,
        Kind::Issuer | Kind::ClusterIssuer => ISSUER,
        Kind::Policy => POLICY,
        Kind::Secret => SECRET,
        Kind::Webhook => WEBHOOK,
        Kind::Event => EVENT,
    }
}

const NAME: Column = ("NAME", false, |value, _| text(value, "/name"));
const AGE: Column = ("AGE", false, |value, around| age(value, around.now));
const READY: Column = ("READY", false, |value, _| condition(value, "Ready", "status"));
const STATUS: Column = ("STATUS", true, |value, _| condition(value, "Ready", "message"));

const CERTIFICATE: &[Column] = &[
    NAME,
    READY,
    // There is no Secret, but scripts that count kubectl's columns expect this one.
    ("SECRET", false, |_, _| "<none>".to_owned()),
    ("ISSUER", true, |value, _| text(value, "/issuerRef/name")),
    ("STATUS", true, |value, _| match value.pointer("/status/lastError") {
        Some(Value::Object(_)) => condition(value, "Issuing", "message"),
        _ => condition(value, "Ready", "message"),
    }),
    ("EXPIRATION", true, |value, _| text(value, "/status/notAfter")),
    AGE,
];

const REQUEST: &[Column] = &[
    NAME,
    ("APPROVED", false, |value, _| condition(value, "Approved", "status")),
    ("DENIED", false, |value, _| condition(value, "Denied", "status")),
    READY,
    ("ISSUER", false, |value, around| around.issuer(value)),
    ("REQUESTER", false, |value, _| match value.pointer("/requestedBy/name") {
        Some(Value::String(name)) => name.clone(),
        // Made before it was kept who asked.
        _ => "certwright".to_owned(),
    }),
    STATUS,
    AGE,
];

const ORDER: &[Column] = &[
    NAME,
    ("STATE", false, |value, _| text(value, "/state")),
    ("ISSUER", true, |value, around| around.issuer(value)),
    ("REASON", true, |value, _| text(value, "/lastError/detail")),
    AGE,
];

const CHALLENGE: &[Column] = &[
    NAME,
    ("STATE", false, |value, _| text(value, "/state")),
    ("DOMAIN", false, |value, _| text(value, "/dnsName")),
    ("REASON", true, |value, _| text(value, "/reason")),
    AGE,
];

const ISSUER: &[Column] = &[NAME, READY, STATUS, AGE];

const POLICY: &[Column] = &[
    NAME,
    ("NAMESPACES", false, |value, _| joined(value, "/namespaces", "")),
    ("NAMES", false, |value, _| joined(value, "/names", "/pattern")),
    ("ISSUERS", true, |value, _| joined(value, "/issuers", "/name")),
    ("APPROVAL", true, |value, _| text(value, "/approval")),
    AGE,
];

const SECRET: &[Column] = &[
    NAME,
    ("DATA", false, |value, _| match value.get("keys") {
        Some(Value::Array(keys)) => keys.len().to_string(),
        _ => String::new(),
    }),
    AGE,
];

const WEBHOOK: &[Column] = &[
    NAME,
    ("URL", false, |value, _| text(value, "/url")),
    ("EVENTS", true, |value, _| events(value)),
    ("PHASE", false, |value, _| text(value, "/status/phase")),
    ("MESSAGE", true, |value, _| text(value, "/status/message")),
    AGE,
];

const EVENT: &[Column] = &[
    ("LAST SEEN", false, |value, around| {
        moment(value, "/lastSeen")
            .map(|seen| super::output::duration(around.now - seen))
            .unwrap_or_default()
    }),
    ("TYPE", false, |value, _| text(value, "/type")),
    ("REASON", false, |value, _| text(value, "/reason")),
    ("OBJECT", false, |value, around| around.names.of(value)),
    ("MESSAGE", false, |value, _| text(value, "/message")),
];

/// A part of each item of a list.
fn joined(value: &Value, list: &str, part: &str) -> String {
    let items = value.pointer(list).and_then(Value::as_array);
    let words = items.into_iter().flatten().map(|item| text(item, part));
    words.collect::<Vec<_>>().join(",")
}

/// The event types of a webhook; all if none is named.
fn events(value: &Value) -> String {
    let named = value.get("events").and_then(Value::as_array);
    let words: Vec<_> = named.into_iter().flatten().filter_map(Value::as_str).collect();
    if words.is_empty() { "*".to_owned() } else { words.join(",") }
}
