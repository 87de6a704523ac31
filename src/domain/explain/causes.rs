//! The causes that are met most, each with its own words and what to do about it.

use time::OffsetDateTime;

use super::limited::limited;
use super::{name_of, text};
use crate::domain::caa::dnssec_fails;
use crate::domain::certificate::{Certificate, is_the_providers};
use crate::domain::challenge::{self, Challenge, Kind};
use crate::domain::failure::{Class, Failure, code};
use crate::domain::issuer::Issuer;
use crate::domain::limits::most_names;
use crate::domain::order::Order;

/// The cause of a failure and the actions that help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cause {
    pub summary: String,
    pub actions: Vec<String>,
}

impl Cause {
    pub(super) fn new(summary: impl Into<String>) -> Self {
        Self { summary: summary.into(), actions: Vec::new() }
    }

    pub(super) fn with(mut self, action: impl Into<String>) -> Self {
        self.actions.push(action.into());
        self
    }

    pub(super) fn with_some(mut self, action: Option<String>) -> Self {
        self.actions.extend(action);
        self
    }
}

/// The context of a cause.
#[derive(Debug, Default)]
pub(super) struct Context<'a> {
    pub issuer: Option<&'a Issuer>,
    pub order: Option<&'a Order>,
    pub certificate: Option<&'a Certificate>,
    /// Whether the order goes on by itself.
    pub on_its_way: bool,
}

impl Context<'_> {
    /// The challenge that failed, as far as can be told.
    fn challenge(&self) -> Option<&Challenge> {
        let all = &self.order?.challenges;
        let bad = |one: &&Challenge| {
            matches!(one.state, challenge::State::Invalid | challenge::State::Errored)
                && one.reason.is_some()
        };
        all.iter().find(bad).or(all.first())
    }

    /// What ends before this moment, if something does that is needed until then.
    pub(super) fn ends_before(&self, moment: OffsetDateTime) -> Option<String> {
        let served = self.certificate.and_then(|one| one.current.as_ref());
        if served.is_some_and(|served| served.not_after <= moment) {
            return Some("What is served does not last until then.".to_owned());
        }
        let begun = self.order.filter(|order| !order.is_over() && order.url().is_some());
        let order = begun.filter(|order| order.deadline <= moment)?;
        Some(format!(
            "The order does not last until then: it is given up at {}.",
            text(order.deadline)
        ))
    }

    fn kind(&self) -> Option<Kind> {
        self.challenge().map(|challenge| challenge.kind)
    }
}

pub(super) fn cause_or_class(failure: &Failure, context: &Context<'_>) -> Cause {
    cause(failure, context).unwrap_or_else(|| by_class(failure, context))
}

/// A cause that nobody wrote words for: what the failure says itself, and what its class means.
fn by_class(failure: &Failure, context: &Context<'_>) -> Cause {
    let title = failure.title.trim_end_matches('.');
    let page = failure.instance.iter().map(|page| format!("Open {page}."));
    let advice = match failure.class {
        Class::Blocked => Some("Correct what the detail names; this goes on by itself then."),
        Class::Validation => Some("Correct what the CA complains about."),
        Class::Consistency | Class::Throttle | Class::Transient | Class::Conflict | Class::Gone => {
            None
        }
    };
    let passing = context.on_its_way && advice.is_none();
    let actions = page.chain(advice.map(str::to_owned)).collect();
    let passes = if passing { " This usually passes by itself." } else { "" };
    let summary = format!("{title}.{passes}");
    Cause { summary, actions }
}

/// The words for a failure's code, where it has some of its own.
fn cause(failure: &Failure, context: &Context<'_>) -> Option<Cause> {
    of_a_proof(failure, context)
        .or_else(|| of_the_provider(failure, context))
        .or_else(|| of_the_request(failure, context))
        .or_else(|| of_the_ca(failure, context))
        .or_else(|| of_the_service(failure))
}

/// What is looked at next while a certificate is blocked for this reason.
pub(super) fn looked_at(why: Option<&Failure>) -> &'static str {
    match why {
        Some(failure) if failure.is(code::CAA_FORBIDS) => {
            "The CAA records are looked up again; a new attempt begins once they allow the CA. A changed certificate, issuer or secret starts one at once."
        }
        Some(failure) if is_the_providers(failure) => {
            "The DNS provider is asked again whether it takes the record; a new attempt begins once it does. A changed certificate, issuer or secret starts one at once."
        }
        _ => {
            "A changed certificate, issuer, secret or policy starts a new attempt at once; otherwise it is tried all the same at this time."
        }
    }
}

/// The trouble with DNSSEC that was found before the CA was asked.
pub(super) fn dnssec_before(order: &Order) -> Option<String> {
    order.course.bogus.as_deref().map(dnssec_fails)
}

