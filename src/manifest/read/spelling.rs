//! Fields that there are not, and which one was probably meant.

use serde_json::Value;

use crate::manifest::kind::Kind;

/// Fields that are handled before a part is parsed, by the field of the manifest that they stand in.
#[rustfmt::skip]
const ALSO: [(Kind, &str, &[&str]); 7] = [
    (Kind::Certificate, "spec", &[
        "additionalOutputFormats", "emailAddresses", "encodeUsagesInRequest", "isCA", "keystores", "literalSubject",
        "nameConstraints", "otherNames", "renewal", "secretName", "secretTemplate", "signatureAlgorithm", "subject",
        "uris", "usages",
    ]),
    (Kind::Certificate, "issuerRef", &["group"]),
    (Kind::Certificate, "privateKey", &["encoding"]),
    (Kind::Issuer, "acme", &["disableAccountKeyGeneration"]),
    (Kind::Issuer, "solvers", &["waitInsteadOfSelfCheck"]),
    (Kind::Issuer, "http01", &["gatewayHTTPRoute"]),
    (Kind::Issuer, "dns01", &super::issuer::OTHER_PROVIDERS),
];

/// Fields that are listed where none of them is near; thousands of faults have to fit into an answer.
const MOST_LISTED: usize = 10;

/// Fields of the API's specification that stand in `metadata` in a manifest.
const IN_METADATA: [&str; 3] = ["labels", "name", "namespace"];

/// The fields that a manifest of this kind may have at a pointer, where the API's specification has `known` ones.
pub(super) fn fields<'k>(kind: Kind, pointer: &str, known: &[&'k str]) -> Vec<&'k str> {
    let kind = if kind == Kind::ClusterIssuer { Kind::Issuer } else { kind };
    let is_index = |token: &&str| token.bytes().all(|byte| byte.is_ascii_digit());
    let within = pointer.rsplit('/').find(|token| !is_index(token)).unwrap_or_default();
    let also = ALSO.iter().find(|(of, field, _)| (*of, *field) == (kind, within));
    let is_spec = pointer == "/spec";
    let ours = known.iter().filter(|field| !(is_spec && IN_METADATA.contains(field)));
    ours.chain(also.iter().flat_map(|(.., also)| *also)).copied().collect()
}

/// What is said of a field that there is not beside these.
pub(super) fn no_such_field(name: &str, known: &[&str]) -> String {
    let lower = name.to_ascii_lowercase();
    let near = known
        .iter()
        .map(|known| (strsim::jaro_winkler(&known.to_ascii_lowercase(), &lower), known))
        .max_by(|one, other| one.0.total_cmp(&other.0));
    match near {
        Some((likeness, near)) if likeness > 0.85 => {
            format!("there is no such field; did you mean `{near}`?")
        }
        Some(_) if known.len() > MOST_LISTED => {
            "there is no such field; docs/manifests.md lists those that there are".to_owned()
        }
        Some(_) => {
            let mut known = known.to_vec();
            known.sort_unstable();
            format!("there is no such field; there are `{}`", known.join("`, `"))
        }
        None => "there is no such field".to_owned(),
    }
}

/// Whether a value says nothing: `null`, an empty text, an empty list or map.
pub(super) fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_probably_meant_is_named_in_the_words_of_the_manifest() {
        let certificate = ["namespace", "name", "labels", "issuerRef", "dnsNames"];
        for (kind, pointer, known, typed, said) in [
            (Kind::Certificate, "/spec", &certificate[..], "dnsName", "did you mean `dnsNames`?"),
            (Kind::Certificate, "/spec", &certificate, "secretNames", "did you mean `secretName`?"),
            (Kind::Certificate, "/spec", &certificate, "ISCA", "did you mean `isCA`?"),
            (
                Kind::Certificate,
                "/spec/issuerRef",
                &["name", "kind"],
                "x",
                "there are `group`, `kind`, `name`",
            ),
            (
                Kind::ClusterIssuer,
                "/spec/acme/solvers/0/dns01",
                &["cloudflare"],
                "cloudfare",
                "did you mean `cloudflare`?",
            ),
            (
                Kind::Issuer,
                "/spec/acme/solvers/0/dns01",
                &["cloudflare"],
                "rute53",
                "did you mean `route53`?",
            ),
            (Kind::Policy, "/spec", &["name", "names"], "nme", "did you mean `names`?"),
        ] {
            let words = no_such_field(typed, &fields(kind, pointer, known));
            assert_eq!(words, format!("there is no such field; {said}"), "{typed}");
        }
    }
}
