//! Connections to PostgreSQL, and its format of timestamps.

use schema::reading::Micros;
use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{Client, NoTls};

/// Microseconds from 1970-01-01 to 2000-01-01, the epoch of PostgreSQL's timestamps.
const EPOCH: Micros = 946_684_800_000_000;

/// Connects. The connection is driven by a task until the client is dropped.
///
/// # Errors
/// The URL is not valid, or the server is unavailable or rejects the connection.
pub(crate) async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    // The client reports the errors of its connection.
    tokio::spawn(connection);
    Ok(client)
}

/// A `timestamptz` in microseconds since 1970-01-01.
pub(crate) struct Timestamp(pub(crate) Micros);

impl<'a> FromSql<'a> for Timestamp {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        let since_2000 = i64::from_be_bytes(raw.try_into()?);
        Ok(Self(since_2000.saturating_add(EPOCH)))
    }

    fn accepts(of: &Type) -> bool {
        *of == Type::TIMESTAMPTZ
    }
}
