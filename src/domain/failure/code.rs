//! The failure codes: one table with each code's class, title and advice.
//!
//! A code's text is stored and is part of the API: it never changes. It is the constant's name in lower case.

use super::Class;

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    /// Stable and machine-readable.
    pub text: &'static str,
    /// The policy that applies unless the circumstances say otherwise.
    pub class: Class,
    /// One sentence for a person: what failed.
    pub title: &'static str,
    /// One or more sentences that end a failure's detail: what helps, where something is known to.
    pub advice: &'static str,
}

impl Code {
    /// The row of this text; `None` for the codes of another version.
    pub fn find(text: &str) -> Option<Self> {
        ALL.iter().find(|code| code.text == text).copied()
    }

    /// The same code where the circumstances ask for another policy.
    #[must_use]
    pub const fn with_class(self, class: Class) -> Self {
        Self { class, ..self }
    }

    /// The same code where something else helps.
    #[must_use]
    pub const fn with_advice(self, advice: &'static str) -> Self {
        Self { advice, ..self }
    }
}

/// Makes a constant of each row, whose text is its name in lower case, and `ALL` of all rows.
macro_rules! codes {
    ($($name:ident = $class:ident $title:literal $($advice:literal)?;)*) => {
        $(
            pub const $name: Code = {
                const TEXT: [u8; stringify!($name).len()] = lower_case(stringify!($name));
                let advice = concat!($($advice)?);
                Code { text: as_text(&TEXT), class: Class::$class, title: $title, advice }
            };
        )*

        /// The whole table.
        pub const ALL: &[Code] = &[$($name),*];
    };
}

const fn lower_case<const N: usize>(name: &str) -> [u8; N] {
    let mut text = [0; N];
    text.copy_from_slice(name.as_bytes());
    text.make_ascii_lowercase();
    text
}

const fn as_text(bytes: &[u8]) -> &str {
    match str::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => panic!("the name of a code is not ASCII"),
    }
}

