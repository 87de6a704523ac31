//! Writes that nobody has to look at one by one go to the database together.
//!
//! On SQLite each statement costs two switches of threads, and on PostgreSQL a round trip, which is more than
//! most statements themselves do. So such writes are joined into one text, to be run before the next statement
//! whose outcome counts, and at the latest with the commit: on SQLite one behind the other, on
//! PostgreSQL as one statement, which is a transaction by itself where nothing else is asked. Of fenced
//! writes it is known afterwards whether each has found its row; whatever came with one that has not is undone.

use std::fmt::Write as _;

use futures_util::TryStreamExt as _;
use sqlx::postgres::PgDatabaseError;
use sqlx::{
    Arguments as _, AssertSqlSafe, Database, Either, Encode, Executor as _, PgConnection, Postgres,
    Sqlite, SqliteConnection, Type,
};
use uuid::Uuid;

use super::error::undoes_all;
use super::statement::Touch;

/// What has been put off.
pub(in crate::storage) struct Pipeline<D: Database> {
    statements: Vec<Part>,
    values: D::Arguments,
}

struct Part {
    text: String,
    touches: &'static [Touch],
    /// The row that it must change, by a lease that is lost otherwise.
    fence: Option<Uuid>,
}

impl<D: Database> Default for Pipeline<D> {
    fn default() -> Self {
        Self { statements: Vec::new(), values: D::Arguments::default() }
    }
}

impl<D: Database> Pipeline<D> {
    /// Adds a statement, whose values are [bound](Self::bind) next, in order. With a `fence` it must change
    /// that one row, or the lease on it is lost.
    pub(in crate::storage) fn add(
        &mut self,
        statement: &str,
        touches: &'static [Touch],
        fence: Option<Uuid>,
    ) {
        let text = renumbered(statement, self.values.len());
        self.statements.push(Part { text, touches, fence });
    }

    /// Binds a value of the statement that was added last.
    pub(in crate::storage) fn bind<'t, T>(&mut self, value: T) -> Result<(), sqlx::Error>
    where
        T: Encode<'t, D> + Type<D>,
    {
        self.values.add(value).map_err(sqlx::Error::Encode)
    }

    /// Whether there is nothing.
    pub(in crate::storage) fn is_empty(&self) -> bool {
        self.statements.is_empty()
    }

    /// All of it, if there is anything.
    pub(in crate::storage) fn take(&mut self) -> Option<Self> {
        (!self.is_empty()).then(|| std::mem::take(self))
    }
}

impl Pipeline<Sqlite> {
    /// Runs it, behind a statement that has no values, if one is given, and says whose lease was lost. After
    /// that, as after an error, some of it may have been done: the caller undoes it.
    pub(in crate::storage) async fn run(
        &self,
        first: Option<&'static str>,
        connection: &mut SqliteConnection,
    ) -> Result<Option<Uuid>, sqlx::Error> {
        let own = || self.statements.iter();
        let texts = first.into_iter().chain(own().map(|part| part.text.as_str()));
        let text = texts.collect::<Vec<_>>().join(";\n");
        let mut fences = first.iter().map(|_| None).chain(own().map(|part| part.fence));
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
            // What violates a constraint behind a lost fence does so because of it.
            Err(error) if lost.is_none() || undoes_all(&error) => Err(error),
            _ => Ok(lost),
        }
    }
}

/// Statements that PostgreSQL gets as one. There are some dozen different ones of those that are frequent, each
/// of which every connection plans once.
const MOST: usize = 12;

impl Pipeline<Postgres> {
    /// Whether all of it has to be run before a statement that touches this can be added. Statements that run
    /// as one do not see each other's changes, and must not change the same row.
    pub(in crate::storage) fn must_go_before(&self, touches: &[Touch]) -> bool {
        self.statements.len() >= MOST
            || self
                .statements
                .iter()
                .flat_map(|part| part.touches)
                .any(|before| touches.iter().any(|next| next.must_follow(before)))
    }

    /// Runs it, and says whose lease was lost: then nothing of it was done.
    pub(in crate::storage) async fn run(
        self,
        connection: &mut PgConnection,
    ) -> Result<Option<Uuid>, sqlx::Error> {
        let (text, values, only) = self.joined()?;
        let done = sqlx::query_with(AssertSqlSafe(text), values).execute(connection).await;
        match (done, only) {
            (Ok(done), Some(row)) => Ok((done.rows_affected() != 1).then_some(row)),
            (Ok(_), None) => Ok(None),
            (Err(error), _) => lost_lease(&error).map_or(Err(error), |row| Ok(Some(row))),
        }
    }

