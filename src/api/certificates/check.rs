//! What a client may ask for: everything that is known to fail is refused here.

use crate::api::field;
use crate::api::problem::{ApiError, Faults, FieldCode};
use crate::domain::certificate::Spec;
use crate::domain::challenge::Kind as ChallengeKind;
use crate::domain::issuer::{Issuer, Kind};
use crate::domain::name::DnsName;
use crate::domain::selection::pick_solver;
use crate::storage::{Tx, issuers};

use super::spec::CertificateSpec;

const MOST_NAMES: usize = 100;

/// RFC 5280's bound for a common name.
const LONGEST_COMMON_NAME: usize = 64;

const KEPT_REVISIONS: u32 = 3;

/// What a client asks for, understood.
pub(crate) struct Checked {
    /// Whose it is.
    pub(crate) namespace: String,
    /// Given, or derived from the first name.
    pub(crate) name: String,
    /// In canonical form.
    pub(crate) spec: Spec,
    /// Each name with its place in the request.
    names: Vec<(DnsName, String)>,
}

/// Checks all that can be told from the request alone.
pub(crate) fn check(given: &CertificateSpec) -> Result<Checked, ApiError> {
    let mut faults = Faults::default();
    let namespace = given.namespace.clone().unwrap_or_else(|| field::DEFAULT_NAMESPACE.to_owned());
    field::namespace(&namespace, &mut faults);
    if let Some(name) = &given.name {
        field::name(name, "/name", &mut faults);
    }
    field::labels(&given.labels, &mut faults);
    unsupported(given, &mut faults);
    renewal(given, &mut faults);
    let private_key = given.private_key.clone().unwrap_or_default();
    if private_key.kind().is_none() {
        let detail = "is 256 or 384 for ECDSA, and 2048, 3072 or 4096 for RSA";
        faults.invalid("/privateKey/size", detail);
    }
    if given.profile.as_ref().is_some_and(|profile| profile.is_empty() || profile.len() > 64) {
        faults.invalid("/profile", "has 1 to 64 characters");
    }
    if given.revision_history_limit == Some(0) {
        faults.invalid("/revisionHistoryLimit", "is at least 1: what is served is kept");
    }
    let (names, common_name) = names(given, &mut faults);
    faults.refuse()?;
    let first = names.first().map(|(name, _)| name.as_str()).unwrap_or_default();
    Ok(Checked {
        namespace,
        name: given.name.clone().unwrap_or_else(|| first.replacen("*.", "wildcard.", 1)),
        spec: Spec {
            issuer_ref: given.issuer_ref.clone(),
            dns_names: names.iter().map(|(name, _)| name.as_str().to_owned()).collect(),
            common_name,
            private_key,
            profile: given.profile.clone(),
            renew_before: given.renew_before.clone(),
            renew_before_percentage: given.renew_before_percentage,
            revision_history_limit: given.revision_history_limit.unwrap_or(KEPT_REVISIONS),
        },
        names,
    })
}

impl Checked {
    /// Checks that the issuer is there, and has a solver for every name.
    pub(crate) async fn check_issuer(
        &self,
        tx: &mut Tx,
        given: &CertificateSpec,
    ) -> Result<Issuer, ApiError> {
        let wanted = &self.spec.issuer_ref;
        let found = issuers::find_by_name(tx, wanted.kind, &self.namespace, &wanted.name).await?;
        let Some((issuer, _)) = found else { return Err(self.no_issuer()) };
        let mut faults = Faults::default();
        for (name, pointer) in &self.names {
            let (domain, wildcard) = (name.base(), name.is_wildcard());
            let kinds: &[ChallengeKind] = if wildcard {
                &[ChallengeKind::Dns01]
            } else {
                &[ChallengeKind::Http01, ChallengeKind::Dns01]
            };
            let solvers = &issuer.acme.solvers;
            if pick_solver(solvers, domain, wildcard, &given.labels, kinds).is_none() {
                let why = if wildcard { ": a wildcard needs one with dns01" } else { "" };
                let detail = format!(
                    "the issuer `{}` has no solver whose selector fits `{name}`{why}",
                    issuer.name
                );
                faults.add(pointer, FieldCode::NoSolver, detail);
            }
        }
        faults.refuse().map(|()| issuer)
    }