/// Why the service itself cannot go on.
fn of_the_service(failure: &Failure) -> Option<Cause> {
    failure.is(code::INTERNAL_ERROR).then(|| {
        Cause::new(format!("Something inside the service fails. {}", failure.detail))
            .with("Have the service's operator look into its log; this goes on by itself once the cause is mended.")
    })
}

/// Why a name is not proved.
fn of_a_proof(failure: &Failure, context: &Context<'_>) -> Option<Cause> {
    let names = || about(failure, context);
    Some(match failure.known_code()? {
        code::ACME_CAA => Cause::new(format!("A CAA record forbids the CA to issue for {}, or could not be looked up.", names()))
            .with("Look at the CAA records of the name and of every domain above it: `dig CAA NAME`.")
            .with("Add the record that `why` prints beside the others of the domain (without `accounturi` it allows every account of the CA), or choose an issuer that is allowed."),
        code::CAA_FORBIDS => Cause::new(format!("The CAA records in the DNS do not let the CA issue for {}, so that it was not asked.", names()))
            .with("Add the record that `why` prints beside the others of the domain (without `accounturi` it allows every account of the CA; its `validationmethods`, if it has them, need the way that the issuer's solver proves by), or choose an issuer that is allowed.")
            .with("Nothing else needs to be done then: the records are looked up again within half an hour."),
        code::ACME_DNS => looked_up(&failure.detail, &names()),
        code::ACME_DNSSEC => dnssec(&names()),
        code::ACME_CONNECTION if context.kind() == Some(Kind::Http01) => Cause::new(format!("The CA could not connect to port 80 of {}.", names()))
            .with("Check that port 80 of the name can be reached from the whole internet: the CA looks from several places, and no firewall may let only some of them in.")
            .with("Check that the name's A and AAAA records lead to this web server: the CA tries IPv6 first. Remove AAAA records that lead nowhere."),
        code::ACME_CONNECTION => Cause::new(format!("The CA could not connect where {} is to be proved.", names()))
            .with("Check that the name's servers can be reached from the whole internet: the CA looks from several places, and no firewall may let only some of them in."),
        code::ACME_TLS => Cause::new(format!("TLS failed where the CA looked for the proof for {}.", names()))
            .with("The CA follows redirects from port 80 to https, and does not mind an untrusted certificate, but TLS itself has to work there: check port 443 of the name with `openssl s_client -connect NAME:443 -servername NAME`.")
            .with("Or answer `/.well-known/acme-challenge/` on port 80 without a redirect (deploy/nginx.conf shows how)."),
        code::ACME_INCORRECT_RESPONSE | code::ACME_UNAUTHORIZED
            if context.kind() == Some(Kind::Http01) =>
        {
            wrong_content(&names())
        }
        code::ACME_INCORRECT_RESPONSE | code::ACME_UNAUTHORIZED
            if context.kind() == Some(Kind::Dns01) =>
        {
            Cause::new(format!("The CA found another TXT record than the proof for {}.", names()))
                .with("Remove stale TXT records at `_acme-challenge` of the name that this service did not write.")
                .with("Check that the provider that is written to serves the zone publicly (no split-horizon DNS), and that no CNAME leads elsewhere.")
        }
        code::CHALLENGE_NOT_PROPAGATED => match context.challenge() {
            Some(challenge) => not_visible(challenge, &failure.detail),
            None => Cause::new(format!("A proof did not become visible in time: {}.", failure.detail)),
        },
        _ => return None,
    })
}

/// Why the DNS provider does not write a proof.
fn of_the_provider(failure: &Failure, context: &Context<'_>) -> Option<Cause> {
    let names = || about(failure, context);
    Some(match failure.known_code()? {
        code::CLOUDFLARE_ZONE_NOT_FOUND => Cause::new(format!("None of the zones that the Cloudflare token can see holds {}.", names()))
            .with("Add the zone to the Cloudflare account, or let the token see it (Zone:Read, DNS:Edit).")
            .with("Or delegate `_acme-challenge` of the name by CNAME into a zone that is there (`cnameStrategy: Follow`), or set `zoneID` in the issuer's solver."),
        code::CLOUDFLARE_PERMISSION_DENIED => Cause::new(format!("The Cloudflare token lacks a permission for {}.", names()))
            .with("Give the token Zone:Read and DNS:Edit on the zone, or store another token in the Secret that the issuer's solver names."),
        code::CLOUDFLARE_INVALID_TOKEN => Cause::new("Cloudflare does not accept the API token.")
            .with("Store a valid API token (not the global API key) in the Secret that the issuer's solver names."),
        code::CLOUDFLARE_ZONE_FULL => Cause::new(format!("The Cloudflare zone has no room for the TXT record of {}.", names()))
            .with("Nothing needs to be done at once: room comes free as other proofs are taken away.")
            .with("If it goes on, delete records that nobody needs, or take a plan that allows more."),
        code::CLOUDFLARE_NAME_TAKEN => Cause::new(format!("Another kind of record stands where the TXT record of {} has to.", names()))
            .with("If it is a CNAME that delegates the proof, set `cnameStrategy: Follow` in the issuer's solver; else delete it."),
        _ => return None,
    })
}

