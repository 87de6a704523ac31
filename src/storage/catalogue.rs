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
    pub(super) const fn both(name: &'static str, text: &'static str) -> Self {
        Self { name, sqlite: text, postgres: text }
    }
}

/// Declares statements, and lists them in `ALL`. A second text is PostgreSQL's own.
macro_rules! statements {
    (@one $name:expr, $both:expr) => {
        $crate::storage::Statement::both($name, $both)
    };
    (@one $name:expr, $sqlite:expr, $postgres:expr) => {
        $crate::storage::Statement { name: $name, sqlite: $sqlite, postgres: $postgres }
    };
    ($($name:ident = $($text:expr),+;)*) => {
        $(const $name: $crate::storage::Statement = $crate::storage::statements!(
            @one concat!(module_path!(), "::", stringify!($name)), $($text),+
        );)*
        /// Every statement of this module.
        pub(super) const ALL: &[$crate::storage::Statement] = &[$($name),*];
    };
}
pub(super) use statements;

/// Every statement with a fixed text. Lists with filters are built by `filter` and run by the
/// conformance suite.
pub fn catalogue() -> Vec<Statement> {
    [
        super::api_keys::ALL,
        &super::budgets::all(),
        super::certificates::ALL,
        super::challenges::ALL,
        super::clean_ups::ALL,
        super::deliveries::ALL,
        super::events::ALL,
        super::expiry::ALL,
        super::housekeeping::ALL,
        super::idempotency::ALL,
        super::issuers::ALL,
        super::lanes::ALL,
        super::lease::ALL,
        super::messages::ALL,
        super::orders::ALL,
        super::requests::ALL,
        super::retention::ALL,
        super::revisions::ALL,
        super::revocations::ALL,
        super::secrets::ALL,
        super::settings::ALL,
        super::stream::ALL,
        &super::sealed::all(),
        super::throttles::ALL,
        super::webhooks::ALL,
        super::workers::ALL,
    ]
    .concat()
}
