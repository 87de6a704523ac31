//! The key and CSR of an attempt: new, kept, or the client's.

use tokio::task::JoinError;

use crate::domain::certificate::{Certificate, KeyKind, RotationPolicy};
use crate::domain::event::{Event, Resource};
use crate::domain::failure::{Failure, code};
use crate::domain::id::RequestId;
use crate::pki;
use crate::secret::{Sealed, Secret};
use crate::storage::{requests, revisions};
use crate::worker::{Worker, WorkerError};

/// What an attempt is made with.
pub(in crate::worker) struct Made {
    /// DER.
    pub(in crate::worker) csr: Vec<u8>,
    /// Sealed for the attempt; `None` where the client holds the key.
    pub(in crate::worker) sealed: Option<Sealed>,
    /// What a person may want to know about it.
    pub(in crate::worker) event: Option<Event>,
}

impl Worker {
    /// Key and CSR for an attempt, or why there can be none until a person acts.
    pub(in crate::worker) async fn key_and_csr(
        &self,
        certificate: &Certificate,
        request: RequestId,
    ) -> Result<Result<Made, Failure>, WorkerError> {
        if let Some(pem) = &certificate.spec.csr {
            return self.clients_csr(certificate, pem).await;
        }
        let (key, event) = self.key_for(certificate).await?;
        let sealed = self.sealer.seal(&requests::private_key_place(request), key.expose())?;
        let (names, common) = (certificate.spec.names(), certificate.spec.common_name.clone());
        let sign = move || pki::make_csr(&key, &names, common.as_deref());
        let csr = self.by_a_key(certificate.spec.private_key.kind(), sign).await??;
        Ok(Ok(Made { csr, sealed: Some(sealed), event }))
    }

    async fn clients_csr(
        &self,
        certificate: &Certificate,
        pem: &str,
    ) -> Result<Result<Made, Failure>, WorkerError> {
        let csr = match pki::read_csr(pem) {
            Ok(csr) => csr,
            Err(why) => {
                let failure = Failure::of(code::CSR_UNUSABLE, format!("It {why}."));
                return Ok(Err(failure));
            }
        };
        if certificate.key_is_compromised()
            && self.served_key(certificate).await?.is_some_and(|key| key == csr.public_key)
        {
            return Ok(Err(Failure::of(code::CSR_KEY_COMPROMISED, "")));
        }
        Ok(Ok(Made { csr: csr.der, sealed: None, event: None }))
    }

    /// The public key of what is served.
    async fn served_key(&self, certificate: &Certificate) -> Result<Option<Vec<u8>>, WorkerError> {
        let Some(issued) = &certificate.current else { return Ok(None) };
        let mut tx = self.db.read().await?;
        let revision = revisions::find(&mut tx, certificate.id, issued.revision).await?;
        drop(tx);
        let Some(revision) = revision else { return Ok(None) };
        Ok(Some(pki::public_key_of_certificate(&pki::leaf(&revision.chain)?)?))
    }

    /// The present key where it may be kept and fits, else a new one.
    async fn key_for(
        &self,
        certificate: &Certificate,
    ) -> Result<(Secret<Vec<u8>>, Option<Event>), WorkerError> {
        let wanted = &certificate.spec.private_key;
        // The API admits only kinds that can be made.
        let kind = wanted.kind().unwrap_or(KeyKind::P256);
        let mut event = None;
        if let (RotationPolicy::Never, Some(issued)) =
            (wanted.rotation_policy, &certificate.current)
        {
            let about = Resource::Certificate(certificate.id);
            let mut tx = self.db.read().await?;
            let kept = revisions::private_key(&mut tx, certificate.id, issued.revision).await?;
            drop(tx);
            // Where the client held the key so far there is none to keep.
            if let Some((Some(sealed), request)) = kept {
                let key = self.sealer.open(&requests::private_key_place(request), &sealed)?;
                let why = match (certificate.key_is_compromised(), pki::fits(&key, kind)) {
                    (false, true) => return Ok((key, None)),
                    (true, _) => "the present one is compromised",
                    (false, false) => "the present one is not of the kind that is wanted now",
                };
                let message =
                    format!("Made a new private key although rotationPolicy is Never: {why}");
                event = Some(Event::warning(about, "PrivateKeyReplaced", message));
            }
        }
        let key = self.by_a_key(Some(kind), move || pki::generate_key(kind)).await??;
        Ok((key, event))
    }

    /// Making or using an RSA key keeps a core busy for long; keys on curves take less than it would to
    /// wait for one.
    async fn by_a_key<T: Send + 'static>(
        &self,
        kind: Option<KeyKind>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        match kind {
            None | Some(KeyKind::P256 | KeyKind::P384) => Ok(work()),
            Some(KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096) => {
                self.local.heavy.run(work).await
            }
        }
    }
}
