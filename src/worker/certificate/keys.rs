//! The key and CSR of an attempt: new, kept, or the client's.

use tokio::task::JoinError;

use crate::domain::certificate::{Certificate, KeyKind, RotationPolicy};
use crate::domain::event::Event;
use crate::domain::failure::{Failure, code};
use crate::domain::id::RequestId;
use crate::pki;
use crate::secret::{Place, Sealed, Secret};
use crate::storage::{requests, revisions};
use crate::worker::context::Context;
use crate::worker::error::WorkerError;

/// Key and CSR of an attempt.
pub(super) struct KeyAndCsr {
    /// DER.
    pub(super) csr: Vec<u8>,
    /// Sealed for the attempt; `None` where the client holds the key.
    pub(super) sealed: Option<Sealed>,
    /// A remark for people.
    pub(super) event: Option<Event>,
}

/// Key and CSR for an attempt, or why there can be none until a person acts.
pub(super) async fn key_and_csr(
    ctx: &Context,
    certificate: &Certificate,
    request: RequestId,
) -> Result<Result<KeyAndCsr, Failure>, WorkerError> {
    if let Some(pem) = &certificate.spec.csr {
        return clients_csr(ctx, certificate, pem).await;
    }
    let (key, event) = key_for(ctx, certificate).await?;
    let sealed = ctx.sealer.seal(&place(certificate, request), key.expose())?;
    let (names, common) = (certificate.spec.names(), certificate.spec.common_name.clone());
    let sign = move || pki::make_csr(&key, &names, common.as_deref());
    let csr = by_a_key(ctx, certificate.spec.private_key.kind(), sign).await??;
    Ok(Ok(KeyAndCsr { csr, sealed: Some(sealed), event }))
}

fn place(certificate: &Certificate, request: RequestId) -> Place {
    requests::private_key_place(&certificate.namespace, certificate.id, request)
}

async fn clients_csr(
    ctx: &Context,
    certificate: &Certificate,
    pem: &str,
) -> Result<Result<KeyAndCsr, Failure>, WorkerError> {
    let csr = match pki::read_csr(pem) {
        Ok(csr) => csr,
        Err(why) => {
            let failure = Failure::of(code::CSR_UNUSABLE, format!("It {why}."));
            return Ok(Err(failure));
        }
    };
    if certificate.key_is_compromised()
        && served_key(ctx, certificate).await?.is_some_and(|key| key == csr.public_key)
    {
        return Ok(Err(Failure::of(code::CSR_KEY_COMPROMISED, "")));
    }
    Ok(Ok(KeyAndCsr { csr: csr.der, sealed: None, event: None }))
}

/// The public key of what is served.
async fn served_key(
    ctx: &Context,
    certificate: &Certificate,
) -> Result<Option<Vec<u8>>, WorkerError> {
    let Some(issued) = &certificate.current else { return Ok(None) };
    let revision =
        revisions::find(&mut ctx.db.read().await?, certificate.id, issued.revision).await?;
    let Some(revision) = revision else { return Ok(None) };
    Ok(Some(pki::public_key_of_certificate(&pki::leaf(&revision.chain)?)?))
}

/// The present key where it may be kept and fits, else a new one; with a remark for people.
async fn key_for(
    ctx: &Context,
    certificate: &Certificate,
) -> Result<(Secret<Vec<u8>>, Option<Event>), WorkerError> {
    let wanted = &certificate.spec.private_key;
    // The API admits only kinds that can be made.
    let kind = wanted.kind().unwrap_or(KeyKind::P256);
    let mut event = None;
    if let (RotationPolicy::Never, Some(issued)) = (wanted.rotation_policy, &certificate.current) {
        let kept =
            revisions::private_key(&mut ctx.db.read().await?, certificate.id, issued.revision)
                .await?;
        // Where the client held the key so far there is none to keep.
        if let Some((Some(sealed), request)) = kept {
            let key = ctx.sealer.open(&place(certificate, request), &sealed)?;
            let why = match (certificate.key_is_compromised(), pki::fits(&key, kind)) {
                (false, true) => return Ok((key, None)),
                (true, _) => "the present one is compromised",
                (false, false) => "the present one is not of the kind that is wanted now",
            };
            let message =
                format!("KeyAndCsr a new private key although rotationPolicy is Never: {why}");
            event = Some(Event::warning(certificate.id, "PrivateKeyReplaced", message));
        }
    }
    let key = by_a_key(ctx, Some(kind), move || pki::generate_key(kind)).await??;
    Ok((key, event))
}

/// Making or using an RSA key keeps a core busy for long; keys on curves take less than it would to
/// wait for one.
async fn by_a_key<T: Send + 'static>(
    ctx: &Context,
    kind: Option<KeyKind>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    match kind {
        None | Some(KeyKind::P256 | KeyKind::P384) => Ok(work()),
        Some(KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096) => ctx.heavy.run(work).await,
    }
}
