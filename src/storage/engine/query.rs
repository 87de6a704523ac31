//! Lists with filters: conditions and their values, one page at a time by key.

use sqlx::{AssertSqlSafe, FromRow, postgres::PgRow, sqlite::SqliteRow};
use uuid::Uuid;

use super::{Backend, Read, StorageError};

/// Which part of a list is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// At most so many rows.
    pub limit: u32,
    /// Only what comes after this row.
    pub after: Option<Uuid>,
    /// Newest first.
    pub descending: bool,
    /// Whether all rows are counted, those of other pages too.
    pub counted: bool,
}

/// The rows of a page, one more than asked for if there is a next page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows<T> {
    pub rows: Vec<T>,
    /// The number of rows on all pages, where the page asked for it.
    pub count: Option<u64>,
}

impl<T> Rows<T> {
    /// The same page of something else.
    pub(in crate::storage) fn map<U>(
        self,
        into: impl FnMut(T) -> Result<U, StorageError>,
    ) -> Result<Rows<U>, StorageError> {
        let rows = self.rows.into_iter().map(into).collect::<Result<_, _>>()?;
        Ok(Rows { rows, count: self.count })
    }
}

impl Page {
    /// The first page.
    pub fn first(limit: u32) -> Self {
        Self { limit, after: None, descending: false, counted: false }
    }
}

/// A `WHERE` clause that grows. Texts are constants of this crate; values are always bound.
#[derive(Default)]
pub(in crate::storage) struct Filter {
    conditions: Vec<String>,
    values: Vec<Value>,
}

#[derive(Clone)]
pub(in crate::storage) enum Value {
    Text(String),
    Integer(i64),
    Id(Uuid),
}

