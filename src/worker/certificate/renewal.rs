//! Asks CAs when they would like a certificate to be replaced (RFC 9773).

use crate::domain::ari::Answer;
use crate::domain::certificate::{Certificate, Transition};
use crate::domain::failure::Failure;
use crate::domain::issuer::Issuer;
use crate::worker::{STEP_TIMEOUT, Worker};

impl Worker {
    /// One question about one certificate that is served; whatever comes of it, it stays served.
    pub(in crate::worker) async fn ask_for_renewal(
        &self,
        certificate: Certificate,
        issuer: Option<&Issuer>,
    ) -> Transition {
        let about = certificate.ari.as_ref().map(|ari| ari.certificate.clone()).unwrap_or_default();
        let answer = match issuer {
            None => Answer::NotOffered,
            Some(issuer) => {
                let asked = self.ca.of(issuer.kind).renewal_information(&issuer.acme, &about);
                tokio::time::timeout(STEP_TIMEOUT, asked).await.unwrap_or_else(|_| {
                    Answer::Failed(Failure::timed_out(
                        "The CA did not give renewal information in time",
                        STEP_TIMEOUT,
                    ))
                })
            }
        };
        if let Answer::Failed(failure) = &answer {
            tracing::info!(certificate = %certificate.id, code = failure.code, %failure, "no renewal information");
        }
        certificate.ari_answered(&about, answer, self.clock.now(), crate::worker::jitter())
    }
}
