//! cert-manager's manifests: the kinds, a reader and a writer.
//!
//! Pure: what is read becomes the specifications that the API takes, and what is written comes from what the API
//! shows. The API applies manifests, the command line exports them.

pub(crate) mod kind;
pub(crate) mod read;
pub(crate) mod write;
