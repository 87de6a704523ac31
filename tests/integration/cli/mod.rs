//! The program, as operators see it.

pub(crate) mod administration;
pub(crate) mod backup;
pub(crate) mod bootstrap;
mod by_heart;
pub(crate) mod certificates;
pub(crate) mod client_certificates;
pub(crate) mod commands;
pub(crate) mod commands_maintenance;
mod completion;
pub(crate) mod first_start;
pub(crate) mod imports;
pub(crate) mod login;
mod manifests;
mod place;
pub(crate) mod policies;
pub(crate) mod private_files;
pub(crate) mod program;
pub(crate) mod settings;
pub(crate) mod watching;
pub(crate) mod webhooks;
