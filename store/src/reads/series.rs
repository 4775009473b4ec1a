//! Series by name.

use schema::reading::SeriesId;

use super::{ReadError, connection};
use crate::Pool;

/// A series and its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Series {
    /// `series.id`.
    pub id: SeriesId,
    /// External id of its device.
    pub device: String,
    /// Name of its metric.
    pub metric: String,
    /// Unit of its values, if it is known.
    pub unit: Option<String>,
}

const FIND: &str = "
    SELECT s.id, d.external_id, s.metric, s.unit
    FROM device d JOIN series s ON s.device_id = d.id
    WHERE d.external_id = ANY($1) AND ($2::text IS NULL OR s.metric = $2)
    ORDER BY array_position($1, d.external_id), s.metric";

const UNKNOWN: &str = "
    SELECT name FROM unnest($1::text[]) AS wanted (name)
    WHERE NOT EXISTS (SELECT FROM device WHERE external_id = wanted.name)";

/// The series of these devices, in the order of the devices and then of metrics; those of one
/// metric only, if it is given.
///
/// # Errors
/// [`ReadError`].
pub async fn find(
    pool: &Pool,
    devices: &[String],
    metric: Option<&str>,
) -> Result<Vec<Series>, ReadError> {
    let client = connection(pool).await?;
    let statement = client.prepare_cached(FIND).await?;
    let rows = client.query(&statement, &[&devices, &metric]).await?;
    let series = |row: &tokio_postgres::Row| Series {
        id: row.get(0),
        device: row.get(1),
        metric: row.get(2),
        unit: row.get(3),
    };
    Ok(rows.iter().map(series).collect())
}

/// Those of these devices that are not registered.
///
/// # Errors
/// [`ReadError`].
pub async fn unknown_devices(pool: &Pool, devices: &[String]) -> Result<Vec<String>, ReadError> {
    let client = connection(pool).await?;
    let rows = client.query(UNKNOWN, &[&devices]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
