//! Writes whose outcome nobody looks at: on SQLite they go to its thread together.
//!
//! Each statement there costs two switches of threads, which is more than most statements themselves do.
//! So such writes are joined into one text, to be run before the next statement whose outcome counts,
//! and at the latest before the commit.

use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments as _, Encode, Sqlite, Type};

/// What has been put off.
#[derive(Default)]
pub(super) struct Later {
    text: String,
    values: SqliteArguments,
}

impl Later {
    /// Adds a statement, whose values are [bound](Self::bind) next, in order.
    pub(super) fn add(&mut self, statement: &str) {
        let bound = self.values.len();
        let mut parts = statement.split('$');
        self.text.push_str(parts.next().unwrap_or_default());
        for part in parts {
            let digits = part.bytes().take_while(u8::is_ascii_digit).count();
            let (number, rest) = part.split_at(digits);
            let number = number.parse::<usize>().unwrap_or_default();
            self.text.push('$');
            self.text.push_str(&(number + bound).to_string());
            self.text.push_str(rest);
        }
        self.text.push_str(";\n");
    }

    /// Binds a value of the statement that was added last.
    pub(super) fn bind<'t, T>(&mut self, value: T) -> Result<(), sqlx::Error>
    where
        T: Encode<'t, Sqlite> + Type<Sqlite>,
    {
        self.values.add(value).map_err(sqlx::Error::Encode)
    }

    /// All of it, if there is anything.
    pub(super) fn take(&mut self) -> Option<(String, SqliteArguments)> {
        let Self { text, values } = std::mem::take(self);
        (!text.is_empty()).then_some((text, values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_go_on_where_the_statement_before_has_ended() {
        let mut later = Later::default();
        later.add("UPDATE a SET b = $2, c = $2 WHERE id = $1");
        later.bind(1_i64).unwrap();
        later.bind("b").unwrap();
        later.add("DELETE FROM a WHERE b = $1");
        later.bind("b").unwrap();

        let (text, values) = later.take().unwrap();
        let joined = "UPDATE a SET b = $2, c = $2 WHERE id = $1;\nDELETE FROM a WHERE b = $3;\n";
        assert_eq!((text.as_str(), values.len()), (joined, 3));
        assert!(later.take().is_none());
    }
}
