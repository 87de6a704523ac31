//! Writes on SQLite that are queued and run together.
//!
//! Each statement on SQLite costs two switches of threads, which is more than most writes themselves do. Queued
//! writes are joined into one text and run before the next question, and at the latest with the commit. Whether
//! each fenced write has found its row is known afterwards; the caller then undoes the whole transaction.

use std::fmt::Write as _;

use futures_util::TryStreamExt as _;
use sqlx::sqlite::SqliteArguments;
use sqlx::{
    Arguments as _, AssertSqlSafe, Either, Encode, Executor as _, Sqlite, SqliteConnection, Type,
};
use uuid::Uuid;

use super::error::undoes_all;

/// Queued writes.
#[derive(Default)]
pub(in crate::storage) struct Pipeline {
    statements: Vec<Queued>,
    values: SqliteArguments,
}

struct Queued {
    text: String,
    /// The row that it must change, by a lease that is lost otherwise.
    fence: Option<Uuid>,
}

impl Pipeline {
    /// Adds a statement, whose values are [bound](Self::bind) next, in order. With a `fence` it must change
    /// that one row, or the lease on it is lost.
    pub(in crate::storage) fn add(&mut self, statement: &str, fence: Option<Uuid>) {
        let text = renumbered(statement, self.values.len());
        self.statements.push(Queued { text, fence });
    }

    /// Binds a value of the statement that was added last.
    pub(in crate::storage) fn bind<'t, T>(&mut self, value: T) -> Result<(), sqlx::Error>
    where
        T: Encode<'t, Sqlite> + Type<Sqlite>,
    {
        self.values.add(value).map_err(sqlx::Error::Encode)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.statements.is_empty()
    }

    /// All of it, if there is anything.
    pub(super) fn take(&mut self) -> Option<Self> {
        (!self.is_empty()).then(|| std::mem::take(self))
    }

    /// Runs it, behind a statement without values if one is given, and returns the row whose lease was lost.
    /// After that, as after an error, some of it may have been done: the caller undoes it.
    pub(super) async fn run(
        &self,
        first: Option<&'static str>,
        connection: &mut SqliteConnection,
    ) -> Result<Option<Uuid>, sqlx::Error> {
        let texts = self.statements.iter().map(|queued| queued.text.as_str());
        let text = first.into_iter().chain(texts).collect::<Vec<_>>().join(";\n");
        let fences = self.statements.iter().map(|queued| queued.fence);
        let mut fences = first.iter().map(|_| None).chain(fences);
        let mut lost = None;
        let ran = async {
            let query = sqlx::query_with(AssertSqlSafe(text), self.values.clone());
            let mut answers = connection.fetch_many(query);
            while let Some(answer) = answers.try_next().await? {
                let Either::Left(done) = answer else { continue };
                if let Some(row) = fences.next().flatten()
                    && done.rows_affected() != 1
                {
                    lost.get_or_insert(row);
                }
            }
            Ok(())
        };
        match ran.await {
            // A constraint that is violated behind a lost fence is violated because of it.
            Err(error) if lost.is_none() || undoes_all(&error) => Err(error),
            _ => Ok(lost),
        }
    }
}

/// The statement with placeholders that begin after `bound` others.
fn renumbered(statement: &str, bound: usize) -> String {
    let mut parts = statement.split('$');
    let mut text = String::with_capacity(statement.len() + 16);
    text.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = part.split_at(digits);
        let number = number.parse::<usize>().unwrap_or_default();
        // Writing into a text cannot fail.
        write!(text, "${}{rest}", number + bound).ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_go_on_where_the_statement_before_has_ended() {
        let mut pipeline = Pipeline::default();
        pipeline.add("UPDATE a SET b = $2, c = $2 WHERE id = $1", None);
        pipeline.bind(1_i64).unwrap();
        pipeline.bind("b").unwrap();
        pipeline.add("DELETE FROM a WHERE b = $1", None);
        pipeline.bind("b").unwrap();

        let Pipeline { statements, values } = pipeline.take().unwrap();
        let texts: Vec<_> = statements.iter().map(|queued| queued.text.as_str()).collect();
        let expected = ["UPDATE a SET b = $2, c = $2 WHERE id = $1", "DELETE FROM a WHERE b = $3"];
        assert_eq!((texts.as_slice(), values.len()), (expected.as_slice(), 3));
        assert!(pipeline.take().is_none());
    }
}
