//! ACME's problem types: what each usually means and what a person can do about it.

use crate::domain::failure::Class::{self, Blocked, Conflict, Throttle, Transient, Validation};

/// A problem type that we know.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    /// Which policy applies unless the circumstances say otherwise.
    pub class: Class,
    /// Our stable name for it.
    pub code: &'static str,
    /// What failed.
    pub title: &'static str,
    /// What helps, where something is known to.
    pub advice: &'static str,
}

/// RFC 8555 (6.7), RFC 9773 (7.4), the profiles draft and what CAs made up beside them.
const KINDS: &[(&str, Class, &str, &str, &str)] = &[
    (
        "accountDoesNotExist",
        Blocked,
        "acme_account_does_not_exist",
        "The CA does not know the account.",
        "It may have been removed there, or the issuer's server was changed: register a new account.",
    ),
    (
        "alreadyReplaced",
        Conflict,
        "acme_already_replaced",
        "Another order replaces the same certificate already.",
        "",
    ),
    ("alreadyRevoked", Conflict, "acme_already_revoked", "The certificate is revoked already.", ""),
    (
        "badCSR",
        Blocked,
        "acme_bad_csr",
        "The CA refuses the certificate signing request.",
        "Another private key or other names are needed.",
    ),
    ("badNonce", Transient, "acme_bad_nonce", "The CA kept refusing our nonces.", ""),
    (
        "badPublicKey",
        Blocked,
        "acme_bad_public_key",
        "The CA refuses the public key.",
        "Another key, or another kind of key, is needed.",
    ),
    (
        "badRevocationReason",
        Blocked,
        "acme_bad_revocation_reason",
        "The CA refuses the reason for the revocation.",
        "",
    ),
    (
        "badSignatureAlgorithm",
        Blocked,
        "acme_bad_signature_algorithm",
        "The CA does not accept ES256 signatures.",
        "This service signs with ES256 only.",
    ),
    (
        "caa",
        Validation,
        "acme_caa",
        "A CAA record forbids the CA to issue, or could not be looked up.",
        "",
    ),
    ("conflict", Conflict, "acme_conflict", "The request does not fit the state at the CA.", ""),
    (
        "connection",
        Validation,
        "acme_connection",
        "The CA could not connect to prove control over the name.",
        "HTTP-01 needs port 80 reachable from the whole internet.",
    ),
    ("dns", Validation, "acme_dns", "The CA could not look up the name in DNS.", ""),
    ("dnssec", Validation, "acme_dnssec", "DNSSEC validation failed at the CA.", ""),
    (
        "externalAccountRequired",
        Blocked,
        "acme_external_account_required",
        "The CA wants accounts to be bound to a customer account.",
        "External account binding is not configured for this issuer.",
    ),
    (
        "incorrectResponse",
        Validation,
        "acme_incorrect_response",
        "The CA found something else than the expected proof.",
        "Look for stale records, split-horizon DNS or a proxy in front.",
    ),
    (
        "invalidContact",
        Blocked,
        "acme_invalid_contact",
        "The CA refuses the account's e-mail address.",
        "Correct or remove the issuer's email.",
    ),
    (
        "invalidProfile",
        Blocked,
        "acme_invalid_profile",
        "The CA refuses the certificate profile.",
        "Choose one of the profiles that its directory offers, or none.",
    ),
    ("malformed", Blocked, "acme_malformed", "The CA does not understand the request.", ""),
    (
        "orderNotReady",
        Conflict,
        "acme_order_not_ready",
        "The order is not in the state that finalization needs.",
        "",
    ),
    ("rateLimited", Throttle, "acme_rate_limited", "The CA's rate limit is reached.", ""),
    (
        "rejectedIdentifier",
        Blocked,
        "acme_rejected_identifier",
        "The CA will not issue for a name.",
        "Remove the name, or use another CA.",
    ),
    ("serverInternal", Transient, "acme_server_internal", "The CA had an internal error.", ""),
    (
        "tls",
        Validation,
        "acme_tls",
        "TLS failed when the CA tried to prove control over the name.",
        "",
    ),
    (
        "unauthorized",
        Blocked,
        "acme_unauthorized",
        "The CA does not allow this to the account.",
        "The account may have been deactivated, or may not use what was asked for.",
    ),
    (
        "unsupportedContact",
        Blocked,
        "acme_unsupported_contact",
        "The CA does not support the account's kind of contact.",
        "Correct or remove the issuer's email.",
    ),
    (
        "unsupportedIdentifier",
        Blocked,
        "acme_unsupported_identifier",
        "The CA does not support a name of this kind.",
        "Remove the name, or use another profile or CA.",
    ),
    (
        "userActionRequired",
        Blocked,
        "acme_user_action_required",
        "The CA wants a person to do something first.",
        "Usually new terms of service have to be agreed to.",
    ),
];

/// The meaning of a problem type, named without its URN.
pub(super) fn known(name: &str) -> Option<Kind> {
    let (_, class, code, title, advice) = *KINDS.iter().find(|(known, ..)| *known == name)?;
    Some(Kind { class, code, title, advice })
}
