//! CAs: by the protocol, and in ways of their own.

pub(crate) mod accounts;
pub(crate) mod chains;
pub(crate) mod directory;
pub(crate) mod protocol;
pub(crate) mod registration;
pub(crate) mod round_trips;
pub(crate) mod signatures;
pub(crate) mod unusual_answers;
pub(crate) mod unusual_cas;

use certwright::domain::issuer::Acme;

/// A CA by its directory and its root, with every setting as it is by default.
pub(crate) fn acme(server: &str, ca_bundle: &str) -> Acme {
    let given = serde_json::json!({"server": server, "caBundle": ca_bundle, "solvers": []});
    serde_json::from_value(given).unwrap()
}
