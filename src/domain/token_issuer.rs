//! OIDC issuers whose tokens are taken.

use super::access_rule::Rule;

/// An issuer that the operator trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenIssuer {
    /// Its identifier, which is a URL, exactly as it stands in `iss`.
    pub issuer: String,
    /// What has to stand in `aud`.
    pub audience: String,
    /// The client as which people log in by the command line.
    pub cli_client_id: Option<String>,
    /// Further CAs for its TLS, in PEM.
    pub ca_bundle: Option<Vec<u8>>,
    pub rules: Vec<Rule>,
}