/// Why the CA does not issue, or cannot be asked.
fn of_the_ca(failure: &Failure, context: &Context<'_>) -> Option<Cause> {
    let names = || about(failure, context);
    Some(match failure.known_code()? {
        code::ACME_RATE_LIMITED | code::ACME_BUSY | code::CLOUDFLARE_RATE_LIMITED => {
            limited(failure, context)
        }
        code::ACME_PAUSED => {
            let page = failure.instance.as_deref().unwrap_or("the page that the CA's words name");
            Cause::new("The CA has paused issuance for this account and these names, after many failures.")
                .with(format!("Open {page} and unpause the account; then POST …/renew."))
                .with("Before that, mend what made so many attempts fail: it will pause again otherwise.")
        }
        code::ACME_TOO_MANY_NAMES => too_many_names(failure, context),
        code::ACME_ORDER_REUSED => Cause::new("The CA answers a new order with one that it has carried out before, for another key. It is asked again ever more seldom.")
            .with("Ask the CA's operator how to order anew for the same names, or wait until it has forgotten the order of before."),
        code::ACME_CERTIFICATE_WITHHELD => Cause::new("The certificate is issued, and the CA does not hand it out.")
            .with("If it goes on, ask the CA's operator: the account that has ordered a certificate must be able to fetch it."),
        code::ACME_WRONG_KEY
        | code::ACME_MISSING_NAMES
        | code::ACME_BROKEN_CHAIN
        | code::ACME_BAD_CHAIN
        | code::ACME_CA_CERTIFICATE
        | code::ACME_BAD_VALIDITY => Cause::new(format!("The CA issued, and what it sent cannot be used: {} Nothing of it was stored.", failure.detail))
            .with("Report it to those who run the CA, with the order's URL. The next attempt comes by itself, after ever longer pauses: each may cost a certificate of the CA's limits.")
            .with("Or choose another issuer for the certificate, which is tried at once."),
        code::ACME_UNREACHABLE
        | code::ACME_TIMEOUT
        | code::ACME_CONNECTION_LOST
        | code::ACME_UNAVAILABLE
        | code::ACME_SERVER_INTERNAL
        | code::ACME_UNREADABLE_ANSWER => Cause::new("The CA is down, or cannot be reached from here. It is asked again and again; nothing is lost meanwhile.")
            .with("See the CA's status page. If other clients reach it, check the issuer's `server` URL, the firewall and the DNS of this host."),
        code::ACME_TLS_OUT_OF_DATE => Cause::new("By this machine's clock the CA's TLS certificate has expired, or is not valid yet. The CA is asked again and again.")
            .with("See whether the clock of the machine that certwright runs on is right (`timedatectl`), and have it synchronized (NTP).")
            .with("If it is right, the CA's operator has to renew the certificate of the CA's server."),
        code::ACME_REJECTED_IDENTIFIER | code::ACME_UNSUPPORTED_IDENTIFIER => Cause::new(format!("The CA will not issue for {}.", names()))
            .with("Remove the name from the certificate, or use another CA for it; `why` has the CA's words."),
        _ => return None,
    })
}

/// Causes in the request that the CA refuses.
fn of_the_request(failure: &Failure, context: &Context<'_>) -> Option<Cause> {
    let names = || about(failure, context);
    Some(match failure.known_code()? {
        code::ACME_UNKNOWN_PROFILE | code::ACME_INVALID_PROFILE => Cause::new(format!("The CA does not offer the certificate profile. {}", failure.detail))
            .with("Choose one of the profiles that the CA offers, in the certificate or its issuer, or leave the profile out."),
        code::ACME_NOT_AFTER_REFUSED => Cause::new("The CA does not take an order that says when its certificate is to end, as the certificate's `duration` makes it.")
            .with("Set `enableDurationFeature: false` in the issuer: then the CA decides how long its certificates live. Waiting certificates go on at once.")
            .with("If the CA takes some durations and not this one, choose another `duration`, or leave it out."),
        code::ACME_EXTERNAL_ACCOUNT_REQUIRED => {
            let server = context.issuer.map_or("The CA", |issuer| issuer.acme.server.as_str());
            Cause::new(format!("{server} wants accounts to be bound to a customer account (EAB), and the issuer has no binding."))
                .with("Get a key id and an HMAC key from the CA, store the key as a Secret, and name both in the issuer's `externalAccountBinding`.")
        }
        code::ACME_BAD_CSR | code::ACME_BAD_PUBLIC_KEY => Cause::new(format!("The CA refuses the key or the CSR for {}.", names()))
            .with("Choose another kind or size of key in `privateKey`, or other names; then the certificate is issued with a new key."),
        _ => return None,
    })
}