    /// One statement, with the fence that is to be looked at afterwards where it has one to itself.
    fn joined(
        self,
    ) -> Result<(String, <Postgres as Database>::Arguments, Option<Uuid>), sqlx::Error> {
        let Self { mut statements, mut values } = self;
        if let [_] = statements.as_slice()
            && let Some(only) = statements.pop()
        {
            return Ok((only.text, values, only.fence));
        }
        let (mut parts, mut checks) = (Vec::new(), Vec::new());
        for (place, Part { text, fence, .. }) in statements.iter().enumerate() {
            let Some(row) = fence else {
                parts.push(format!("s{place} AS ({text})"));
                continue;
            };
            values.add(*row).map_err(sqlx::Error::Encode)?;
            let row = values.len();
            parts.push(format!("s{place} AS ({text} RETURNING 1)"));
            checks.push(format!("lease_held((SELECT count(*) FROM s{place}), ${row})"));
        }
        let checks = if checks.is_empty() { "TRUE".to_owned() } else { checks.join(" AND ") };
        Ok((format!("WITH {}\nSELECT {checks}", parts.join(",\n")), values, None))
    }
}

/// The same statement behind so many values of others.
pub(in crate::storage) fn renumbered(statement: &str, bound: usize) -> String {
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

/// Whose lease `lease_held` found to be lost.
fn lost_lease(error: &sqlx::Error) -> Option<Uuid> {
    let error = error.as_database_error()?.try_downcast_ref::<PgDatabaseError>()?;
    (error.code() == "LL001").then(|| error.detail()?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDS: &[Touch] = &[Touch::Adds(&["requests"])];

    #[test]
    fn placeholders_go_on_where_the_statement_before_has_ended() {
        let mut pipeline = Pipeline::<Sqlite>::default();
        pipeline.add("UPDATE a SET b = $2, c = $2 WHERE id = $1", &[], None);
        pipeline.bind(1_i64).unwrap();
        pipeline.bind("b").unwrap();
        pipeline.add("DELETE FROM a WHERE b = $1", &[], None);
        pipeline.bind("b").unwrap();

        let Pipeline { statements, values } = pipeline.take().unwrap();
        let texts: Vec<_> = statements.iter().map(|part| part.text.as_str()).collect();
        let expected = ["UPDATE a SET b = $2, c = $2 WHERE id = $1", "DELETE FROM a WHERE b = $3"];
        assert_eq!((texts.as_slice(), values.len()), (expected.as_slice(), 3));
        assert!(pipeline.take().is_none());
    }

    #[test]
    fn on_postgres_they_are_one_statement_that_fails_with_a_lost_lease() {
        let mut pipeline = Pipeline::<Postgres>::default();
        pipeline.add("UPDATE orders SET state = $2 WHERE id = $1", &[], Some(Uuid::nil()));
        pipeline.bind(Uuid::nil()).unwrap();
        pipeline.bind("ready").unwrap();
        pipeline.add("DELETE FROM reservations WHERE order_id = $1", &[], None);
        pipeline.bind(Uuid::nil()).unwrap();

        let (text, values, only) = pipeline.joined().unwrap();
        assert_eq!(
            text,
            "WITH s0 AS (UPDATE orders SET state = $2 WHERE id = $1 RETURNING 1),\n\
             s1 AS (DELETE FROM reservations WHERE order_id = $3)\n\
             SELECT lease_held((SELECT count(*) FROM s0), $4)"
        );
        assert_eq!((values.len(), only), (4, None));
    }

    #[test]
    fn what_touches_the_same_rows_comes_one_after_the_other() {
        let mut pipeline = Pipeline::<Postgres>::default();
        assert!(!pipeline.must_go_before(&[Touch::Writes(&["orders"])]));
        pipeline.add("INSERT INTO requests (id, state) VALUES ($1, $2)", ADDS, None);

        assert!(!pipeline.must_go_before(ADDS));
        assert!(!pipeline.must_go_before(&[Touch::Writes(&["certificates"])]));
        for next in [
            &[Touch::Writes(&["requests"])][..],
            &[Touch::Adds(&["revisions"]), Touch::Reads(&["requests"])],
            &[Touch::Adds(&["requests"]), Touch::Reads(&["requests"])],
        ] {
            assert!(pipeline.must_go_before(next), "{next:?}");
        }
        let another = &[Touch::Writes(&["sessions"])];
        for _ in 1..MOST {
            assert!(!pipeline.must_go_before(another));
            pipeline.add("INSERT INTO requests (id, state) VALUES ($1, $2)", ADDS, None);
        }
        assert!(pipeline.must_go_before(another), "enough is enough");
    }
}
