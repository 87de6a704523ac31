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

use super::group_commit::undoes_all;
use crate::storage::queue::lease::Lease;

/// What has been put off.
pub(in crate::storage) struct Later<D: Database> {
    statements: Vec<Part>,
    values: D::Arguments,
}

struct Part {
    text: String,
    /// It must change the one row of this lease.
    fence: Option<Lease>,
}

impl<D: Database> Default for Later<D> {
    fn default() -> Self {
        Self { statements: Vec::new(), values: D::Arguments::default() }
    }
}

impl<D: Database> Later<D> {
    /// Adds a statement, whose values are [bound](Self::bind) next, in order.
    pub(in crate::storage) fn add(&mut self, statement: &str) {
        let text = renumbered(statement, self.values.len());
        self.statements.push(Part { text, fence: None });
    }

    /// Binds a value of the statement that was added last.
    pub(in crate::storage) fn bind<'t, T>(&mut self, value: T) -> Result<(), sqlx::Error>
    where
        T: Encode<'t, D> + Type<D>,
    {
        self.values.add(value).map_err(sqlx::Error::Encode)
    }

    /// The statement that was added last must change a row, or the lease is lost.
    pub(in crate::storage) fn fence(&mut self, lease: Lease) {
        if let Some(last) = self.statements.last_mut() {
            last.fence = Some(lease);
        }
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

impl Later<Sqlite> {
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
                if let Some(lease) = fences.next().flatten()
                    && done.rows_affected() != 1
                {
                    lost.get_or_insert(lease.id);
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

impl Later<Postgres> {
    /// Whether all of it has to be run before `next` can be put off, too. Statements that are run as one do not
    /// see what the others do: none may touch what another has touched.
    pub(in crate::storage) fn must_go_before(&self, next: &str) -> bool {
        self.statements.len() >= MOST
            || self.statements.iter().any(|part| {
                let Some(changed) = table(&part.text) else { return true };
                let adds = |text: &str| text.starts_with("INSERT") && !text.contains("ON CONFLICT");
                match next.matches(changed).count() {
                    0 => false,
                    // New rows beside new rows.
                    1 => !(table(next) == Some(changed) && adds(&part.text) && adds(next)),
                    _ => true,
                }
            })
    }

    /// Runs it, and says whose lease was lost: then nothing of it was done.
    pub(in crate::storage) async fn run(
        self,
        connection: &mut PgConnection,
    ) -> Result<Option<Uuid>, sqlx::Error> {
        let (text, values, only) = self.joined()?;
        let done = sqlx::query_with(AssertSqlSafe(text), values).execute(connection).await;
        match (done, only) {
            (Ok(done), Some(lease)) => Ok((done.rows_affected() != 1).then_some(lease.id)),
            (Ok(_), None) => Ok(None),
            (Err(error), _) => lost_lease(&error).map_or(Err(error), |lease| Ok(Some(lease))),
        }
    }

    /// One statement, with the fence that is to be looked at afterwards where it has one to itself.
    fn joined(
        self,
    ) -> Result<(String, <Postgres as Database>::Arguments, Option<Lease>), sqlx::Error> {
        let Self { mut statements, mut values } = self;
        if let [_] = statements.as_slice()
            && let Some(only) = statements.pop()
        {
            return Ok((only.text, values, only.fence));
        }
        let (mut parts, mut checks) = (Vec::new(), Vec::new());
        for (place, Part { text, fence }) in statements.iter().enumerate() {
            let Some(lease) = fence else {
                parts.push(format!("s{place} AS ({text})"));
                continue;
            };
            values.add(lease.id).map_err(sqlx::Error::Encode)?;
            let lease = values.len();
            parts.push(format!("s{place} AS ({text} RETURNING 1)"));
            checks.push(format!("lease_held((SELECT count(*) FROM s{place}), ${lease})"));
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

/// The table that a statement writes to.
fn table(text: &str) -> Option<&str> {
    let mut words = text.split_whitespace();
    match words.next()? {
        "INSERT" | "DELETE" => words.nth(1),
        "UPDATE" => words.next(),
        _ => None,
    }
}

/// Whose lease `lease_held` found to be lost.
fn lost_lease(error: &sqlx::Error) -> Option<Uuid> {
    let error = error.as_database_error()?.try_downcast_ref::<PgDatabaseError>()?;
    (error.code() == "LL001").then(|| error.detail()?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::queue::lease::Machine;

    #[test]
    fn placeholders_go_on_where_the_statement_before_has_ended() {
        let mut later = Later::<Sqlite>::default();
        later.add("UPDATE a SET b = $2, c = $2 WHERE id = $1");
        later.bind(1_i64).unwrap();
        later.bind("b").unwrap();
        later.add("DELETE FROM a WHERE b = $1");
        later.bind("b").unwrap();

        let Later { statements, values } = later.take().unwrap();
        let texts: Vec<_> = statements.iter().map(|part| part.text.as_str()).collect();
        let expected = ["UPDATE a SET b = $2, c = $2 WHERE id = $1", "DELETE FROM a WHERE b = $3"];
        assert_eq!((texts.as_slice(), values.len()), (expected.as_slice(), 3));
        assert!(later.take().is_none());
    }

    #[test]
    fn on_postgres_they_are_one_statement_that_fails_with_a_lost_lease() {
        let mut later = Later::<Postgres>::default();
        later.add("UPDATE orders SET state = $2 WHERE id = $1");
        later.bind(Uuid::nil()).unwrap();
        later.bind("ready").unwrap();
        later.fence(Lease { machine: Machine::Order, id: Uuid::nil(), token: 1 });
        later.add("DELETE FROM reservations WHERE order_id = $1");
        later.bind(Uuid::nil()).unwrap();

        let (text, values, only) = later.joined().unwrap();
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
        let mut later = Later::<Postgres>::default();
        assert!(!later.must_go_before("UPDATE orders SET state = $1"));
        later.add("INSERT INTO requests (id, state) VALUES ($1, $2)");

        assert!(!later.must_go_before("INSERT INTO requests (id, state) VALUES ($1, $2)"));
        assert!(!later.must_go_before("UPDATE certificates SET request_id = $1"));
        for next in [
            "UPDATE requests SET state = $1",
            "INSERT INTO revisions (id) SELECT id FROM requests",
            "INSERT INTO requests (id) VALUES ($1) ON CONFLICT (id) DO NOTHING",
            "INSERT INTO requests (id) SELECT id FROM requests",
        ] {
            assert!(later.must_go_before(next), "{next}");
        }
        for _ in 1..MOST {
            assert!(!later.must_go_before("DELETE FROM sessions"));
            later.add("INSERT INTO requests (id, state) VALUES ($1, $2)");
        }
        assert!(later.must_go_before("DELETE FROM sessions"), "enough is enough");
    }
}