    fn no_issuer(&self) -> ApiError {
        let wanted = &self.spec.issuer_ref;
        let detail = match wanted.kind {
            Kind::Issuer => format!(
                "there is no Issuer `{}` in the namespace `{}`; create it with POST /issuers, or say `\"kind\": \"ClusterIssuer\"` if you mean one that serves all namespaces",
                wanted.name, self.namespace
            ),
            Kind::ClusterIssuer => format!(
                "there is no ClusterIssuer `{}`; create it with POST /issuers, or leave `kind` out if you mean an Issuer of the namespace `{}`",
                wanted.name, self.namespace
            ),
        };
        ApiError::field("/issuerRef/name", FieldCode::IssuerNotFound, detail)
    }
}

fn unsupported(given: &CertificateSpec, faults: &mut Faults) {
    if !given.ip_addresses.is_empty() {
        let detail = "certificates for IP addresses are not supported yet; leave it empty";
        faults.add("/ipAddresses", FieldCode::Unsupported, detail);
    }
    if given.csr.is_some() {
        let detail = "a CSR of your own is not supported yet; leave it out";
        faults.add("/csr", FieldCode::Unsupported, detail);
    }
    if given.duration.is_some() {
        let detail =
            "an ACME CA decides how long a certificate lives; leave it out, or choose a `profile`";
        faults.add("/duration", FieldCode::Unsupported, detail);
    }
}

fn renewal(given: &CertificateSpec, faults: &mut Faults) {
    let before = field::duration(given.renew_before.as_deref(), "/renewBefore", faults);
    if before.is_some_and(time::Duration::is_zero) {
        faults.invalid("/renewBefore", "leaves no time to renew");
    }
    if given.renew_before_percentage.is_some_and(|percent| !(1..=99).contains(&percent)) {
        faults.invalid("/renewBeforePercentage", "is a number from 1 to 99");
    }
    if given.renew_before.is_some() && given.renew_before_percentage.is_some() {
        let detail = "is given instead of `renewBefore`, not beside it";
        faults.add("/renewBeforePercentage", FieldCode::Conflicting, detail);
    }
}

/// The names in canonical form, each once and with its place in the request; and the common name,
/// which is one of them.
fn names(given: &CertificateSpec, faults: &mut Faults) -> (Vec<(DnsName, String)>, Option<String>) {
    let mut names: Vec<(DnsName, String)> = Vec::new();
    if given.dns_names.len() > MOST_NAMES {
        faults.invalid("/dnsNames", format!("there are at most {MOST_NAMES} names"));
        return (names, None);
    }
    for (place, text) in given.dns_names.iter().enumerate() {
        let pointer = format!("/dnsNames/{place}");
        match DnsName::parse(text) {
            Ok(name) if names.iter().any(|(known, _)| *known == name) => {}
            Ok(name) => names.push((name, pointer)),
            Err(refusal) => faults.invalid(pointer, refusal.to_string()),
        }
    }
    let common = given.common_name.as_deref().and_then(|text| match DnsName::parse(text) {
        Ok(name) if name.as_str().len() > LONGEST_COMMON_NAME => {
            faults.invalid("/commonName", format!("has at most {LONGEST_COMMON_NAME} characters"));
            None
        }
        Ok(name) => Some(name),
        Err(refusal) => {
            faults.invalid("/commonName", refusal.to_string());
            None
        }
    });
    if let Some(common) = &common
        && !names.iter().any(|(known, _)| known == common)
    {
        names.push((common.clone(), "/commonName".to_owned()));
    }
    if given.dns_names.is_empty() && given.common_name.is_none() {
        faults.add("/dnsNames", FieldCode::Required, "at least one name is needed");
    } else if names.len() > MOST_NAMES {
        let detail = format!("there are at most {MOST_NAMES} names, and this is one more");
        faults.invalid("/commonName", detail);
    }
    (names, common.map(|name| name.as_str().to_owned()))
}
