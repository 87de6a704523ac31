//! The same wish in other letters is the same wish: nothing is changed, and nothing issued.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use super::validate::validate;
use crate::api::merge_patch::MergePatch;
use crate::domain::certificate::Certificate;
use crate::domain::id::CertificateId;
use crate::domain::policy::AdmittedBy;
use crate::validation::from_value;
use crate::view::spec::CertificateSpec;

/// Spellings of each field that mean the same; `Value::Null` stands for a field that is not there, too.
fn spellings() -> Vec<(&'static str, Vec<Value>)> {
    vec![
        ("namespace", vec![json!("default"), Value::Null, json!("")]),
        (
            "commonName",
            vec![json!("a.example.com"), json!("A.Example.COM"), json!("a.example.com.")],
        ),
        (
            "ipAddresses",
            vec![json!(["2001:db8::1", "192.0.2.1"]), json!(["192.0.2.1", "2001:DB8:0:0::1"])],
        ),
        (
            "duration",
            vec![json!("48h"), json!("48h0m0s"), json!("2880m"), json!("2d"), json!("172800s")],
        ),
        ("renewBefore", vec![json!("12h"), json!("720m"), json!("12h0m0s"), json!("0.5h11.5h")]),
        (
            "privateKey",
            vec![
                json!({"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"}),
                json!({"size": 256}),
                json!({"size": null}),
                json!({}),
                Value::Null,
            ],
        ),
        ("profile", vec![Value::Null, json!("")]),
        (
            "retry",
            vec![json!({"initial": "10m", "max": "24h"}), json!({"max": "1d", "initial": "600s"})],
        ),
        ("labels", vec![Value::Null, json!({})]),
        ("csr", vec![Value::Null]),
        ("renewBeforePercentage", vec![Value::Null]),
        ("revisionHistoryLimit", vec![json!(3), Value::Null]),
        (
            "webhooks",
            vec![
                json!([
                    "019ab000-0000-7000-8000-000000000001",
                    "019ab000-0000-7000-8000-000000000002"
                ]),
                json!(["019AB000-0000-7000-8000-000000000002", "019ab000000070008000000000000001"]),
            ],
        ),
    ]
}

/// One of the spellings of every field, with the names in any order and case, and some of them twice.
fn respelling() -> impl Strategy<Value = Map<String, Value>> {
    let names = ["a.example.com", "b.example.com", "*.c.example.com", "bücher.example.com"];
    let others =
        ["A.EXAMPLE.com", "b.example.com.", "*.C.example.com", "xn--bcher-kva.example.com"];
    let twice = subsequence(others.to_vec(), 0..=4);
    let every = (Just(names.to_vec()), twice).prop_map(|(names, twice)| [names, twice].concat());
    let fields: Vec<_> = spellings()
        .into_iter()
        .map(|(field, spellings)| {
            (select(spellings), any::<bool>())
                .prop_map(move |(value, left_out)| (field, value, left_out))
        })
        .collect();
    (every.prop_shuffle(), fields).prop_map(|(names, fields)| {
        let mut spec = Map::from_iter([
            ("name".to_owned(), json!("web")),
            ("issuerRef".to_owned(), json!({"name": "le"})),
            ("dnsNames".to_owned(), json!(names)),
        ]);
        for (field, value, left_out) in fields {
            if !(value.is_null() && left_out) {
                spec.insert(field.to_owned(), value);
            }
        }
        spec
    })
}

fn read(spec: Map<String, Value>) -> CertificateSpec {
    from_value(&Value::Object(spec)).unwrap_or_else(|refusal| panic!("{refusal:?}"))
}

fn stored(spec: &CertificateSpec) -> Certificate {
    let now = OffsetDateTime::UNIX_EPOCH;
    let checked = validate(spec).unwrap_or_else(|error| panic!("{error:?}"));
    let right = AdmittedBy::Policy("all".to_owned());
    checked.certificate(CertificateId::generate(now), right, now)
}

fn respecified(present: &Certificate, spec: &CertificateSpec) -> Certificate {
    let checked = validate(spec).unwrap_or_else(|error| panic!("{error:?}"));
    assert!(present.spec.wants_the_same_as(&checked.spec), "{:?}", checked.spec);
    let now = OffsetDateTime::UNIX_EPOCH + time::Duration::days(1);
    let right = present.admitted_by.clone();
    present.clone().respecified(checked.spec, checked.labels, right, now).certificate
}

proptest! {
    #[test]
    fn a_respelled_wish_changes_nothing(one in respelling(), other in respelling()) {
        let present = stored(&read(one));

        prop_assert_eq!(&respecified(&present, &read(other.clone())), &present, "as a whole");
        // `name` and `namespace` are fixed, and an empty namespace is none.
        let fields = other.into_iter().filter(|(field, value)| {
            // In a patch `null` and an empty text remove what is there, and an empty map changes nothing.
            !["namespace", "name"].contains(&field.as_str()) && !value.is_null()
        });
        let patched = MergePatch(fields.collect()).apply(&CertificateSpec::from(&present), &[]);
        let patched = patched.unwrap_or_else(|error| panic!("{error:?}"));
        prop_assert_eq!(&respecified(&present, &patched), &present, "as a patch");
    }

    // Rows that were written before there was one spelling, as what was exported of them.
    #[test]
    fn what_was_stored_in_other_words_is_read_in_the_one_spelling(one in respelling()) {
        let spec = stored(&read(one)).spec;
        let mut old = serde_json::to_value(&spec).unwrap();
        old["renewBefore"] = json!("720m");
        old["duration"] = json!("2days");
        let read: crate::domain::certificate::Spec = serde_json::from_value(old).unwrap();

        prop_assert_eq!(read.renew_before.as_deref(), Some("12h"));
        prop_assert_eq!(read.duration.as_deref(), Some("48h"));
        prop_assert!(read.means(&spec));
    }
}

#[test]
fn another_wish_is_another_one() {
    let wish = |more: Value| {
        let mut spec = Map::from_iter([
            ("issuerRef".to_owned(), json!({"name": "le"})),
            ("dnsNames".to_owned(), json!(["a.example.com", "b.example.com"])),
        ]);
        spec.extend(more.as_object().cloned().unwrap_or_default());
        stored(&read(spec)).spec
    };
    let present = wish(json!({}));
    for (more, anew) in [
        (json!({"dnsNames": ["a.example.com"]}), true),
        (json!({"dnsNames": ["a.example.com", "b.example.com", "c.example.com"]}), true),
        (json!({"commonName": "a.example.com"}), true),
        (json!({"issuerRef": {"name": "le", "kind": "ClusterIssuer"}}), true),
        (json!({"privateKey": {"size": 384}}), true),
        (json!({"profile": "short"}), true),
        (json!({"duration": "48h"}), true),
        (json!({"renewBefore": "48h"}), false),
        (json!({"retry": {"initial": "10m"}}), false),
        (json!({"revisionHistoryLimit": 4}), false),
    ] {
        let wanted = wish(more.clone());
        assert!(!present.means(&wanted), "{more}");
        assert_eq!(!present.wants_the_same_as(&wanted), anew, "{more}");
    }
}
