//! Checks of a wanted certificate that need nothing but the request.

use std::collections::BTreeMap;
use std::net::IpAddr;

use time::{Duration, OffsetDateTime};

use crate::api::problem::{ApiError, Faults, FieldCode};
use crate::api::{field, limits};
use crate::domain::backoff::Retry;
use crate::domain::certificate::{Certificate, Spec};
use crate::domain::duration;
use crate::domain::id::CertificateId;
use crate::domain::name::DnsName;
use crate::domain::policy::AdmittedBy;
use crate::pki::{self, ClientCsr};

use crate::view::spec::CertificateSpec;

const MOST_NAMES: usize = 100;
const MOST_WEBHOOKS: usize = 16;

/// RFC 5280's bound for a common name.
const LONGEST_COMMON_NAME: usize = 64;

const KEPT_REVISIONS: u32 = 3;

/// cert-manager's bound.
const SHORTEST_LIFE: Duration = Duration::hours(1);

/// Ten years: longer than any CA's certificates, and short of the end of the calendar.
const LONGEST_LIFE: Duration = Duration::hours(87_600);

/// A wanted certificate whose fields are valid, in canonical form.
#[derive(Clone)]
pub(crate) struct Checked {
    pub(crate) namespace: String,
    /// The given name, or one that is derived from the first DNS name.
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) spec: Spec,
    /// Each DNS name with the pointer to it in the request.
    pub(super) names: Vec<(DnsName, String)>,
    /// Each address with the pointer to it in the request.
    pub(super) addresses: Vec<(IpAddr, String)>,
    /// The public key of the client's CSR.
    pub(super) public_key: Option<Vec<u8>>,
}

impl Checked {
    /// The certificate as it is stored first, waiting to be issued.
    pub(crate) fn certificate(
        &self,
        id: CertificateId,
        admitted_by: AdmittedBy,
        now: OffsetDateTime,
    ) -> Certificate {
        let name = (self.namespace.as_str(), self.name.as_str());
        Certificate {
            labels: self.labels.clone(),
            ..Certificate::wanted(id, name, self.spec.clone(), admitted_by, now)
        }
    }
}

/// Validates a wanted certificate. All faults are reported at once.
pub(crate) fn validate(given: &CertificateSpec) -> Result<Checked, ApiError> {
    let mut faults = Faults::default();
    let namespace = given.namespace.clone().unwrap_or_else(|| field::DEFAULT_NAMESPACE.to_owned());
    field::namespace(&namespace, &mut faults);
    if let Some(name) = &given.name {
        field::name(name, "/name", &mut faults);
    }
    field::labels(&given.labels, &mut faults);
    life(given, &mut faults);
    let csr = client_csr(given, &mut faults);
    renewal(given, &mut faults);
    limits::retry(given.retry.as_ref(), "/retry", &mut faults);
    let private_key = given.private_key.clone().unwrap_or_default();
    if private_key.kind().is_none() {
        let detail = "is 256 or 384 for ECDSA, and 2048, 3072 or 4096 for RSA";
        faults.invalid("/privateKey/size", detail);
    }
    if given.profile.as_ref().is_some_and(|profile| profile.is_empty() || profile.len() > 64) {
        faults.invalid("/profile", "has 1 to 64 characters");
    }
    match given.revision_history_limit {
        Some(0) => {
            faults.invalid("/revisionHistoryLimit", "is at least 1: what is served is kept");
        }
        // cert-manager has an `int32` there.
        Some(limit) if i32::try_from(limit).is_err() => {
            faults.invalid("/revisionHistoryLimit", format!("is at most {}", i32::MAX));
        }
        _ => {}
    }
    if given.webhooks.len() > MOST_WEBHOOKS {
        faults.invalid("/webhooks", format!("there are at most {MOST_WEBHOOKS}"));
    }
    let asked = match (&given.csr, &csr) {
        (Some(_), None) => AskedFor::default(),
        (_, Some(csr)) => names_of_csr(csr, &mut faults),
        (None, None) => names(given, &mut faults),
    };
    faults.refuse()?;
    let AskedFor { names, addresses, common_name } = asked;
    Ok(Checked {
        namespace,
        name: given.name.clone().unwrap_or_else(|| derived_name(&names, &addresses)),
        labels: given.labels.clone(),
        spec: Spec {
            issuer_ref: given.issuer_ref.clone(),
            dns_names: names.iter().map(|(name, _)| name.as_str().to_owned()).collect(),
            ip_addresses: addresses.iter().map(|(address, _)| address.to_string()).collect(),
            common_name,
            private_key,
            csr: csr.as_ref().map(|csr| csr.pem.clone()),
            profile: given.profile.clone(),
            duration: given.duration.clone(),
            renew_before: given.renew_before.clone(),
            renew_before_percentage: given.renew_before_percentage,
            retry: given.retry.clone().and_then(Retry::canonical),
            revision_history_limit: given.revision_history_limit.unwrap_or(KEPT_REVISIONS),
            webhooks: given.webhooks.clone(),
        },
        names,
        addresses,
        public_key: csr.map(|csr| csr.public_key),
    })
}

/// Checks the wanted lifetime.
fn life(given: &CertificateSpec, faults: &mut Faults) {
    let life = field::duration(given.duration.as_deref(), "/duration", faults);
    if life.is_some_and(|life| !(SHORTEST_LIFE..=LONGEST_LIFE).contains(&life)) {
        faults.invalid("/duration", "is at least 1h, and at most 87600h");
    }
    let before = given.renew_before.as_deref().and_then(|text| duration::parse(text).ok());
    if let (Some(life), Some(before)) = (life, before)
        && before >= life
    {
        faults.invalid("/renewBefore", "is shorter than `duration`: it would never stop renewing");
    }
}

