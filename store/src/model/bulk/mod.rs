//! Creating many devices or components at once: COPY into a temporary table, and one statement for
//! each table.
//!
//! In: rows, encoded as they arrive, so that they are in memory once. Out: all of them are created,
//! or nothing is, and every row that cannot be created is reported.

mod components;
mod devices;

use std::fmt::Write as _;

use bytes::{BufMut as _, Bytes, BytesMut};
use deadpool_postgres::Transaction;
use futures_util::SinkExt as _;
use serde_json::{Map, Value, json};
use service::FieldError;
use tokio_postgres::Error;

use super::{Request, Resource, WriteError, idempotency};
use crate::Pool;
use crate::copy::header;
use crate::reads::connection;

/// Upper bound on the errors that are reported.
const MAX_ERRORS: i64 = 100;
/// Bytes that are written to the connection at a time.
const CHUNK: usize = 128 * 1024;

/// The statements may take longer than those of other requests. A few rows are looked up in large
/// tables by their keys, whose indexes are in memory: with the default cost of a random page, each
/// lookup would read a whole table.
const CREATE: &str = "
    SET LOCAL statement_timeout = '60s';
    SET LOCAL random_page_cost = 1.1;
    CREATE TEMPORARY TABLE bulk (line integer, key text, document jsonb) ON COMMIT DROP";

const COPY: &str = "COPY bulk (line, key, document) FROM STDIN (FORMAT binary)";

/// Rows to create.
#[derive(Debug)]
pub struct Rows {
    rows: BytesMut,
    count: usize,
}

impl Default for Rows {
    fn default() -> Self {
        let mut rows = BytesMut::new();
        header(&mut rows);
        Self { rows, count: 0 }
    }
}

impl Rows {
    /// Adds a row. The document has every field of its [`Resource`]; that of a device also has
    /// `series`, a list whose entries have every field of [`Resource::Series`]. `line` is the
    /// number that errors have.
    pub fn push(&mut self, line: usize, key: &str, document: &Value) {
        let document = document.to_string();
        self.rows.put_i16(3);
        self.rows.put_i32(4);
        self.rows.put_i32(i32::try_from(line).unwrap_or(i32::MAX));
        self.rows.put_i32(length(key.len()));
        self.rows.put_slice(key.as_bytes());
        self.rows.put_i32(length(document.len() + 1));
        // The version of the binary format of jsonb.
        self.rows.put_u8(1);
        self.rows.put_slice(document.as_bytes());
        self.count += 1;
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

fn length(bytes: usize) -> i32 {
    i32::try_from(bytes).unwrap_or(i32::MAX)
}

/// What happens to rows whose key exists already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Existing {
    /// They are errors.
    #[default]
    Refuse,
    /// They are left out and counted. What is stored stays as it is.
    Skip,
}

/// Creates devices with their series, or components. Returns the number of each.
///
/// # Errors
/// [`WriteError`]; nothing was created. [`WriteError::Invalid`] has the lines in its errors.
///
/// # Panics
/// The resource is another one.
pub async fn create(
    pool: &Pool,
    resource: Resource,
    rows: Rows,
    existing: Existing,
    request: &Request,
) -> Result<Value, WriteError> {
    let mut client = connection(pool).await?;
    let transaction = client.transaction().await?;
    if let Some(first) = idempotency::claim(&transaction, request).await? {
        return Ok(first);
    }
    transaction.batch_execute(CREATE).await?;
    copy(&transaction, rows).await?;
    transaction.batch_execute("ANALYZE bulk").await?;
    let skipped = match existing {
        Existing::Refuse => 0,
        Existing::Skip => transaction.execute(skip(resource), &[]).await?,
    };
    let mut created = match resource {
        Resource::Component => components::create(&transaction, &request.actor).await?,
        _ => devices::create(&transaction, &request.actor).await?,
    };
    if existing == Existing::Skip {
        let skipped = json!({ plural(resource): skipped });
        created.insert("existing".into(), skipped);
    }
    let response = Value::Object(created);
    idempotency::store(&transaction, request, &response).await?;
    transaction.commit().await?;
    Ok(response)
}

const fn plural(resource: Resource) -> &'static str {
    match resource {
        Resource::Component => "components",
        _ => "devices",
    }
}

const fn skip(resource: Resource) -> &'static str {
    match resource {
        Resource::Component => components::SKIP,
        _ => devices::SKIP,
    }
}

/// What the response says of the rows that were created.
fn created(counts: Value) -> Map<String, Value> {
    Map::from_iter([("created".to_owned(), counts)])
}

/// Runs a query whose rows are errors: line, pointer, reason. `$1` bounds their number.
async fn check(transaction: &Transaction<'_>, sql: &str) -> Result<(), WriteError> {
    let rows = transaction.query(sql, &[&MAX_ERRORS]).await?;
    if rows.is_empty() {
        return Ok(());
    }
    let error = |row: &tokio_postgres::Row| FieldError {
        line: usize::try_from(row.get::<_, i32>(0)).ok(),
        pointer: row.get(1),
        reason: row.get(2),
    };
    Err(WriteError::Invalid(rows.iter().map(error).collect()))
}

/// The statement that creates the rows of `source`, which has a `document`. `key` is a column that
/// is no field, with its value.
fn insert(resource: Resource, source: &str, key: Option<(&str, &str)>, order: &str) -> String {
    let (mut names, mut values, mut record) = (String::new(), String::new(), String::new());
    for column in resource.columns() {
        let comma = if record.is_empty() { "" } else { ", " };
        let _ = write!(names, "{}, ", column.name);
        let _ = write!(values, "new.\"{}\", ", column.field);
        let _ = write!(record, "{comma}\"{}\" {}", column.field, column.sql_type);
    }
    if let Some((name, value)) = key {
        let _ = write!(names, "{name}, ");
        let _ = write!(values, "{value}, ");
    }
    format!(
        "INSERT INTO {} ({names} updated_by) SELECT {values} $1
         FROM {source}, jsonb_to_record({source}.document) AS new ({record}) ORDER BY {order}",
        resource.table()
    )
}

async fn copy(transaction: &Transaction<'_>, rows: Rows) -> Result<(), Error> {
    let mut rows = rows.rows;
    rows.put_i16(-1);
    let mut rows = rows.freeze();
    let sink = transaction.copy_in::<_, Bytes>(COPY).await?;
    let mut sink = std::pin::pin!(sink);
    while !rows.is_empty() {
        let chunk = rows.split_to(rows.len().min(CHUNK));
        sink.feed(chunk).await?;
    }
    sink.finish().await?;
    Ok(())
}
