//! Row types: one list of columns makes the type, the columns' part of statements, and the values.

/// Some columns of a table.
#[derive(Debug, Clone, Copy)]
pub(in crate::storage) struct Columns(pub(in crate::storage) &'static [&'static str]);

impl Columns {
    /// `a, b`.
    pub(in crate::storage) fn names(self) -> String {
        self.0.join(", ")
    }

    /// `t.a, t.b`, where the statement calls the table `t`.
    pub(in crate::storage) fn names_of(self, table: &str) -> String {
        self.each(|_, name| format!("{table}.{name}"))
    }

    /// `$4, $5`, behind three other values.
    pub(in crate::storage) fn placeholders_after(self, others: usize) -> String {
        self.each(|place, _| format!("${}", others + place))
    }

    /// `a = $4, b = $5`, behind three other values.
    pub(in crate::storage) fn assignments_after(self, others: usize) -> String {
        self.each(|place, name| format!("{name} = ${}", others + place))
    }

    fn each(self, text: impl Fn(usize, &str) -> String) -> String {
        let texts = (1..).zip(self.0).map(|(place, name)| text(place, name));
        texts.collect::<Vec<_>>().join(", ")
    }
}

/// Declares a row type by its table and columns, with `select` and, where rows are also written, `insert`.
///
/// A row that is also written has three kinds of them: those that are written once (`insert`), those that are
/// written with every change too (`save`), and those that are only read, because statements write them in a way of
/// their own. `write!(tx, INSERT, …; row.bind_inserted)` binds the first two kinds behind the other values, and
/// `write!(tx, SAVE, …; row.bind_saved)` the second.
macro_rules! table {
    (
        $vis:vis struct $row:ident of $table:ident {
            insert { $($inserted:ident: $inserted_type:ty),* $(,)? }
            save { $($saved:ident: $saved_type:ty),* $(,)? }
            read { $($read:ident: $read_type:ty),* $(,)? }
        }
    ) => {
        $crate::storage::engine::table! {
            $vis struct $row of $table {
                $($inserted: $inserted_type,)*
                $($saved: $saved_type,)*
                $($read: $read_type,)*
            }
        }

        impl $row {
            const INSERTED: $crate::storage::engine::Columns = $crate::storage::engine::Columns(
                &[$(stringify!($inserted),)* $(stringify!($saved),)*]
            );
            const SAVED: $crate::storage::engine::Columns =
                $crate::storage::engine::Columns(&[$(stringify!($saved),)*]);

            /// The text that adds a row, with the columns and values of `first` before the row's own.
            fn insert(first: &[(&str, &str)]) -> String {
                let names = first.iter().map(|(name, _)| format!("{name}, ")).collect::<String>();
                let values = first.iter().map(|(_, value)| format!("{value}, ")).collect::<String>();
                format!(
                    "INSERT INTO {} ({names}{}) VALUES ({values}{})",
                    stringify!($table), Self::INSERTED.names(), Self::INSERTED.placeholders_after(first.len())
                )
            }

            fn bind_inserted(&self, on: &mut $crate::storage::engine::Backend) -> Result<(), sqlx::Error> {
                $crate::storage::engine::bind!(self, on, $($inserted)* $($saved)*);
                Ok(())
            }

            fn bind_saved(&self, on: &mut $crate::storage::engine::Backend) -> Result<(), sqlx::Error> {
                $crate::storage::engine::bind!(self, on, $($saved)*);
                Ok(())
            }
        }
    };
    ($vis:vis struct $row:ident of $table:ident { $($column:ident: $type:ty),* $(,)? }) => {
        $vis struct $row {
            $($column: $type,)*
        }

        impl<'r, R: sqlx::Row> sqlx::FromRow<'r, R> for $row
        where
            for<'n> &'n str: sqlx::ColumnIndex<R>,
            usize: sqlx::ColumnIndex<R>,
            $($type: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,)*
        {
            /// Only the first column is looked for by its name: the others follow it, as `COLUMNS` has them.
            fn from_row(row: &'r R) -> Result<Self, sqlx::Error> {
                let first = sqlx::ColumnIndex::index(&Self::COLUMNS.0[0], row)?;
                let mut columns = first..;
                Ok(Self {
                    $($column: $crate::storage::engine::next_of(row, &mut columns, stringify!($column))?,)*
                })
            }
        }

        impl $row {
            $vis const COLUMNS: $crate::storage::engine::Columns =
                $crate::storage::engine::Columns(&[$(stringify!($column)),*]);

            /// The text that reads rows, up to and with its condition.
            $vis fn select(condition: &str) -> String {
                format!("SELECT {} FROM {} {condition}", Self::COLUMNS.names(), stringify!($table))
            }
        }
    };
}

/// The value of a row's next column, which has this name.
pub(in crate::storage) fn next_of<'r, R, T>(
    row: &'r R,
    columns: &mut std::ops::RangeFrom<usize>,
    name: &str,
) -> Result<T, sqlx::Error>
where
    R: sqlx::Row,
    usize: sqlx::ColumnIndex<R>,
    T: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
{
    let at = columns.next().unwrap_or_default();
    debug_assert_eq!(row.columns().get(at).map(sqlx::Column::name), Some(name));
    row.try_get(at)
}

/// Binds columns of a row on either database.
macro_rules! bind {
    ($row:expr, $on:expr, $($column:ident)*) => {
        match $on {
            $crate::storage::engine::Backend::Sqlite(on) => { $(on.pipeline.bind(&$row.$column)?;)* }
            $crate::storage::engine::Backend::Postgres(on) => { $(on.pipeline.bind(&$row.$column)?;)* }
        }
    };
}
pub(in crate::storage) use {bind, table};

#[cfg(test)]
mod tests {
    use super::Columns;

    #[test]
    fn columns_are_named_and_numbered_behind_other_values() {
        let columns = Columns(&["state", "deadline"]);
        assert_eq!(columns.names(), "state, deadline");
        assert_eq!(columns.names_of("o"), "o.state, o.deadline");
        assert_eq!(columns.placeholders_after(2), "$3, $4");
        assert_eq!(columns.assignments_after(0), "state = $1, deadline = $2");
    }
}