// ACME's problem types: RFC 8555 (section 6.7), RFC 9773 (section 7.4), the profiles draft, and those that
// CAs made up beside them.
codes! {
    ACME_ACCOUNT_DOES_NOT_EXIST = Blocked "The CA does not know the account."
        "It may have been removed there, or the issuer's server was changed: register a new account.";
    ACME_ALREADY_REPLACED = Conflict "Another order replaces the same certificate already.";
    ACME_ALREADY_REVOKED = Conflict "The certificate is revoked already.";
    ACME_BAD_CSR = Blocked "The CA refuses the certificate signing request."
        "Another private key or other names are needed.";
    ACME_BAD_NONCE = Transient "The CA kept refusing our nonces.";
    ACME_BAD_PUBLIC_KEY = Blocked "The CA refuses the public key."
        "Another key, or another kind of key, is needed.";
    ACME_BAD_REVOCATION_REASON = Blocked "The CA refuses the reason for the revocation.";
    ACME_BAD_SIGNATURE_ALGORITHM = Blocked "The CA does not accept ES256 signatures."
        "This service signs with ES256 only.";
    ACME_CAA = Validation "A CAA record forbids the CA to issue, or could not be looked up.";
    ACME_COMPOUND = Blocked "The CA found several problems, one for each name.";
    ACME_CONFLICT = Conflict "The request does not fit the state at the CA.";
    ACME_CONNECTION = Validation "The CA could not connect to prove control over the name."
        "HTTP-01 needs port 80 reachable from the whole internet.";
    ACME_DNS = Validation "The CA could not look up the name in DNS.";
    ACME_DNSSEC = Validation "DNSSEC validation failed at the CA.";
    ACME_EXTERNAL_ACCOUNT_REQUIRED = Blocked
        "The CA wants accounts to be bound to a customer account."
        "External account binding is not configured for this issuer.";
    ACME_INCORRECT_RESPONSE = Validation "The CA found something else than the expected proof."
        "Look for stale records, split-horizon DNS or a proxy in front.";
    ACME_INVALID_CONTACT = Blocked "The CA refuses the account's e-mail address."
        "Correct or remove the issuer's email.";
    ACME_INVALID_PROFILE = Blocked "The CA refuses the certificate profile."
        "Choose one of the profiles that its directory offers, or none.";
    ACME_MALFORMED = Blocked "The CA does not understand the request.";
    ACME_ORDER_NOT_READY = Conflict "The order is not in the state that finalization needs.";
    ACME_RATE_LIMITED = Throttle "The CA's rate limit is reached.";
    ACME_REJECTED_IDENTIFIER = Blocked "The CA will not issue for a name."
        "Remove the name, or use another CA.";
    ACME_SERVER_INTERNAL = Transient "The CA had an internal error.";
    ACME_TLS = Validation "TLS failed when the CA tried to prove control over the name.";
    ACME_UNAUTHORIZED = Blocked "The CA does not allow this to the account."
        "The account may have been deactivated, or may not use what was asked for.";
    ACME_UNSUPPORTED_CONTACT = Blocked "The CA does not support the account's kind of contact."
        "Correct or remove the issuer's email.";
    ACME_UNSUPPORTED_IDENTIFIER = Blocked "The CA does not support a name of this kind."
        "Remove the name, or use another profile or CA.";
    ACME_USER_ACTION_REQUIRED = Blocked "The CA wants a person to do something first."
        "Usually new terms of service have to be agreed to.";

    // Answers of a CA that no problem type names.
    ACME_BUSY = Throttle "The CA is too busy at the moment.";
    ACME_CERTIFICATE_WITHHELD = Consistency
        "The CA does not hand out the certificate that it has issued.";
    ACME_DIRECTORY_NOT_FOUND = Blocked "There is no ACME directory at the issuer's URL."
        "Check the issuer's server URL.";
    ACME_ENDPOINT_MOVED = Transient "The CA does not answer where its directory says.";
    ACME_GONE = Gone "The CA has forgotten what it was asked about.";
    ACME_NOT_AFTER_REFUSED = Blocked
        "The CA does not take an order that says when the certificate is to end."
        "Set `enableDurationFeature: false` in the issuer, or give the certificate another `duration`.";
    ACME_NOT_A_DIRECTORY = Transient "The issuer's URL does not lead to an ACME directory."
        "Check the issuer's server URL.";
    ACME_NOT_FOUND_YET = Consistency "The CA does not know yet what it has just handed out.";
    ACME_NOT_OFFERED = Blocked "The CA does not offer what is asked for.";
    ACME_PAUSED = Blocked "The CA has paused issuance until a person resumes it."
        "A person has to open the page that the CA names.";
    ACME_REDIRECTED = Transient "The CA's URL leads elsewhere."
        "Redirects to elsewhere are not followed: the issuer needs the final URL.";
    ACME_REFUSED = Transient "The CA refuses the request.";
    ACME_TOO_MANY_NAMES = Blocked "The CA does not put so many names into one certificate."
        "Spread the names over several certificates, or choose another profile.";
    ACME_UNAVAILABLE = Transient "The CA is not available.";
    ACME_UNKNOWN_PROFILE = Blocked "The CA does not offer the certificate profile.";
    ACME_UNREADABLE_ANSWER = Transient "The CA's answer cannot be understood.";

    // No whole answer of a CA.
    ACME_ADDRESS_FORBIDDEN = Blocked "The CA is where this service may not connect for an Issuer."
        "An administrator may make it a ClusterIssuer instead.";
    ACME_ANSWER_TOO_LARGE = Transient "The CA's answer is too large.";
    ACME_CLIENT_BUSY = Transient "Too many requests to the CA are under way.";
    ACME_CONNECTION_LOST = Transient "The connection to the CA was lost.";
    ACME_TIMEOUT = Transient "The CA did not answer in time.";
    ACME_TLS_OUT_OF_DATE = Transient
        "By this machine's clock the CA's TLS certificate has expired, or is not valid yet."
        "See whether the clock of the machine that certwright runs on is right (`timedatectl`); if it is, the CA's operator has to renew it.";
    ACME_TLS_UNTRUSTED = Transient "The CA's TLS certificate is not trusted."
        "A private CA needs its roots in the issuer's caBundle.";
    ACME_UNREACHABLE = Transient "The CA cannot be reached.";
    ACME_URL_FOREIGN = Blocked
        "The CA named a URL on a host that is not its own; nothing was sent there."
        "A ClusterIssuer lists further hosts of its CA in `acme.allowedOrigins`.";
    ACME_URL_REFUSED = Blocked "The CA's URL cannot be used."
        "Only https URLs are.";

    // Keys and certificates that a client of a CA needs.
    ACME_ACCOUNT_KEY_UNUSABLE = Blocked "The account's private key cannot be used."
        "It has to be an ECDSA P-256 key in PKCS#8.";
    ACME_CA_BUNDLE_INVALID = Blocked "The issuer's caBundle cannot be used."
        "It has to be base64 of one or more certificates in PEM.";
    ACME_NO_TRUSTED_ROOTS = Blocked "This machine has no usable root certificates.";
    EXTERNAL_ACCOUNT_KEY_UNUSABLE = Blocked "The key of the external account cannot be used."
        "It has to be the base64url text that the CA has given out.";

    // Orders, authorizations and challenges at a CA.
    ACME_AUTHORIZATION_UNUSABLE = Gone "An authorization of the order cannot be used any more";
    ACME_CHALLENGE_NOT_OFFERED = Gone "The order does not offer the challenge any more.";
    ACME_FOREIGN_AUTHORIZATION = Validation "The CA wants a name proved that was not asked for";
    ACME_NOT_FINALIZED = Transient "The CA takes the CSR and does nothing with it";
    ACME_ORDER_ENDED = Validation "The CA has ended the order";
    ACME_ORDER_INVALID = Validation "The CA refused the order";
    ACME_ORDER_NOT_VALID = Conflict "The order has no certificate.";
    ACME_ORDER_REUSED = Validation
        "The CA answers a new order with one that it has carried out before"
        "Ask the CA's operator how to order anew for the same names.";
    ACME_TOO_MANY_AUTHORIZATIONS = Validation "The CA wants more than any certificate needs.";
    ACME_UNKNOWN_STATUS = Transient "The CA says a status that ACME does not know";
    ACME_UNUSABLE_CHALLENGE = Validation "The CA offers no challenge that can be used";
    ACME_VALIDATION_FAILED = Validation "The CA could not confirm control over the name.";
    ACME_VALIDATION_UNFINISHED = Validation
        "The CA has not finished looking for the proofs within an hour";
    ARI_WINDOW_INVALID = Transient "The CA suggests a time for renewal that is none";

    // Certificates that a CA has issued and that cannot be served.
    ACME_BAD_CHAIN = Validation "The CA sent something else than a chain of certificates";
    ACME_BAD_VALIDITY = Validation "The CA sent a certificate whose dates cannot be right";
    ACME_BROKEN_CHAIN = Validation "The CA sent certificates that are not one chain";
    ACME_CA_CERTIFICATE = Validation "The CA sent the certificate of a CA";
    ACME_MISSING_NAMES = Validation "The CA sent a certificate without names that were asked for";
    ACME_WRONG_KEY = Validation "The CA sent a certificate for another key";

    // Limits of our own: nothing was sent.
    ACME_BUDGET_SPENT = Throttle "The order waits for its share of the CA's limits";
    ACME_NO_TURN = Throttle "Other new orders of the account go first";
    ACME_ORDERS_UNANSWERED = Throttle
        "The CA was asked for three orders within ten minutes, and none went on";
    ACME_ORDER_PACED = Throttle "The order has asked the CA as often as it may within a minute.";
    ACME_REFUSALS_SPENT = Throttle
        "The CA has refused, or not answered, too many requests of the account lately.";
    CIRCUIT_OPEN = Throttle
        "Nothing is sent while nobody answers; one request at a time finds out when that changes";

    // Proofs and those who publish them.
    CAA_FORBIDS = Blocked "CAA records forbid the CA to issue; it was not asked";
    CHALLENGE_NOT_PROPAGATED = Validation "The proof did not become visible in time";
    NO_SOLVER = Blocked "No solver of the issuer fits a name"
        "Add one, or widen a selector.";
    RESOLVER_UNAVAILABLE = Transient "The issuer's name servers cannot be asked now";
    SOLVER_INVALID = Blocked "The issuer's solver cannot be used";
    DNS_ADDRESS_FORBIDDEN = Blocked "A name server of the issuer may not be asked";
    DNS_CNAME_LOOP = Blocked "The CNAME chain of a name does not end"
        "Correct the DNS.";
    DNS_CNAME_OUTSIDE = Blocked "The CNAME of a name leads where the issuer does not write"
        "Let it end in one of the solver's `cnameZones`, or have whoever manages the issuer add the zone there.";
    DNS_INVALID_NAME = Blocked "Not a name for the DNS";
    DNS_LOOKUP_FAILED = Transient "The CNAME of a name cannot be looked up";
    CLOUDFLARE_ADDRESS_FORBIDDEN = Blocked "Cloudflare's API is not where this service may connect";
    CLOUDFLARE_INVALID_BASE_URL = Blocked "Cloudflare's `baseURL` cannot be used";
    CLOUDFLARE_INVALID_TOKEN = Blocked "Cloudflare does not accept the API token"
        "Store a valid API token (not the global API key) in the Secret.";
    CLOUDFLARE_NAME_TAKEN = Blocked "Cloudflare cannot edit the TXT records of a name"
        "Another kind of record stands at that name. If it is a CNAME that delegates the proof, set `cnameStrategy: Follow`; else delete it.";
    CLOUDFLARE_PERMISSION_DENIED = Blocked "The Cloudflare API token may not do this";
    CLOUDFLARE_RATE_LIMITED = Throttle "Cloudflare wants to be asked later";
    CLOUDFLARE_RECORD_VANISHED = Transient "A TXT record was there and is not";
    CLOUDFLARE_REFUSED = Transient "Cloudflare refused";
    CLOUDFLARE_TOKEN_MISSING = Blocked "There is no Cloudflare API token";
    CLOUDFLARE_UNAVAILABLE = Transient "Cloudflare did not say whether it could do this";
    CLOUDFLARE_UNREADABLE = Transient "It is not known which Cloudflare zone a name is in";
    CLOUDFLARE_ZONE_FULL = Throttle "The Cloudflare zone has no room for another record"
        "Room comes free as other proofs are taken away, and is waited for. Delete records that nobody needs, or take a larger plan, if that goes on.";
    CLOUDFLARE_ZONE_NOT_FOUND = Blocked "No Cloudflare zone for a name"
        "Among the active zones that the API token can see, none holds this name. Add the zone to the Cloudflare account, give the token Zone:Read and DNS:Edit on it, or set `zoneID`.";

    // The service's own state.
    ACCOUNT_DEACTIVATED = Blocked "The issuer's account was deactivated"
        "Create a new issuer, or give this one another server.";
    APPROVAL_PENDING = Blocked "The request waits for approval"
        "Somebody else who may do that approves or denies it: POST /requests/{id}/approve.";
    CERTIFICATE_DELETED = Blocked "The certificate was deleted";
    CSR_KEY_COMPROMISED = Blocked "The certificate's CSR is for a key that is compromised"
        "Make a new key and give its CSR with PUT /certificates/{id}/csr; it is issued at once then.";
    CSR_UNUSABLE = Blocked "The certificate's CSR cannot be used";
    INTERNAL_ERROR = Transient "The service could not do this";
    ISSUER_NOT_FOUND = Blocked "The issuer is gone";
    ISSUER_NOT_READY = Blocked "The issuer has no account at its CA"
        "Its registration is under way; see the issuer's conditions.";
    NAME_NOT_ALLOWED = Blocked "No policy allows the certificate any more"
        "It goes on by itself once a policy allows it again; or give it other names, another issuer or another key.";
    NO_ACCOUNT = Blocked "There is no account whose key could be replaced"
        "Its registration comes first.";
    NO_ORDER = Transient "No order";
    ORDER_CANCELLED = Gone "The order was cancelled";
    ORDER_EXPIRED = Transient "The order was not completed in time";
    ORDER_GONE = Gone "The order ended without telling its certificate"
        "This is a bug; a new attempt follows.";
    REQUEST_DENIED = Blocked "The request was denied"
        "Give the certificate another specification, or have another request made: POST …/renew.";
    SECRET_NOT_FOUND = Blocked "A credential that the issuer refers to is not there"
        "Create it, and this goes on by itself.";
    SECRET_UNREADABLE = Blocked "A stored key or credential cannot be opened"
        "Start with the master key that it was sealed under.";
    STEP_TIMED_OUT = Transient "A step took too long";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_code_is_called_like_its_constant() {
        assert_eq!(ACME_BAD_CSR.text, "acme_bad_csr");
    }

    #[test]
    fn every_code_is_there_once_with_a_title_and_well_formed_advice() {
        let texts: BTreeSet<_> = ALL.iter().map(|code| code.text).collect();
        assert_eq!(texts.len(), ALL.len(), "a code stands in the table twice");
        for code in ALL {
            let is_plain = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(code.text.chars().all(is_plain), "{code:?}");
            assert!(code.title.starts_with(char::is_uppercase), "{code:?}");
            assert!(code.advice.is_empty() || code.advice.ends_with('.'), "{code:?}");
            assert_eq!(Code::find(code.text), Some(*code));
        }
        assert_eq!(Code::find("of_tomorrow"), None);
    }
}
