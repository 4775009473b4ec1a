//! Reads: what was stored, for people and programs.
//!
//! In: series and ranges of time. Out: points in the order of time, one slice at a time. A slice
//! is one short query, and the connection returns to the pool after it. The embedded database has
//! a single connection, so that a long query would hold up the worker; a client that disconnects
//! costs at most the slice that is running.

pub mod history;
pub mod incidents;
pub mod latency;
pub mod latest;
pub mod points;
pub mod series;
pub mod subtree;
pub mod tail;
pub mod targets;

use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row};

use crate::Pool;
use crate::error::{ErrorClass, cause, classify};

/// Why a query has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// PostgreSQL cannot be reached or cannot work now. Holds the cause.
    #[error("PostgreSQL is unavailable: {0}")]
    Unavailable(String),
    /// The query took longer than a statement may.
    #[error("the query took longer than the statement timeout")]
    Timeout,
    /// The query failed, and a retry would fail too. Holds the cause.
    #[error("the query failed: {0}")]
    Failed(String),
}

impl From<Error> for ReadError {
    fn from(error: Error) -> Self {
        if error.code() == Some(&SqlState::QUERY_CANCELED) {
            return Self::Timeout;
        }
        match classify(&error) {
            ErrorClass::Transient => Self::Unavailable(cause(&error)),
            _ => Self::Failed(cause(&error)),
        }
    }
}

/// A connection of the pool.
pub(crate) async fn connection(pool: &Pool) -> Result<deadpool_postgres::Object, ReadError> {
    crate::database::get(pool)
        .await
        .map_err(ReadError::Unavailable)
}

/// A connection whose statement is cancelled if this is dropped before [`Self::finish`]: no
/// caller waits for the result any more.
pub(crate) struct CancelOnDrop<'a> {
    pool: &'a Pool,
    client: Option<deadpool_postgres::Object>,
}

impl<'a> CancelOnDrop<'a> {
    /// Takes a connection of the pool.
    pub(crate) async fn connect(pool: &'a Pool) -> Result<Self, ReadError> {
        let client = Some(connection(pool).await?);
        Ok(Self { pool, client })
    }

    /// The connection.
    ///
    /// # Errors
    /// Never: it is there until [`Self::finish`].
    pub(crate) fn client(&self) -> Result<&deadpool_postgres::Object, ReadError> {
        let client = self.client.as_ref();
        client.ok_or_else(|| ReadError::Failed("the connection was returned".into()))
    }

    /// The statement is done. Returns the connection to the pool.
    pub(crate) fn finish(mut self) {
        self.client = None;
    }
}

/// The rows of a statement. If the future is dropped, the statement ends.
///
/// # Errors
/// [`ReadError`].
pub(crate) async fn query(
    pool: &Pool,
    sql: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, ReadError> {
    let connection = CancelOnDrop::connect(pool).await?;
    let client = connection.client()?;
    let rows = async {
        let statement = client.prepare_cached(sql).await?;
        client.query(&statement, parameters).await
    };
    let rows = rows.await;
    connection.finish();
    Ok(rows?)
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            self.pool.cancel(client);
        }
    }
}
