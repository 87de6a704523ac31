//! The causes that are met most, each with its own words and what to do about it.

use super::{Context, name_of, text};
use crate::domain::challenge::{Challenge, Kind};
use crate::domain::failure::Failure;

/// What is behind a failure, and what helps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cause {
    pub summary: String,
    pub actions: Vec<String>,
}

impl Cause {
    pub(super) fn new<const N: usize>(summary: impl Into<String>, actions: [&str; N]) -> Self {
        Self { summary: summary.into(), actions: actions.map(str::to_owned).to_vec() }
    }

    fn with(mut self, action: String) -> Self {
        self.actions.push(action);
        self
    }
}

/// The words for a failure's code, where it has some of its own.
pub(super) fn cause(failure: &Failure, context: &Context<'_>) -> Option<Cause> {
    of_a_proof(failure, context).or_else(|| of_the_ca(failure, context))
}

/// Why a name is not proved.
fn of_a_proof(failure: &Failure, context: &Context<'_>) -> Option<Cause> {
    let names = || about(failure, context);
    Some(match failure.code.as_str() {
        "acme_caa" => Cause::new(
            format!(
                "A CAA record forbids the CA to issue for {}, or could not be looked up.",
                names()
            ),
            [
                "Look at the CAA records of the name and of every domain above it: `dig CAA NAME`.",
                "Add a record that allows the CA, such as `0 issue \"letsencrypt.org\"` (the CA's documentation names the value), or choose an issuer that is allowed.",
            ],
        ),
        "acme_incorrect_response" | "acme_unauthorized" if context.kind() == Some(Kind::Http01) => {
            wrong_content(&names())
        }
        "acme_incorrect_response" | "acme_unauthorized" if context.kind() == Some(Kind::Dns01) => {
            Cause::new(
                format!("The CA found another TXT record than the proof for {}.", names()),
                [
                    "Remove stale TXT records at `_acme-challenge` of the name that this service did not write.",
                    "Check that the provider that is written to serves the zone publicly (no split-horizon DNS), and that no CNAME leads elsewhere.",
                ],
            )
        }
        "cloudflare_zone_not_found" => Cause::new(
            format!("None of the zones that the Cloudflare token can see holds {}.", names()),
            [
                "Add the zone to the Cloudflare account, or let the token see it (Zone:Read, DNS:Edit).",
                "Or delegate `_acme-challenge` of the name by CNAME into a zone that is there (`cnameStrategy: Follow`), or set `zoneID` in the issuer's solver.",
            ],
        ),
        "cloudflare_permission_denied" => Cause::new(
            format!("The Cloudflare token lacks a permission for {}.", names()),
            [
                "Give the token Zone:Read and DNS:Edit on the zone, or store another token in the Secret that the issuer's solver names.",
            ],
        ),
        "cloudflare_invalid_token" => Cause::new(
            "Cloudflare does not accept the API token.",
            [
                "Store a valid API token (not the global API key) in the Secret that the issuer's solver names.",
            ],
        ),
        "cloudflare_zone_full" => Cause::new(
            format!("The Cloudflare zone has no room for the TXT record of {}.", names()),
            [
                "Nothing needs to be done at once: room comes free as other proofs are taken away.",
                "If it goes on, delete records that nobody needs, or take a plan that allows more.",
            ],
        ),
        "cloudflare_name_taken" => Cause::new(
            format!("Another kind of record stands where the TXT record of {} has to.", names()),
            [
                "If it is a CNAME that delegates the proof, set `cnameStrategy: Follow` in the issuer's solver; else delete it.",
            ],
        ),
        "challenge_not_propagated" => match context.challenge() {
            Some(challenge) => not_visible(challenge, &failure.detail),
            None => Cause::new(
                format!("A proof did not become visible in time: {}.", failure.detail),
                [],
            ),
        },
        _ => return None,
    })
}

