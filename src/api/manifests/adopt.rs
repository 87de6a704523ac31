//! Importing existing certificates with their keys, and keys of ACME accounts.

use std::collections::{BTreeMap, BTreeSet};

use time::OffsetDateTime;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::plan::{Item, Wanted};
use crate::api::AppState;
use crate::api::problem::{ApiError, FieldCode};
use crate::domain::ari::Ari;
use crate::domain::backoff::Jitter;
use crate::domain::certificate::{Certificate, Issued, Spec, Transition};
use crate::domain::id::{CertificateId, OrderId, RequestId};
use crate::pki::{self, Leaf, PkiError};
use crate::storage::Tx;
use crate::storage::requests::{self, Request, RequestState, private_key_place};
use crate::storage::revisions::{self, Revision};

/// A certificate that exists, with its key and what the two say about themselves.
pub(super) type Pair = pki::Adopted;

/// Moves the contents of a Secret into the certificate or issuer that needs it; returns whether that took
/// place. Faults are added to the Secret.
pub(super) fn take(source: &mut Item, target: &mut Item, now: OffsetDateTime) -> bool {
    match (&source.wanted, &mut target.wanted) {
        (Wanted::Pair(_, values), Wanted::Certificate(_, _, checked, pair)) => {
            match pair_of(values, now) {
                Ok(found) => {
                    if let Some(problem) = misfit(&found, &checked.spec) {
                        source.object.fault("", FieldCode::Conflicting, problem);
                    }
                    if !checked
                        .spec
                        .private_key
                        .kind()
                        .is_some_and(|kind| pki::fits(&found.key, kind))
                    {
                        let instead = "the imported key is of another kind; the next renewal makes one of this kind";
                        target.object.warn("spec.privateKey", instead);
                    }
                    *pair = Some(Box::new(found));
                }
                Err(fault) => source.object.fault(fault.0, FieldCode::Invalid, fault.1),
            }
            // A Secret with faults must stay an item, or its faults would be lost.
            source.object.is_sound()
        }
        (Wanted::Secret(_, values), Wanted::Issuer(issuer, account_key)) => {
            let reference = issuer.acme.private_key_secret_ref.as_ref();
            let key = reference.and_then(|reference| reference.key.as_deref()).unwrap_or("tls.key");
            let Some(text) = value_of(values, key) else { return false };
            match pki::import_key(&text) {
                Ok(key) if pki::is_account_key(&key) => *account_key = Some(key),
                Ok(_) => {
                    let instead = "its key is not ECDSA P-256, which is the only kind that accounts have here; the service makes a key and an account of its own, and nothing that was issued suffers from it";
                    target.object.warn("spec.acme.privateKeySecretRef", instead);
                }
                Err(error) => {
                    source.object.fault("", FieldCode::Invalid, error.to_string());
                    return false;
                }
            }
            true
        }
        _ => false,
    }
}

fn pair_of(values: &[u8], now: OffsetDateTime) -> Result<Pair, (&'static str, String)> {
    let needed = |key: &str| {
        value_of(values, key).ok_or_else(|| {
            ("", format!("it has no `{key}`, which a Secret of the type kubernetes.io/tls holds"))
        })
    };
    let (chain, key) = (needed("tls.crt")?, needed("tls.key")?);
    pki::adopt(&chain, &key, now).map_err(|error| match error {
        PkiError::Unusable(problem) => ("", format!("tls.crt cannot be imported: it {problem}")),
        error => ("", error.to_string()),
    })
}

/// One of the values that are to be sealed.
fn value_of(values: &[u8], key: &str) -> Option<Zeroizing<String>> {
    let mut all: BTreeMap<String, Zeroizing<String>> = serde_json::from_slice(values).ok()?;
    all.remove(key)
}

/// The reason why a certificate does not fit the specification, if it does not.
fn misfit(pair: &Pair, spec: &Spec) -> Option<String> {
    if spec.csr.is_some() {
        let problem = "the Certificate has a `csr`, so that its key stays with the client and is not imported; leave one of them out";
        return Some(problem.to_owned());
    }
    let has: BTreeSet<String> = pair.names.iter().cloned().collect();
    let wants: BTreeSet<String> = spec.names().into_iter().collect();
    (has != wants).then(|| {
        let list = |names: BTreeSet<String>| names.into_iter().collect::<Vec<_>>().join(", ");
        format!("its certificate is for {}; the Certificate wants {}", list(has), list(wants))
    })
}

/// The certificate with the imported one as its first revision.
pub(super) fn adopted(certificate: Certificate, pair: &Pair, now: OffsetDateTime) -> Transition {
    let Leaf { serial, not_before, not_after, ari, .. } = pair.leaf.clone();
    let validity = (not_before, not_after);
    let jitter = spread(certificate.id);
    // Which account it was issued to is not known, so that no order says that it replaces it.
    let ari = ari.map(|name| Ari {
        issued_at: not_before,
        ..Ari::new(name, String::new(), validity, now, jitter)
    });
    let renewal_time = certificate.renewal(not_before, not_after, ari.as_ref());
    let issued = Issued { revision: 1, serial, not_before, not_after, renewal_time };
    certificate.imported(issued, ari, now)
}

/// Spreads questions to the CA about certificates that are imported together.
fn spread(id: CertificateId) -> Jitter {
    let [.., a, b, c, d] = *id.0.as_bytes();
    Jitter::new(f64::from(u32::from_be_bytes([a, b, c, d])) / f64::from(u32::MAX))
}

/// Stores chain and key of a certificate that was stored as [`adopted`].
pub(super) async fn store(
    app: &AppState,
    tx: &mut Tx,
    certificate: &Certificate,
    pair: &Pair,
    now: OffsetDateTime,
) -> Result<(), ApiError> {
    // An imported certificate has no order.
    let (request, order) = (RequestId::generate(now), OrderId(Uuid::nil()));
    let place = private_key_place(&certificate.namespace, certificate.id, request);
    let sealed = app.sealer.seal(&place, pair.key.expose())?;
    let attempt = Request {
        id: request,
        name: format!("{}-1", certificate.name),
        certificate: certificate.id,
        namespace: certificate.namespace.clone(),
        revision: 1,
        csr: pair.csr.clone(),
        state: RequestState::Issued,
        message: "The certificate was imported".to_owned(),
        order,
        requested_by: certificate.requested_by.clone(),
        approval: None,
        created_at: now,
        finished_at: Some(now),
    };
    requests::insert(tx, &attempt, &sealed).await?;
    let leaf = &pair.leaf;
    let revision = Revision {
        certificate: certificate.id,
        revision: 1,
        request,
        order,
        chain: pair.chain.clone(),
        serial: leaf.serial.clone(),
        fingerprint: leaf.fingerprint.clone(),
        not_before: leaf.not_before,
        not_after: leaf.not_after,
        issued_at: now,
        revoked_at: None,
    };
    revisions::insert(tx, &revision, 1, &attempt.message).await?;
    Ok(())
}