/// Trouble with the DNS; the CA's words tell which.
fn looked_up(words: &str, names: &str) -> Cause {
    let words = words.to_ascii_lowercase();
    if words.contains("dnssec") {
        return dnssec(names);
    }
    if words.contains("caa") {
        return Cause::new(format!("The CA could not look up the CAA records of {names}: no answer is not taken for \"no record\"."))
            .with("Check that every name server of the domain, and of those above it, answers questions for CAA records (`dig CAA NAME @NAMESERVER`), with NOERROR and an empty answer where there are none. Old servers and firewalls drop such questions.");
    }
    if words.contains("secondary validation") || words.contains("remote perspective") {
        return Cause::new(format!("The CA looks from several places of the world, and not from all of them it could look up {names}."))
            .with("Check that all name servers of the domain answer from everywhere: no filter by country or address, no rate limit, and the same records on each of them.");
    }
    if words.contains("nxdomain") {
        return Cause::new(format!("The CA was told that {names} does not exist in DNS."))
            .with("Create the name (for HTTP-01 an A or AAAA record), or remove it from the certificate.")
            .with("If it exists: check the delegation at the domain's registrar, and that all name servers serve the same zone.");
    }
    Cause::new(format!("The CA could not look up {names} in DNS."))
        .with("Check the domain's delegation and each of its name servers from outside, such as with https://dnsviz.net or `dig +trace NAME`.")
}

fn dnssec(names: &str) -> Cause {
    Cause::new(format!("The CA's resolver does not believe the DNS of {names}: DNSSEC validation fails."))
        .with("Look at the chain of trust, such as with https://dnsviz.net or `delv NAME`: expired signatures, or a DS record at the registrar whose key is gone.")
        .with("Correct or remove the DS record at the registrar, or have the zone signed again.")
}

fn too_many_names(failure: &Failure, context: &Context<'_>) -> Cause {
    let most = most_names(&failure.detail);
    let most = most.map_or_else(|| "fewer".to_owned(), |most| format!("{most} at most"));
    let has = context.order.map_or_else(
        || "The certificate has more names".to_owned(),
        |order| format!("The certificate has {} names", order.names.len()),
    );
    let profile = context.order.and_then(|order| order.profile.as_deref());
    let profile = profile.map_or(String::new(), |name| format!(" with the profile \"{name}\""));
    Cause::new(format!("{has}, and the CA puts {most} into one{profile}."))
        .with("Spread the names over several certificates, have a wildcard stand for many, or choose a profile that takes more names.")
}

/// A proof that was shown, and that somebody who was asked does not see.
pub(super) fn not_visible(challenge: &Challenge, seen: &str) -> Cause {
    if challenge.kind == Kind::Http01 {
        return wrong_content(&format!("{} ({seen})", name_of(challenge)));
    }
    let name = match &challenge.record {
        Some(record) => record.name.clone(),
        None => format!("_acme-challenge.{}", challenge.domain),
    };
    Cause::new(format!("The TXT record {name} was written, and not every name server shows it: {seen}."))
        .with("If it goes on: check that these are the name servers of the provider that is written to, and that they can be reached from here on port 53 (UDP and TCP).")
        .with("A slow zone needs a longer `propagation.timeout` in the issuer's solver.")
}

fn wrong_content(names: &str) -> Cause {
    Cause::new(format!("Port 80 does not answer with the proof for {names}."))
        .with("Let the web server of the name forward `/.well-known/acme-challenge/` to this service's HTTP-01 responder (deploy/nginx.conf shows how), before any redirect or catch-all.")
        .with("Check that the name's A and AAAA records lead to that web server: the CA tries IPv6 first.")
}

/// The names that a failure is about: as the CA said, else of the challenge, else of the order.
fn about(failure: &Failure, context: &Context<'_>) -> String {
    let named: Vec<_> =
        failure.subproblems.iter().filter_map(|part| part.identifier.as_deref()).collect();
    if !named.is_empty() {
        return named.join(", ");
    }
    if let Some(challenge) = context.challenge() {
        return name_of(challenge);
    }
    context.order.map_or_else(|| "a name".to_owned(), |order| order.names.join(", "))
}