/// Why the CA does not issue, or cannot be asked.
fn of_the_ca(failure: &Failure, context: &Context<'_>) -> Option<Cause> {
    let names = || about(failure, context);
    Some(match failure.code.as_str() {
        "acme_rate_limited" | "acme_busy" | "cloudflare_rate_limited" => limited(failure),
        "acme_paused" => {
            let page = failure.instance.as_deref().unwrap_or("the page that the CA's words name");
            Cause::new(
                "The CA has paused issuance for this account and these names, after many failures.",
                [],
            )
            .with(format!("Open {page} and unpause the account; then POST …/renew."))
            .with(
                "Before that, mend what made so many attempts fail: it will pause again otherwise."
                    .into(),
            )
        }
        "acme_unknown_profile" | "acme_invalid_profile" => Cause::new(
            format!("The CA does not offer the certificate profile. {}", failure.detail),
            [
                "Choose one of the profiles that the CA offers, in the certificate or its issuer, or leave the profile out.",
            ],
        ),
        "acme_not_after_refused" => Cause::new(
            "The CA does not take an order that says when its certificate is to end, as the certificate's `duration` makes it.",
            [
                "Set `enableDurationFeature: false` in the issuer: then the CA decides how long its certificates live. Waiting certificates go on at once.",
                "If the CA takes some durations and not this one, choose another `duration`, or leave it out.",
            ],
        ),
        "acme_external_account_required" => {
            let server = context.issuer.map_or("The CA", |issuer| issuer.acme.server.as_str());
            Cause::new(
                format!(
                    "{server} wants accounts to be bound to a customer account (EAB), and the issuer has no binding."
                ),
                [
                    "Get a key id and an HMAC key from the CA, store the key as a Secret, and name both in the issuer's `externalAccountBinding`.",
                ],
            )
        }
        "acme_bad_csr" | "acme_bad_public_key" => Cause::new(
            format!("The CA refuses the key or the CSR for {}.", names()),
            [
                "Choose another kind or size of key in `privateKey`, or other names; then the certificate is issued with a new key.",
            ],
        ),
        "acme_unreachable"
        | "acme_timeout"
        | "acme_connection_lost"
        | "acme_unavailable"
        | "acme_server_internal"
        | "acme_unreadable_answer" => Cause::new(
            "The CA is down, or cannot be reached from here. It is asked again and again; nothing is lost meanwhile.",
            [
                "See the CA's status page. If other clients reach it, check the issuer's `server` URL, the firewall and the DNS of this host.",
            ],
        ),
        "acme_rejected_identifier" | "acme_unsupported_identifier" => Cause::new(
            format!("The CA will not issue for {}.", names()),
            [
                "Remove the name from the certificate, or use another CA for it; `why` has the CA's words.",
            ],
        ),
        _ => return None,
    })
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
    Cause::new(
        format!("The TXT record {name} was written, and not every name server shows it: {seen}."),
        [
            "If it goes on: check that these are the name servers of the provider that is written to, and that they can be reached from here on port 53 (UDP and TCP).",
        ],
    )
    .with("A slow zone needs a longer `propagation.timeout` in the issuer's solver.".into())
}

fn wrong_content(names: &str) -> Cause {
    Cause::new(
        format!("Port 80 does not answer with the proof for {names}."),
        [
            "Let the web server of the name forward `/.well-known/acme-challenge/` to this service's HTTP-01 responder (deploy/nginx.conf shows how), before any redirect or catch-all.",
            "Check that the name's A and AAAA records lead to that web server: the CA tries IPv6 first.",
        ],
    )
}

fn limited(failure: &Failure) -> Cause {
    let who = if failure.code.starts_with("cloudflare") { "Cloudflare" } else { "The CA" };
    let until = match failure.retry_at {
        Some(at) => format!("until {}", text(at)),
        None => "for a while, without saying how long".to_owned(),
    };
    Cause::new(
        format!(
            "{who} asked to be left alone {until} (rate limit or overload); the wait counts as no failed attempt."
        ),
        [
            "Nothing needs to be done. If it happens often, ask for fewer certificates, or put more names into one.",
        ],
    )
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
