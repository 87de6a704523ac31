//! Statements: a text for each database, and the tables that it touches.
//!
//! A [`Query`] only reads, and runs on a [`super::Read`]. A [`Change`] needs a transaction ([`super::Tx`]). It
//! declares the tables that it touches: by them the pipeline on PostgreSQL knows which writes may be joined, and
//! caches are invalidated.

use std::borrow::Cow;

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
    pub(in crate::storage) touches: &'static [Touch],
}

/// The text of a statement for the life of the process.
fn made_once(text: impl Into<Cow<'static, str>>) -> &'static str {
    match text.into() {
        Cow::Borrowed(text) => text,
        Cow::Owned(text) => text.leak(),
    }
}

/// What a change does with tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// It adds rows, and fails where one is there already.
    Adds(&'static [&'static str]),
    /// It changes, replaces or deletes rows, be it by a cascade.
    Writes(&'static [&'static str]),
    /// It reads rows of other tables.
    Reads(&'static [&'static str]),
}

impl Statement {
    /// A text that both databases understand.
    pub(in crate::storage) fn both(
        name: impl Into<Cow<'static, str>>,
        text: impl Into<Cow<'static, str>>,
    ) -> Self {
        let text = made_once(text);
        Self { name: made_once(name), sqlite: text, postgres: text }
    }

    /// A text for each database.
    pub(in crate::storage) fn each(
        name: impl Into<Cow<'static, str>>,
        sqlite: impl Into<Cow<'static, str>>,
        postgres: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { name: made_once(name), sqlite: made_once(sqlite), postgres: made_once(postgres) }
    }
}

impl Query {
    pub(in crate::storage) const fn listed(self) -> (Statement, &'static [Touch]) {
        (self.0, &[])
    }
}

impl Change {
    /// A change of one table.
    pub(in crate::storage) fn of(table: &'static str, statement: Statement) -> Self {
        Self { statement, touches: vec![Touch::Writes(vec![table].leak())].leak() }
    }

    pub(in crate::storage) const fn listed(self) -> (Statement, &'static [Touch]) {
        (self.statement, self.touches)
    }

    /// The tables whose rows it adds, changes or deletes.
    pub(super) fn written(&self) -> impl Iterator<Item = &'static str> {
        let written = |touch: &&Touch| !matches!(touch, Touch::Reads(_));
        self.touches.iter().filter(written).flat_map(Touch::tables).copied()
    }
}

impl Touch {
    pub(in crate::storage) const fn adds(tables: &'static [&'static str]) -> Self {
        Self::Adds(tables)
    }

    pub(in crate::storage) const fn writes(tables: &'static [&'static str]) -> Self {
        Self::Writes(tables)
    }

    pub(in crate::storage) const fn reads(tables: &'static [&'static str]) -> Self {
        Self::Reads(tables)
    }

    fn tables(&self) -> &'static [&'static str] {
        match self {
            Self::Adds(tables) | Self::Writes(tables) | Self::Reads(tables) => tables,
        }
    }

    /// Whether a statement that does this has to wait for one that did `before`, to see its rows.
    ///
    /// New rows may be added beside new rows, and what was only read stays as it was.
    pub(super) fn must_follow(&self, before: &Self) -> bool {
        match (before, self) {
            (Self::Reads(_), _) | (Self::Adds(_), Self::Adds(_)) => false,
            _ => before.tables().iter().any(|table| self.tables().contains(table)),
        }
    }
}

/// Declares statements: `NAME = "SELECT …"` is a [`Query`], and `NAME adds(orders) reads(issuers) = "INSERT …"` a
/// [`Change`]. A second text is PostgreSQL's own. A text is a constant or is made once; `all()` lists them.
macro_rules! statements {
    (@text $name:expr, $both:expr) => { $crate::storage::engine::Statement::both($name, $both) };
    (@text $name:expr, $sqlite:expr, $postgres:expr) => {
        $crate::storage::engine::Statement::each($name, $sqlite, $postgres)
    };
    (@kind) => { $crate::storage::engine::Query };
    (@kind $($verb:ident)+) => { $crate::storage::engine::Change };
    (@made $statement:expr;) => { $crate::storage::engine::Query($statement) };
    (@made $statement:expr; $($verb:ident($($table:ident),+))+) => {
        $crate::storage::engine::Change {
            statement: $statement,
            touches: const { &[$($crate::storage::engine::Touch::$verb(&[$(stringify!($table)),+])),+] },
        }
    };
    ($($name:ident $($verb:ident($($table:ident),+))* = $($text:expr),+;)*) => {
        $(static $name: std::sync::LazyLock<$crate::storage::engine::statements!(@kind $($verb)*)> =
            std::sync::LazyLock::new(|| $crate::storage::engine::statements!(
                @made $crate::storage::engine::statements!(
                    @text concat!(module_path!(), "::", stringify!($name)), $($text),+
                );
                $($verb($($table),+))*
            ));)*
        /// Every statement of this module.
        pub(in crate::storage) fn all() -> Vec<$crate::storage::engine::Listed> {
            vec![$($name.listed()),*]
        }
    };
}
pub(in crate::storage) use statements;

/// A statement in the catalogue, with the tables that it touches.
pub type Listed = (Statement, &'static [Touch]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_follows_what_it_must_see_and_nothing_else() {
        let orders: &[&str] = &["orders"];
        let (adds, writes, reads) =
            (Touch::Adds(orders), Touch::Writes(orders), Touch::Reads(orders));
        let rows = [
            (adds, adds, false),
            (adds, writes, true),
            (adds, reads, true),
            (writes, adds, true),
            (writes, writes, true),
            (writes, reads, true),
            (reads, adds, false),
            (reads, writes, false),
            (reads, reads, false),
        ];
        for (before, next, must) in rows {
            assert_eq!(next.must_follow(&before), must, "{before:?}, then {next:?}");
        }
        assert!(!Touch::Writes(&["issuers"]).must_follow(&writes));
    }
}
