//! Writes that are queued and run together.
//!
//! Each statement on SQLite costs two switches of threads, and on PostgreSQL a round trip, which is more than
//! most writes themselves do. Queued writes are joined into one text and run before the next question, and at the
//! latest with the commit: on SQLite one behind the other, on PostgreSQL as one statement. Whether each fenced
//! write has found its row is known afterwards; the whole transaction is undone if one has not.

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

/// Queued writes.
pub(in crate::storage) struct Pipeline<D: Database> {
    statements: Vec<Queued>,
    values: D::Arguments,
}

struct Queued {
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
        self.statements.push(Queued { text, touches, fence });
    }

    /// Binds a value of the statement that was added last.
    pub(in crate::storage) fn bind<'t, T>(&mut self, value: T) -> Result<(), sqlx::Error>
    where
        T: Encode<'t, D> + Type<D>,
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
}

impl Pipeline<Sqlite> {
    /// Runs it, behind a statement without values if one is given, and returns the row whose lease was lost.
    /// After that some of it may have been done, as after an error: the caller undoes it.
    pub(super) async fn run(
        &self,
        first: Option<&'static str>,
        connection: &mut SqliteConnection,
    ) -> Result<Option<Uuid>, Refused> {
        let texts = self.statements.iter().map(|queued| queued.text.as_str());
        let text = first.into_iter().chain(texts).collect::<Vec<_>>().join(";\n");
        let fences = self.statements.iter().map(|queued| queued.fence);
        let mut fences = first.iter().map(|_| None).chain(fences);
        let (mut lost, mut done) = (None, 0);
        let ran = async {
            let query = sqlx::query_with(AssertSqlSafe(text), self.values.clone());
            let mut answers = connection.fetch_many(query);
            while let Some(answer) = answers.try_next().await? {
                let Either::Left(outcome) = answer else { continue };
                done += 1;
                if let Some(row) = fences.next().flatten()
                    && outcome.rows_affected() != 1
                {
                    lost.get_or_insert(row);
                }
            }
            Ok(())
        };
        match ran.await {
            // A constraint that is violated behind a lost fence is violated because of it.
            Err(error) if lost.is_none() || undoes_all(&error) => {
                let changed_nothing = done == usize::from(first.is_some()) && !undoes_all(&error);
                Err(Refused { error, changed_nothing })
            }
            _ => Ok(lost),
        }
    }
}

/// Why queued writes were not done.
#[derive(Debug)]
pub(super) struct Refused {
    pub error: sqlx::Error,
    /// Whether the very first of them was refused: SQLite undoes a statement that violates a constraint by itself.
    pub changed_nothing: bool,
}

/// The most statements that are joined on PostgreSQL. Every connection plans each different joint statement once;
/// there are some dozens that are frequent.
const MOST_JOINED: usize = 12;

impl Pipeline<Postgres> {
    /// Whether it has to be run before a statement that touches this can be added. The parts of a joint statement
    /// do not see each other's changes, and must not change the same row.
    pub(super) fn must_run_before(&self, touches: &[Touch]) -> bool {
        self.statements.len() >= MOST_JOINED
            || self
                .statements
                .iter()
                .flat_map(|queued| queued.touches)
                .any(|before| touches.iter().any(|next| next.must_follow(before)))
    }

    /// Runs it, and returns the row whose lease was lost: then nothing of it was done.
    pub(super) async fn run(
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

    /// One statement. A single one checks no fence by itself: the caller compares the number of rows.
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
        for (place, Queued { text, fence, .. }) in statements.iter().enumerate() {
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

/// The statement with placeholders that begin after `bound` others.
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

/// The row whose lease `lease_held` (`migrations/postgres`) found to be lost.
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
        let texts: Vec<_> = statements.iter().map(|queued| queued.text.as_str()).collect();
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
        assert!(!pipeline.must_run_before(&[Touch::Writes(&["orders"])]));
        pipeline.add("INSERT INTO requests (id, state) VALUES ($1, $2)", ADDS, None);

        assert!(!pipeline.must_run_before(ADDS));
        assert!(!pipeline.must_run_before(&[Touch::Writes(&["certificates"])]));
        for next in [
            &[Touch::Writes(&["requests"])][..],
            &[Touch::Adds(&["revisions"]), Touch::Reads(&["requests"])],
            &[Touch::Adds(&["requests"]), Touch::Reads(&["requests"])],
        ] {
            assert!(pipeline.must_run_before(next), "{next:?}");
        }
        let another = &[Touch::Writes(&["sessions"])];
        for _ in 1..MOST_JOINED {
            assert!(!pipeline.must_run_before(another));
            pipeline.add("INSERT INTO requests (id, state) VALUES ($1, $2)", ADDS, None);
        }
        assert!(pipeline.must_run_before(another), "no more are joined");
    }
}
