//! Statements: a text for each database.
//!
//! A [`Query`] only reads, and runs on a [`super::Read`]. A [`Change`] needs a transaction ([`super::Tx`]) and
//! declares the tables that it writes to, by which caches are invalidated.

/// The text of a statement, and its name for people.
#[derive(Debug, Clone, Copy)]
pub struct Statement {
    /// `module::NAME`.
    pub name: &'static str,
    /// SQLite's text.
    pub sqlite: &'static str,
    /// PostgreSQL's text.
    pub postgres: &'static str,
}

/// A statement that changes nothing.
#[derive(Debug, Clone, Copy)]
pub struct Query(pub(in crate::storage) Statement);

/// A statement that changes rows.
#[derive(Debug, Clone, Copy)]
pub struct Change {
    pub(in crate::storage) statement: Statement,
    /// With the tables in which rows are deleted by a cascade.
    pub(in crate::storage) writes: &'static [&'static str],
}

/// A statement in the catalogue, with the tables that it writes to.
pub type Listed = (Statement, &'static [&'static str]);

impl Statement {
    /// A text that both databases understand.
    pub(in crate::storage) const fn both(name: &'static str, text: &'static str) -> Self {
        Self { name, sqlite: text, postgres: text }
    }
}

impl Query {
    pub(in crate::storage) const fn listed(self) -> Listed {
        (self.0, &[])
    }
}

impl Change {
    pub(in crate::storage) const fn new(
        statement: Statement,
        writes: &'static [&'static str],
    ) -> Self {
        Self { statement, writes }
    }

    pub(in crate::storage) const fn listed(self) -> Listed {
        (self.statement, self.writes)
    }
}

/// Declares statements, and lists them in `ALL`: `NAME = "SELECT …"` is a [`Query`], and
/// `NAME writes(orders) = "UPDATE orders …"` a [`Change`]. A second text is PostgreSQL's own.
macro_rules! statements {
    (@text $name:expr, $both:expr) => {
        $crate::storage::engine::Statement::both($name, $both)
    };
    (@text $name:expr, $sqlite:expr, $postgres:expr) => {
        $crate::storage::engine::Statement { name: $name, sqlite: $sqlite, postgres: $postgres }
    };
    (@type) => { $crate::storage::engine::Query };
    (@type $($table:ident)+) => { $crate::storage::engine::Change };
    (@new $statement:expr,) => { $crate::storage::engine::Query($statement) };
    (@new $statement:expr, $($table:ident)+) => {
        $crate::storage::engine::Change::new($statement, &[$(stringify!($table)),+])
    };
    ($($name:ident $(writes($($table:ident),+))? = $($text:expr),+;)*) => {
        $(const $name: $crate::storage::engine::statements!(@type $($($table)+)?) =
            $crate::storage::engine::statements!(
                @new $crate::storage::engine::statements!(
                    @text concat!(module_path!(), "::", stringify!($name)), $($text),+
                ),
                $($($table)+)?
            );)*
        /// Every statement of this module.
        pub(in crate::storage) const ALL: &[$crate::storage::engine::Listed] = &[$($name.listed()),*];
    };
}
pub(in crate::storage) use statements;
