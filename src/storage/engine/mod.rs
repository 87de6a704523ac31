//! Transactions and statements on either database.

mod backend;
mod connections;
pub mod copy;
mod database_file;
mod db;
mod error;
mod group_commit;
mod load;
mod migrate;
pub mod notify;
pub(in crate::storage) mod pipeline;
mod private_file;
mod probe;
mod process_lock;
pub(in crate::storage) mod query;
mod read;
mod row_mac;
mod statement;
mod table;
pub(in crate::storage) mod tx;
mod value;

pub use db::Database;
pub use error::StorageError;
pub use load::{Disk, Load};
pub use migrate::Migrated;
pub use notify::Signals;
pub use process_lock::SoleUse;
pub use query::{Page, Rows};
pub use read::Read;
pub use statement::{Listed, Statement, Touch};
pub use tx::Tx;

pub(in crate::storage) use read::{Backend, fetch, fetch_changed, fetch_rows};
pub(in crate::storage) use statement::{Change, Query, statements};
pub(in crate::storage) use table::{Columns, bind, next_of, table};
pub(in crate::storage) use tx::{execute, write};
pub(in crate::storage) use value::{Stored, count, json, millis, moment};
