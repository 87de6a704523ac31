//! Transactions and statements on either database.

mod backend;
mod connections;
mod db;
mod error;
mod group_commit;
mod migrate;
pub mod notify;
pub(in crate::storage) mod pipeline;
mod private_file;
mod process_lock;
pub(in crate::storage) mod query;
mod statement;
pub(in crate::storage) mod tx;
mod value;

pub use db::Db;
pub use error::StorageError;
pub use migrate::Migrated;
pub use notify::Signals;
pub use process_lock::SoleUse;
pub use query::Page;
pub use statement::{Statement, catalogue};
pub use tx::Tx;

pub(in crate::storage) use db::Opened;
pub(in crate::storage) use statement::statements;
pub(in crate::storage) use tx::{Inner, defer, defer_apart, defer_held, execute, fetch};
pub(in crate::storage) use value::{corrupt, count, document, json, millis, moment};
