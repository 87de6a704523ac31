//! What statements run on.

use std::ops::{Deref, DerefMut};

use sqlx::Transaction;
use sqlx::pool::PoolConnection;

/// A transaction; or, to read, a connection whose every statement is one of its own. `READ
/// COMMITTED` would not make more of several statements, and on either database the beginning and the
/// end of a transaction cost as much as a small query.
pub(super) enum Unit<D: sqlx::Database> {
    Writes(Transaction<'static, D>),
    Reads(PoolConnection<D>),
}

impl<D: sqlx::Database> Unit<D> {
    pub(super) async fn commit(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Writes(tx) => tx.commit().await,
            Self::Reads(_) => Ok(()),
        }
    }
}

impl<D: sqlx::Database> Deref for Unit<D> {
    type Target = D::Connection;

    fn deref(&self) -> &D::Connection {
        match self {
            Self::Writes(tx) => tx,
            Self::Reads(connection) => connection,
        }
    }
}

impl<D: sqlx::Database> DerefMut for Unit<D> {
    fn deref_mut(&mut self) -> &mut D::Connection {
        match self {
            Self::Writes(tx) => tx,
            Self::Reads(connection) => connection,
        }
    }
}
