//! Whole tables, copied from one database into another of either kind.
//!
//! Tables and columns are those that the database itself knows, so that none can be forgotten. Outside of a database a
//! row is a JSON object that is the same whichever database it comes from: identifiers and bytes are hexadecimal,
//! booleans 0 and 1.

use std::collections::BTreeMap;

use futures_util::TryStreamExt as _;
use sqlx::AssertSqlSafe;

use super::{Backend, Change, Query, Read, Statement, StorageError, Tx, execute, fetch};

/// A table and its columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub name: String,
    columns: Vec<Column>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Column {
    name: String,
    kind: Kind,
}

/// What stands in a column. SQLite tells neither identifiers from bytes nor booleans from numbers, and needs not to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Id,
    Bytes,
    Integer,
    Boolean,
    Text,
}

/// The statement that adds rows to a table.
pub struct Insertion(Change);

const COLUMNS: Query = Query(Statement {
    name: "copy::COLUMNS",
    sqlite: "SELECT m.name, c.name, c.type FROM sqlite_schema m JOIN pragma_table_info(m.name) c
        WHERE m.type = 'table' AND m.name NOT LIKE '\\_sqlx%' ESCAPE '\\' AND m.name NOT LIKE 'sqlite%'
        ORDER BY m.name, c.cid",
    postgres: "SELECT table_name::text, column_name::text, udt_name::text FROM information_schema.columns
        WHERE table_schema = 'public' AND table_name NOT LIKE '\\_sqlx%' ORDER BY table_name, ordinal_position",
});

/// Pairs of a table and one that its rows refer to.
const REFERENCES: Query = Query(Statement {
    name: "copy::REFERENCES",
    sqlite: "SELECT m.name, f.\"table\" FROM sqlite_schema m JOIN pragma_foreign_key_list(m.name) f
        WHERE m.type = 'table'",
    postgres: "SELECT conrelid::regclass::text, confrelid::regclass::text
        FROM pg_constraint WHERE contype = 'f' AND connamespace = 'public'::regnamespace",
});

/// Every table, each behind those that its rows refer to.
pub async fn tables(read: &mut Read) -> Result<Vec<Table>, StorageError> {
    let found: Vec<(String, String, String)> = fetch!(fetch_all, read, COLUMNS)?;
    let references: Vec<(String, String)> = fetch!(fetch_all, read, REFERENCES)?;
    let mut tables: BTreeMap<String, Vec<Column>> = BTreeMap::new();
    for (table, name, kind) in found {
        let kind = Kind::parse(&kind)
            .ok_or_else(|| StorageError::UnknownType(format!("{table}.{name}: {kind}")))?;
        tables.entry(table).or_default().push(Column { name, kind });
    }
    let tables = tables.into_iter().map(|(name, columns)| Table { name, columns });
    Ok(behind_their_references(tables.collect(), &references))
}

/// How many rows a table has.
pub async fn count(read: &mut Read, table: &Table) -> Result<u64, StorageError> {
    super::query::Filter::default()
        .count(read, &format!("SELECT 1 FROM {}", quoted(&table.name)))
        .await
}

/// Hands over every row of a table, one at a time.
pub async fn rows<E: From<StorageError>>(
    read: &mut Read,
    table: &Table,
    mut take: impl FnMut(&str) -> Result<(), E>,
) -> Result<(), E> {
    macro_rules! hand_over {
        ($on:ident, $text:expr) => {{
            let text = AssertSqlSafe($text);
            let connection = $on.connection().map_err(StorageError::from)?;
            let mut rows = sqlx::query_scalar::<_, String>(text).fetch(connection);
            while let Some(row) = rows.try_next().await.map_err(StorageError::from)? {
                take(&row)?;
            }
            drop(rows);
            $on.observe(Ok(())).map_err(StorageError::from)?;
        }};
    }
    match &mut read.on {
        Backend::Sqlite(on) => hand_over!(on, table.select_of_sqlite()),
        Backend::Postgres(on) => hand_over!(on, table.select_of_postgres()),
    }
    Ok(())
}

/// Adds rows that [`rows`] has handed over, as a JSON array of them; says how many there were.
pub async fn insert(tx: &mut Tx, insertion: &Insertion, rows: &str) -> Result<u64, StorageError> {
    Ok(execute!(tx, insertion.0, rows)?)
}

impl Kind {
    fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "uuid" => Self::Id,
            "bytea" | "BLOB" => Self::Bytes,
            "int8" | "INTEGER" => Self::Integer,
            "bool" => Self::Boolean,
            "text" | "TEXT" => Self::Text,
            _ => return None,
        })
    }
}

impl Table {
    /// The names of its columns.
    pub fn columns(&self) -> Vec<String> {
        self.columns.iter().map(|column| column.name.clone()).collect()
    }

    /// The statement that adds rows to it; it is kept for the life of the process.
    pub fn insertion(&self) -> Insertion {
        let name = format!("copy::INSERT {}", self.name);
        let statement = Statement::each(name, self.insert_of_sqlite(), self.insert_of_postgres());
        Insertion(Change::of(self.name.clone().leak(), statement))
    }

    fn each(&self, text: impl Fn(&str, Kind) -> String) -> String {
        let texts = self.columns.iter().map(|column| text(&quoted(&column.name), column.kind));
        texts.collect::<Vec<_>>().join(", ")
    }

