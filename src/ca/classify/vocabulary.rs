//! ACME's problem types and the codes that they have here.

use crate::domain::failure::code::{self, Code};

/// The types of RFC 8555 (6.7), RFC 9773 (7.4), the profiles draft and those that CAs made up.
const TYPES: &[(&str, Code)] = &[
    ("accountDoesNotExist", code::ACME_ACCOUNT_DOES_NOT_EXIST),
    ("alreadyReplaced", code::ACME_ALREADY_REPLACED),
    ("alreadyRevoked", code::ACME_ALREADY_REVOKED),
    ("badCSR", code::ACME_BAD_CSR),
    ("badNonce", code::ACME_BAD_NONCE),
    ("badPublicKey", code::ACME_BAD_PUBLIC_KEY),
    ("badRevocationReason", code::ACME_BAD_REVOCATION_REASON),
    ("badSignatureAlgorithm", code::ACME_BAD_SIGNATURE_ALGORITHM),
    ("caa", code::ACME_CAA),
    ("conflict", code::ACME_CONFLICT),
    ("connection", code::ACME_CONNECTION),
    ("dns", code::ACME_DNS),
    ("dnssec", code::ACME_DNSSEC),
    ("externalAccountRequired", code::ACME_EXTERNAL_ACCOUNT_REQUIRED),
    ("incorrectResponse", code::ACME_INCORRECT_RESPONSE),
    ("invalidContact", code::ACME_INVALID_CONTACT),
    ("invalidProfile", code::ACME_INVALID_PROFILE),
    ("malformed", code::ACME_MALFORMED),
    ("orderNotReady", code::ACME_ORDER_NOT_READY),
    ("rateLimited", code::ACME_RATE_LIMITED),
    ("rejectedIdentifier", code::ACME_REJECTED_IDENTIFIER),
    ("serverInternal", code::ACME_SERVER_INTERNAL),
    ("tls", code::ACME_TLS),
    ("unauthorized", code::ACME_UNAUTHORIZED),
    ("unsupportedContact", code::ACME_UNSUPPORTED_CONTACT),
    ("unsupportedIdentifier", code::ACME_UNSUPPORTED_IDENTIFIER),
    ("userActionRequired", code::ACME_USER_ACTION_REQUIRED),
];

/// The code of a problem type, named without its URN.
pub(super) fn known(name: &str) -> Option<Code> {
    TYPES.iter().find(|(known, _)| *known == name).map(|(_, code)| *code)
}
