//! Streams of manifests: what is taken exports to a manifest that says the same.

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::datetime;
use uuid::Uuid;

use crate::api::certificates::validate::validate;
use crate::api::policies::check::check;
use crate::api::problem::{ApiError, Faults};
use crate::domain::certificate::Certificate;
use crate::domain::id::{CertificateId, PolicyId};
use crate::domain::policy::{AdmittedBy, Policy};
use crate::domain::text::{Lines, refuse};
use crate::manifest::kind::Kind;
use crate::manifest::read::{Object, certificate, issuer, policy, secret, stream};
use crate::manifest::write::manifest;
use crate::validation::Refusal;
use crate::view::spec::DEFAULT_NAMESPACE;
use crate::view::{CertificateView, PolicyView};

const NOW: OffsetDateTime = datetime!(2026-12-01 0:00 UTC);

pub(crate) fn manifests(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let objects = match stream(&text) {
        Ok(stream) => {
            are_bounded(&stream.faults);
            stream.foreign.iter().for_each(|one| is_shown(&one.name));
            stream.objects
        }
        Err(Refusal::Malformed(why)) => return is_shown(&why),
        Err(Refusal::Invalid(faults)) => return are_bounded(&faults),
    };
    for mut object in objects {
        match object.kind {
            Kind::Certificate => certificate_again(&mut object),
            Kind::Policy => policy_again(&mut object),
            Kind::Secret => drop(secret::read(&mut object, DEFAULT_NAMESPACE)),
            _ => issuer_again(&mut object),
        }
        assert!(object.warnings.len() <= 20, "{:?}", object.warnings);
        for words in &object.warnings {
            is_shown(words);
        }
        are_bounded(&object.take_faults());
    }
}

/// The one manifest of an export, read again.
fn again(kind: Kind, shown: &Value) -> Object {
    let text = manifest(kind, shown);
    match stream(&text).map(|mut all| (all.objects.pop(), all.objects.len())) {
        Ok((Some(object), 0)) if object.kind == kind => object,
        other => panic!("{other:?} of {text}"),
    }
}

fn certificate_again(object: &mut Object) {
    let Some(wish) = certificate::read(object, DEFAULT_NAMESPACE) else { return };
    let checked = match validate(&wish.spec) {
        Ok(checked) => checked,
        Err(refusal) => return is_refused(refusal),
    };
    let right = AdmittedBy::Administrator("fuzzed".to_owned());
    let stored: Certificate = checked.certificate(CertificateId(Uuid::nil()), right, NOW);
    let mut exported = again(Kind::Certificate, &json!(CertificateView::of(&stored, NOW)));
    let wish = certificate::read(&mut exported, DEFAULT_NAMESPACE).map(|wish| validate(&wish.spec));
    let Some(Ok(read)) = wish else { panic!("{:?} of {stored:?}", exported.take_faults()) };
    assert_eq!((&read.name, &read.namespace), (&checked.name, &checked.namespace));
    assert_eq!((&read.labels, &read.spec), (&checked.labels, &checked.spec));
}

fn policy_again(object: &mut Object) {
    let Some(wish) = policy::read(object) else { return };
    let spec = match check(&wish) {
        Ok(spec) => spec,
        Err(refusal) => return is_refused(refusal),
    };
    let (id, name) = (PolicyId(Uuid::nil()), wish.name);
    let stored = Policy { id, name, spec, generation: 1, created_at: NOW, updated_at: NOW };
    let mut exported = again(Kind::Policy, &json!(PolicyView::from(&stored)));
    let read = policy::read(&mut exported);
    let Some(read) = read else { panic!("{:?} of {stored:?}", exported.take_faults()) };
    let spec = check(&read);
    assert!(spec.is_ok_and(|spec| spec == stored.spec) && read.name == stored.name, "{stored:?}");
}

/// The rest of its checks asks the settings of the service, and changes nothing.
fn issuer_again(object: &mut Object) {
    let Some(wish) = issuer::read(object, DEFAULT_NAMESPACE) else { return };
    let shown = json!({"name": wish.name, "namespace": wish.namespace, "acme": wish.acme});
    let mut exported = again(object.kind, &shown);
    let read = issuer::read(&mut exported, DEFAULT_NAMESPACE);
    let Some(read) = read else { panic!("{:?} of {shown}", exported.take_faults()) };
    assert_eq!((&read.acme, &read.name), (&wish.acme, &wish.name));
    assert_eq!((read.kind, &read.namespace), (wish.kind, &wish.namespace));
}

fn is_refused(refusal: ApiError) {
    let ApiError::Invalid(faults) = refusal else { panic!("{refusal:?}") };
    are_bounded(&faults);
}

fn are_bounded(faults: &Faults) {
    assert!(faults.iter().count() <= 100);
    for fault in faults.iter() {
        is_shown(&fault.detail);
        assert!(fault.pointer.chars().count() <= 2_000, "{}", fault.pointer);
    }
}

fn is_shown(words: &str) {
    assert!(refuse(words, Lines::One).is_ok() && words.chars().count() <= 1_000, "{words:?}");
}