    fn select_of_sqlite(&self) -> String {
        let values = self.columns.iter().map(|Column { name, kind }| {
            let column = quoted(name);
            match kind {
                // hex(NULL) is an empty text.
                Kind::Bytes => format!("'{name}', iif({column} IS NULL, NULL, hex({column}))"),
                _ => format!("'{name}', {column}"),
            }
        });
        let values = values.collect::<Vec<_>>().join(", ");
        format!("SELECT json_object({values}) FROM {}", quoted(&self.name))
    }

    fn select_of_postgres(&self) -> String {
        let values = self.each(|column, kind| match kind {
            Kind::Id => format!("encode(uuid_send({column}), 'hex') AS {column}"),
            Kind::Bytes => format!("encode({column}, 'hex') AS {column}"),
            Kind::Boolean => format!("{column}::int AS {column}"),
            Kind::Integer | Kind::Text => column.to_owned(),
        });
        let table = quoted(&self.name);
        format!("SELECT row_to_json(r)::text FROM (SELECT {values} FROM {table}) AS r")
    }

    // Without MATERIALIZED SQLite writes the text of a row anew for each of its columns.
    fn insert_of_sqlite(&self) -> String {
        let values = self.columns.iter().map(|Column { name, kind }| match kind {
            Kind::Bytes => format!("unhex(value ->> '{name}')"),
            _ => format!("value ->> '{name}'"),
        });
        let values = values.collect::<Vec<_>>().join(", ");
        format!(
            "WITH given AS MATERIALIZED (SELECT value FROM json_each($1))
             INSERT INTO {} ({}) SELECT {values} FROM given",
            quoted(&self.name),
            self.each(|column, _| column.to_owned())
        )
    }

    fn insert_of_postgres(&self) -> String {
        let given = self.each(|column, kind| match kind {
            Kind::Id => format!("{column} uuid"),
            Kind::Bytes | Kind::Text => format!("{column} text"),
            Kind::Integer => format!("{column} bigint"),
            Kind::Boolean => format!("{column} boolean"),
        });
        let values = self.each(|column, kind| match kind {
            Kind::Bytes => format!("decode({column}, 'hex')"),
            _ => column.to_owned(),
        });
        format!(
            "INSERT INTO {} ({}) SELECT {values} FROM jsonb_to_recordset($1::jsonb) AS given({given})",
            quoted(&self.name),
            self.each(|column, _| column.to_owned())
        )
    }
}

fn quoted(name: &str) -> String {
    format!("\"{name}\"")
}

/// Puts each table behind those that it refers to; those of a circle stay as they come.
fn behind_their_references(mut tables: Vec<Table>, references: &[(String, String)]) -> Vec<Table> {
    let mut ordered: Vec<Table> = Vec::with_capacity(tables.len());
    while !tables.is_empty() {
        let waits = |table: &Table| {
            let others = references.iter().filter(|(from, to)| *from == table.name && from != to);
            others.into_iter().any(|(_, to)| tables.iter().any(|left| left.name == *to))
        };
        let next = tables.iter().position(|table| !waits(table)).unwrap_or_default();
        ordered.push(tables.remove(next));
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, columns: &[(&str, Kind)]) -> Table {
        let columns =
            columns.iter().map(|(name, kind)| Column { name: (*name).into(), kind: *kind });
        Table { name: name.into(), columns: columns.collect() }
    }

    #[test]
    fn a_table_comes_behind_those_that_it_refers_to() {
        let refers = |from: &str, to: &str| (from.to_owned(), to.to_owned());
        let references = [refers("a", "c"), refers("c", "b"), refers("a", "b"), refers("b", "b")];
        let tables = ["a", "b", "c", "d"].map(|name| table(name, &[]));
        let ordered = behind_their_references(tables.to_vec(), &references);
        let names: Vec<_> = ordered.iter().map(|table| &*table.name).collect();
        assert_eq!(names, ["b", "c", "a", "d"]);

        let circle = [refers("a", "b"), refers("b", "a")];
        assert_eq!(behind_their_references(tables.to_vec(), &circle).len(), 4, "none is lost");
    }

    #[test]
    fn postgres_reads_and_writes_the_same_names_by_their_types() {
        use Kind::{Boolean, Bytes, Id, Integer, Text};
        let table =
            table("t", &[("i", Id), ("k", Bytes), ("n", Integer), ("b", Boolean), ("x", Text)]);
        assert_eq!(
            table.select_of_postgres(),
            "SELECT row_to_json(r)::text FROM (SELECT encode(uuid_send(\"i\"), 'hex') AS \"i\", \
             encode(\"k\", 'hex') AS \"k\", \"n\", \"b\"::int AS \"b\", \"x\" FROM \"t\") AS r"
        );
        assert_eq!(
            table.insert_of_postgres(),
            "INSERT INTO \"t\" (\"i\", \"k\", \"n\", \"b\", \"x\") \
             SELECT \"i\", decode(\"k\", 'hex'), \"n\", \"b\", \"x\" FROM jsonb_to_recordset($1::jsonb) \
             AS given(\"i\" uuid, \"k\" text, \"n\" bigint, \"b\" boolean, \"x\" text)"
        );
    }
}
