//! Writes that nobody has to look at one by one: on SQLite they go to its thread together.
//!
//! Each statement there costs two switches of threads, which is more than most statements themselves do.
//! So such writes are joined into one text, to be run before the next statement whose outcome counts,
//! and at the latest with the commit. Of fenced writes it is known afterwards whether each has found its
//! row; whatever came behind one that has not is undone with it.

use futures_util::TryStreamExt as _;
use sqlx::sqlite::SqliteArguments;
use sqlx::{
    Arguments as _, AssertSqlSafe, Either, Encode, Executor as _, Sqlite, SqliteConnection, Type,
};
use uuid::Uuid;

use super::lease::Lease;
use super::writer::undoes_all;

/// What has been put off.
#[derive(Default)]
pub(super) struct Later {
    text: String,
    values: SqliteArguments,
    statements: usize,
    fences: Vec<Fence>,
}

/// A statement that changes the one row of a lease that is still held.
struct Fence {
    statement: usize,
    lease: Lease,
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
        self.statements += 1;
    }

    /// Binds a value of the statement that was added last.
    pub(super) fn bind<'t, T>(&mut self, value: T) -> Result<(), sqlx::Error>
    where
        T: Encode<'t, Sqlite> + Type<Sqlite>,
    {
        self.values.add(value).map_err(sqlx::Error::Encode)
    }

    /// The statement that was added last must change a row, or the lease is lost.
    pub(super) fn fence(&mut self, lease: Lease) {
        self.fences.push(Fence { statement: self.statements, lease });
    }

    /// The same behind another statement, which has no values.
    pub(super) fn behind(mut self, first: &str) -> Self {
        self.text.insert_str(0, &format!("{first};\n"));
        self.statements += 1;
        for fence in &mut self.fences {
            fence.statement += 1;
        }
        self
    }

    /// All of it, if there is anything.
    pub(super) fn take(&mut self) -> Option<Self> {
        (self.statements > 0).then(|| std::mem::take(self))
    }

    /// Runs it, and says whose lease was lost. After that, as after an error, some of it may have been
    /// done: the caller undoes it.
    pub(super) async fn run(
        self,
        connection: &mut SqliteConnection,
    ) -> Result<Option<Uuid>, sqlx::Error> {
        let Self { text, values, fences, .. } = self;
        let mut fences = fences.into_iter().peekable();
        let mut lost = None;
        let ran = async {
            let query = sqlx::query_with(AssertSqlSafe(text), values);
            let mut answers = connection.fetch_many(query);
            let mut statement = 0;
            while let Some(answer) = answers.try_next().await? {
                let Either::Left(done) = answer else { continue };
                statement += 1;
                if let Some(fence) = fences.next_if(|fence| fence.statement == statement)
                    && done.rows_affected() != 1
                {
                    lost.get_or_insert(fence.lease.id);
                }
            }
            Ok(())
        };
        match ran.await {
            // What violates a constraint behind a lost fence does so because of it.
            Err(error) if lost.is_none() || undoes_all(&error) => Err(error),
            _ => Ok(lost),
        }
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

        let Later { text, values, .. } = later.take().unwrap();
        let joined = "UPDATE a SET b = $2, c = $2 WHERE id = $1;\nDELETE FROM a WHERE b = $3;\n";
        assert_eq!((text.as_str(), values.len()), (joined, 3));
        assert!(later.take().is_none());
    }
}