fn renewal(given: &CertificateSpec, faults: &mut Faults) {
    let before = field::duration(given.renew_before.as_deref(), "/renewBefore", faults);
    if before.is_some_and(Duration::is_zero) {
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

/// What a certificate is asked for: each name in canonical form, once, with its place in the request;
/// and the common name, which is one of them.
#[derive(Default)]
struct AskedFor {
    names: Vec<(DnsName, String)>,
    addresses: Vec<(IpAddr, String)>,
    common_name: Option<String>,
}

/// The client's CSR, if there is a usable one. Fields that repeat its contents are faults.
fn client_csr(given: &CertificateSpec, faults: &mut Faults) -> Option<ClientCsr> {
    let pem = given.csr.as_deref()?;
    let read = pki::read_csr(pem).map_err(|why| faults.invalid("/csr", why)).ok();
    for (pointer, is_given) in [
        ("/dnsNames", !given.dns_names.is_empty()),
        ("/ipAddresses", !given.ip_addresses.is_empty()),
        ("/commonName", given.common_name.is_some()),
        ("/privateKey", given.private_key.is_some()),
    ] {
        if is_given {
            let detail =
                "is what the CSR says; leave it out, or leave `csr` out to have a key made";
            faults.add(pointer, FieldCode::Conflicting, detail);
        }
    }
    read
}

/// A CSR goes to the CA as it is, under an order for these names in canonical form: CAs compare the two
/// and make no difference but between upper and lower case.
fn names_of_csr(csr: &ClientCsr, faults: &mut Faults) -> AskedFor {
    let mut found = AskedFor::default();
    if csr.dns_names.len() + csr.ip_addresses.len() > MOST_NAMES {
        faults.invalid("/csr", format!("has more than {MOST_NAMES} names"));
        return found;
    }
    for text in &csr.dns_names {
        match DnsName::parse(text) {
            Ok(name) if !text.eq_ignore_ascii_case(name.as_str()) => {
                let detail = format!(
                    "has a name in a form that CAs do not take in a CSR; make it with `{name}` instead"
                );
                faults.invalid("/csr", detail);
            }
            Ok(name) if found.names.iter().any(|(known, _)| *known == name) => {}
            Ok(name) => found.names.push((name, "/csr".to_owned())),
            Err(refusal) => faults.invalid("/csr", format!("names what cannot be: {refusal}")),
        }
    }
    for address in &csr.ip_addresses {
        if *address == address.to_canonical() {
            usable_address(*address, "/csr", &mut found.addresses, faults);
        } else {
            let canonical = address.to_canonical();
            let detail = format!(
                "has an IPv4 address in the form of IPv6; make it with `{canonical}` instead"
            );
            faults.invalid("/csr", detail);
        }
    }
    found.common_name = csr.common_name.as_ref().map(|name| name.to_ascii_lowercase());
    found
}

fn addresses(given: &CertificateSpec, faults: &mut Faults) -> Vec<(IpAddr, String)> {
    let mut found = Vec::new();
    for (place, text) in given.ip_addresses.iter().enumerate() {
        let pointer = format!("/ipAddresses/{place}");
        if let Ok(address) = text.parse::<IpAddr>() {
            // `::ffff:192.0.2.1` is 192.0.2.1 for CAs.
            usable_address(address.to_canonical(), &pointer, &mut found, faults);
        } else {
            let detail = "is not an IP address, such as `192.0.2.1` or `2001:db8::1`";
            faults.invalid(pointer, detail);
        }
    }
    found
}

/// Refuses addresses at which there can be no server. All else is for the CA to decide.
fn usable_address(
    address: IpAddr,
    pointer: &str,
    found: &mut Vec<(IpAddr, String)>,
    faults: &mut Faults,
) {
    if address.is_unspecified() || address.is_multicast() {
        faults.invalid(pointer, format!("`{address}` is nobody's address"));
    } else if !found.iter().any(|(known, _)| *known == address) {
        found.push((address, pointer.to_owned()));
    }
}

/// The name of a certificate whose request gives none.
fn derived_name(names: &[(DnsName, String)], addresses: &[(IpAddr, String)]) -> String {
    match (names.first(), addresses.first()) {
        (Some((name, _)), _) => name.as_str().replacen("*.", "wildcard.", 1),
        (None, Some((address, _))) => {
            let text = address.to_string().replace([':', '.'], "-");
            format!("ip-{}", text.trim_matches('-'))
        }
        (None, None) => String::new(),
    }
}

fn names(given: &CertificateSpec, faults: &mut Faults) -> AskedFor {
    let mut names: Vec<(DnsName, String)> = Vec::new();
    let addresses = addresses(given, faults);
    if given.dns_names.len() + given.ip_addresses.len() > MOST_NAMES {
        faults.invalid("/dnsNames", format!("there are at most {MOST_NAMES} names"));
        return AskedFor::default();
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
    if given.dns_names.is_empty() && given.ip_addresses.is_empty() && given.common_name.is_none() {
        faults.add("/dnsNames", FieldCode::Required, "at least one name is needed");
    } else if names.len() + addresses.len() > MOST_NAMES {
        let detail = format!("there are at most {MOST_NAMES} names, and this is one more");
        faults.invalid("/commonName", detail);
    }
    AskedFor { names, addresses, common_name: common.map(|name| name.as_str().to_owned()) }
}
