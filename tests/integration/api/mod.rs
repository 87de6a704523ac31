//! The API, as clients see it.

pub(crate) mod answer_headers;
pub(crate) mod apply_races;
pub(crate) mod auth;
pub(crate) mod caller_limits;
pub(crate) mod certificates;
pub(crate) mod conventions;
pub(crate) mod event_stream;
pub(crate) mod explain;
pub(crate) mod idempotency;
pub(crate) mod imports;
pub(crate) mod issuers;
pub(crate) mod key_rotation;
pub(crate) mod keys;
pub(crate) mod large_inputs;
pub(crate) mod lists;
pub(crate) mod long_answers;
pub(crate) mod manifests;
pub(crate) mod manifests_refused;
pub(crate) mod matrix;
pub(crate) mod openapi;
pub(crate) mod quotas;
pub(crate) mod secrets;
pub(crate) mod strange_text;
pub(crate) mod tenancy;
pub(crate) mod throttles;
pub(crate) mod tokens;
