//! Asks DNS providers whether they let proofs be written, and the DNS whether CAA records let the CA issue, with
//! no order placed.

use std::time::Duration;

use crate::domain::backoff::Jitter;
use crate::domain::caa::dnssec_fails;
use crate::domain::certificate::{Certificate, Transition};
use crate::domain::challenge::{Kind, Proof};
use crate::domain::failure::{Failure, code};
use crate::domain::id::ChallengeId;
use crate::domain::issuer::{self, Issuer};
use crate::domain::selection::pick_for_name;
use crate::worker::context::Context;
use crate::worker::credentials::dns_credential;
use crate::worker::error::{Tried, WorkerError};
use crate::worker::preflight::{Findings, Subject, examine};

/// Time for all names of a certificate.
const WITHIN: Duration = Duration::from_mins(1);

/// Rehearses, and has the certificate say what comes of it.
pub(super) async fn run(
    ctx: &Context,
    certificate: Certificate,
    issuer: &Issuer,
) -> Result<Transition, WorkerError> {
    let is_of_caa = certificate.last_error.as_ref().is_some_and(|it| it.is(code::CAA_FORBIDS));
    let rehearsal = async {
        if is_of_caa {
            look(ctx, &certificate, issuer).await
        } else {
            ask(ctx, &certificate, issuer).await
        }
    };
    let asked = tokio::time::timeout(WITHIN, rehearsal).await;
    let said = match asked {
        Ok(Ok(())) => Ok(()),
        Ok(Err(trouble)) => Err(trouble.into_failure()?),
        Err(_) => Err(Failure::timed_out("Writing a record took too long", WITHIN)),
    };
    Ok(certificate.rehearsed(said, ctx.clock.now(), Jitter::random()))
}

/// Looks at the CAA records again. That they cannot be looked up says nothing about what they forbade.
async fn look(ctx: &Context, certificate: &Certificate, issuer: &Issuer) -> Tried<()> {
    let Certificate { namespace, labels, .. } = certificate;
    let subject = Subject { issuer, namespace, labels, names: &certificate.spec.names() };
    let identities = ctx.ca.of(issuer.kind).caa_identities(&issuer.acme).await?;
    match examine(&ctx.solvers, &identities, &subject, ctx.clock.now()).await {
        Findings { forbidden: Some(failure), .. } => Err(failure.into()),
        Findings { bogus: Some(name), .. } => {
            Err(Failure::of(code::DNS_LOOKUP_FAILED, dnssec_fails(&name)).into())
        }
        Findings { unknown: Some(why), .. } => {
            Err(Failure::of(code::DNS_LOOKUP_FAILED, why).into())
        }
        Findings { forbidden: None, bogus: None, unknown: None } => Ok(()),
    }
}

/// Writes a record like that of a proof for each name, and removes it, until one is refused.
async fn ask(ctx: &Context, certificate: &Certificate, issuer: &Issuer) -> Tried<()> {
    for name in &certificate.spec.dns_names {
        let domain = name.strip_prefix("*.").unwrap_or(name);
        let (solvers, labels) = (&issuer.acme.solvers, &certificate.labels);
        let picked = pick_for_name(solvers, name, &certificate.namespace, labels);
        let Some((_, configured, Kind::Dns01)) = picked else { continue };
        let provider = configured.dns01.as_ref().and_then(issuer::Dns01::provider);
        let secret = match provider {
            Some(provider) => Some(dns_credential(ctx, issuer, provider).await?),
            None => None,
        };
        let solver = ctx.solvers.solver(issuer.kind, configured, secret.as_ref())?;
        let challenge = ChallengeId::generate(ctx.clock.now());
        let proof = Proof {
            challenge,
            domain: domain.to_owned(),
            token: challenge.to_string(),
            key_authorization: challenge.to_string(),
        };
        let record = solver.present(&proof).await?;
        solver.clean_up(&proof, record.as_ref()).await?;
    }
    Ok(())
}
