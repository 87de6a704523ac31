//! What is shown to the CA, and the token that it is made of.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::domain::id::ChallengeId;

/// The proof that the CA looks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    pub challenge: ChallengeId,
    /// The name under proof, without a wildcard's `*.`.
    pub domain: String,
    /// The CA's token: base64url characters only.
    pub token: String,
    /// Token and account key thumbprint (RFC 8555, section 8.1).
    pub key_authorization: String,
}

impl Proof {
    /// The value of the TXT record (RFC 8555, section 8.4).
    pub fn txt_value(&self) -> String {
        let digest = aws_lc_rs::digest::digest(
            &aws_lc_rs::digest::SHA256,
            self.key_authorization.as_bytes(),
        );
        URL_SAFE_NO_PAD.encode(digest)
    }

    /// Name of the TXT record, before any CNAME.
    pub fn txt_name(&self) -> String {
        format!("_acme-challenge.{}", self.domain)
    }
}

/// Longest token that is stored; no CA sends a longer one.
const LONGEST_TOKEN: usize = 512;

/// Whether a text consists of base64url characters (RFC 4648, section 5) without padding.
pub fn is_base64url(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
}

/// Whether a token may be used (RFC 8555, section 8.1). It ends in URLs and file names: its
/// characters matter. How much chance is in it is the CA's business: short ones are taken.
pub fn is_token(text: &str) -> bool {
    text.len() <= LONGEST_TOKEN && is_base64url(text)
}
