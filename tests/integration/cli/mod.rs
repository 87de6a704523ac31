//! The program, as operators see it.

pub(crate) mod bootstrap;
pub(crate) mod commands;
pub(crate) mod commands_maintenance;
pub(crate) mod private_files;
pub(crate) mod program;
