//! PostgreSQL's format of timestamps.

use schema::clock::POSTGRES_EPOCH;
use schema::reading::Micros;
use tokio_postgres::types::{FromSql, Type};

/// A `timestamptz` in microseconds since 1970-01-01.
pub(crate) struct Timestamp(pub(crate) Micros);

impl<'a> FromSql<'a> for Timestamp {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        let since_2000 = i64::from_be_bytes(raw.try_into()?);
        Ok(Self(since_2000.saturating_add(POSTGRES_EPOCH)))
    }

    fn accepts(of: &Type) -> bool {
        *of == Type::TIMESTAMPTZ
    }
}
