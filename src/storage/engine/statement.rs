//! Every statement, so that a test can prepare each on both databases.

/// One query: a name for people, and its text for each database.
#[derive(Debug, Clone, Copy)]
pub struct Statement {
    /// `module::NAME`.
    pub name: &'static str,
    /// For SQLite.
    pub sqlite: &'static str,
    /// For PostgreSQL.
    pub postgres: &'static str,
}

impl Statement {
    /// A statement that both databases understand as it is.
    pub(in crate::storage) const fn both(name: &'static str, text: &'static str) -> Self {
        Self { name, sqlite: text, postgres: text }
    }
}

/// Declares statements, and lists them in `ALL`. A second text is PostgreSQL's own.
macro_rules! statements {
    (@one $name:expr, $both:expr) => {
        $crate::storage::engine::Statement::both($name, $both)
    };
    (@one $name:expr, $sqlite:expr, $postgres:expr) => {
        $crate::storage::engine::Statement { name: $name, sqlite: $sqlite, postgres: $postgres }
    };
    ($($name:ident = $($text:expr),+;)*) => {
        $(const $name: $crate::storage::engine::Statement = $crate::storage::engine::statements!(
            @one concat!(module_path!(), "::", stringify!($name)), $($text),+
        );)*
        /// Every statement of this module.
        pub(in crate::storage) const ALL: &[$crate::storage::engine::Statement] = &[$($name),*];
    };
}
pub(in crate::storage) use statements;

/// Every statement with a fixed text. Lists with filters are built by `filter` and run by the
/// conformance suite.
pub fn catalogue() -> Vec<Statement> {
    [
        crate::storage::tables::api_keys::ALL,
        &crate::storage::tables::rate_limits::all(),
        crate::storage::tables::certificates::ALL,
        crate::storage::tables::challenges::ALL,
        crate::storage::tables::cleanups::ALL,
        crate::storage::tables::deliveries::ALL,
        crate::storage::tables::events::ALL,
        crate::storage::tables::expiry_watches::ALL,
        crate::storage::queue::tasks::ALL,
        crate::storage::tables::idempotency_keys::ALL,
        crate::storage::tables::issuers::ALL,
        crate::storage::queue::fair::ALL,
        crate::storage::queue::lease::ALL,
        crate::storage::tables::outbox::ALL,
        crate::storage::tables::orders::ALL,
        crate::storage::tables::requests::ALL,
        crate::storage::tables::retention::ALL,
        crate::storage::tables::revisions::ALL,
        crate::storage::tables::revocations::ALL,
        crate::storage::tables::secrets::ALL,
        crate::storage::tables::settings::ALL,
        crate::storage::tables::event_stream::ALL,
        &crate::storage::tables::sealed_columns::all(),
        crate::storage::tables::throttles::ALL,
        crate::storage::tables::webhooks::ALL,
        crate::storage::queue::heartbeat::ALL,
    ]
    .concat()
}
