//! Challenges: which one to use, what to show, and when it may be shown to the CA.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::id::ChallengeId;

/// What has to be shown to the CA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The challenge that it answers.
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
        let digest =
            aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, self.key_authorization.as_bytes());
        URL_SAFE_NO_PAD.encode(digest)
    }

    /// Where the TXT record is looked for, before any CNAME.
    pub fn txt_name(&self) -> String {
        format!("_acme-challenge.{}", self.domain)
    }
}

/// A TXT record that a provider wrote for us: all that is needed to take it away again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Where it stands, after following CNAMEs; no final dot.
    pub name: String,
    /// Its value, without quotes.
    pub value: String,
    /// The provider's name for the zone.
    pub zone: String,
    /// The provider's name for the record.
    pub id: String,
}