impl From<&String> for Value {
    fn from(text: &String) -> Self {
        Self::Text(text.clone())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<Uuid> for Value {
    fn from(id: Uuid) -> Self {
        Self::Id(id)
    }
}

impl Filter {
    /// Binds the list to what the caller may see; `column` holds the namespace.
    pub(in crate::storage) fn within(column: &'static str, allowed: Option<&[String]>) -> Self {
        let mut filter = Self::default();
        if let Some(allowed) = filter.placeholders(allowed) {
            filter.conditions.push(format!("{column} IN ({allowed})"));
        }
        filter
    }

    /// Adds a condition in which `?` stands for the value, if there is one.
    pub(in crate::storage) fn and_if<V: Into<Value>>(
        &mut self,
        condition: &'static str,
        value: Option<V>,
    ) {
        if let Some(value) = value {
            self.and(condition, value.into());
        }
    }

    /// Adds a condition in which `?` stands for the value.
    pub(in crate::storage) fn and(&mut self, condition: &'static str, value: Value) {
        let placeholder = self.bind(value);
        self.conditions.push(condition.replace('?', &placeholder));
    }

    /// Adds a condition in which each `?` stands for the next of the values.
    pub(in crate::storage) fn and_each(
        &mut self,
        condition: &str,
        values: impl IntoIterator<Item = Value>,
    ) {
        let mut text = condition.to_owned();
        for value in values {
            text = text.replacen('?', &self.bind(value), 1);
        }
        self.conditions.push(text);
    }

    /// Adds a condition without a value.
    pub(in crate::storage) fn and_that(&mut self, condition: &'static str) {
        self.conditions.push(condition.to_owned());
    }

    /// Adds a condition in which `?` stands for the placeholders of all these values.
    pub(in crate::storage) fn among(&mut self, condition: &'static str, values: &[String]) {
        let bound: Vec<_> =
            values.iter().map(|value| self.bind(Value::Text(value.clone()))).collect();
        self.conditions.push(condition.replace('?', &bound.join(", ")));
    }

    /// Leaves out what meets a condition in which `?` stands for what the caller may see.
    pub(in crate::storage) fn without(
        &mut self,
        condition: &'static str,
        allowed: Option<&[String]>,
    ) {
        if let Some(allowed) = self.placeholders(allowed) {
            self.conditions.push(format!("NOT {}", condition.replace('?', &allowed)));
        }
    }

    fn placeholders(&mut self, allowed: Option<&[String]>) -> Option<String> {
        let names = allowed?;
        let mut allowed = vec!["''".to_owned()];
        for name in names {
            allowed.push(self.bind(Value::Text(name.clone())));
        }
        Some(allowed.join(", "))
    }

    /// Fetches a page of `select … from …`, in the order of `key`, one row more than asked for so
    /// that the caller sees whether there is a next page.
    pub(in crate::storage) async fn page<R>(
        mut self,
        read: &mut Read,
        select: &str,
        key: &'static str,
        page: Page,
    ) -> Result<Rows<R>, StorageError>
    where
        R: Send + Unpin + for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow>,
    {
        let count = self.counted(read, select, page).await?;
        let (comparison, order) = if page.descending { ("<", "DESC") } else { (">", "ASC") };
        if let Some(after) = page.after {
            let placeholder = self.bind(Value::Id(after));
            self.conditions.push(format!("{key} {comparison} {placeholder}"));
        }
        let rows = self.rows(read, select, &format!("{key} {order}"), page.limit + 1).await?;
        Ok(Rows { rows, count })
    }

    /// Like [`Self::page`], in the order of any column, and of `id` where that is equal; `after` is the last row's
    /// value and identifier.
    pub(in crate::storage) async fn page_by<R>(
        mut self,
        read: &mut Read,
        select: &str,
        column: &'static str,
        after: Option<(Value, Uuid)>,
        page: Page,
    ) -> Result<Rows<R>, StorageError>
    where
        R: Send + Unpin + for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow>,
    {
        let count = self.counted(read, select, page).await?;
        let (comparison, order) = if page.descending { ("<", "DESC") } else { (">", "ASC") };
        if let Some((value, id)) = after {
            let (value, id) = (self.bind(value), self.bind(Value::Id(id)));
            self.conditions.push(format!("({column}, id) {comparison} ({value}, {id})"));
        }
        let order = format!("{column} {order}, id {order}");
        let rows = self.rows(read, select, &order, page.limit + 1).await?;
        Ok(Rows { rows, count })
    }

    /// Counts the rows of `select … from …`, if the page asks for it.
    pub(in crate::storage) async fn counted(
        &self,
        read: &mut Read,
        select: &str,
        page: Page,
    ) -> Result<Option<u64>, StorageError> {
        if page.counted { Ok(Some(self.count(read, select).await?)) } else { Ok(None) }
    }

    /// Counts the rows of `select … from …`.
    pub(in crate::storage) async fn count(
        &self,
        read: &mut Read,
        select: &str,
    ) -> Result<u64, StorageError> {
        let all = format!("{select} {}", self.clause());
        let counting = Self { conditions: Vec::new(), values: self.values.clone() };
        let select = format!("SELECT COUNT(*) FROM ({all}) AS counted");
        let rows: Vec<(i64,)> = counting.rows(read, &select, "1", 1).await?;
        Ok(rows.first().and_then(|(count,)| u64::try_from(*count).ok()).unwrap_or_default())
    }

    /// `WHERE …`, or nothing.
    fn clause(&self) -> String {
        match self.conditions.len() {
            0 => String::new(),
            _ => format!("WHERE {}", self.conditions.join(" AND ")),
        }
    }

    /// Fetches the first rows of `select … from …`, in this order.
    pub(in crate::storage) async fn rows<R>(
        mut self,
        read: &mut Read,
        select: &str,
        order: &str,
        limit: u32,
    ) -> Result<Vec<R>, StorageError>
    where
        R: Send + Unpin + for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow>,
    {
        let limit = self.bind(Value::Integer(limit.into()));
        let filter = self.clause();
        read.flush().await?;
        let text = format!("{select} {filter} ORDER BY {order} LIMIT {limit}");
        macro_rules! fetched {
            ($on:ident) => {{
                let mut query = sqlx::query_as(AssertSqlSafe(text));
                for value in self.values {
                    query = match value {
                        Value::Text(text) => query.bind(text),
                        Value::Integer(number) => query.bind(number),
                        Value::Id(id) => query.bind(id),
                    };
                }
                let rows = query.fetch_all($on.connection()?).await;
                $on.observe(rows)
            }};
        }
        let rows = match &mut read.on {
            Backend::Sqlite(on) => fetched!(on),
            Backend::Postgres(on) => fetched!(on),
        };
        Ok(rows?)
    }

    fn bind(&mut self, value: Value) -> String {
        self.values.push(value);
        format!("${}", self.values.len())
    }
}
