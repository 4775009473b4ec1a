//! Series by name.

use schema::reading::SeriesId;
use tokio_postgres::Row;

use super::{ReadError, query};
use crate::Pool;

/// What the values of a series are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SeriesKind {
    /// A state, such as a power.
    #[default]
    Gauge,
    /// A register that only grows, rolls over and is reset.
    Counter,
    /// An amount since the reading before, such as the energy of 15 minutes.
    Interval,
}

/// A series and its names.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Series {
    /// `series.id`.
    pub id: SeriesId,
    /// External id of its device.
    pub device: String,
    /// Name of its metric.
    pub metric: String,
    /// Unit of its values, if it is known.
    pub unit: Option<String>,
    /// What its values are.
    pub kind: SeriesKind,
    /// The value at which a counter starts again from 0, if it is known.
    pub rollover: Option<f64>,
    /// Seconds between two readings, if they are known.
    pub expected_interval: Option<f64>,
}

/// The columns of [`Series`], of `series s` and `device d`.
pub(super) const COLUMNS: &str =
    "s.id, d.external_id, s.metric, s.unit, s.kind, s.rollover, d.expected_interval";

impl Series {
    /// A series from [`COLUMNS`], which are the first of a row.
    pub(super) fn from_row(row: &Row) -> Self {
        Self {
            id: row.get(0),
            device: row.get(1),
            metric: row.get(2),
            unit: row.get(3),
            kind: match row.get(4) {
                "counter" => SeriesKind::Counter,
                "interval" => SeriesKind::Interval,
                _ => SeriesKind::Gauge,
            },
            rollover: row.get(5),
            expected_interval: row.get(6),
        }
    }
}

const UNKNOWN: &str = "
    SELECT name FROM unnest($1::text[]) AS wanted (name)
    WHERE NOT EXISTS (SELECT FROM device WHERE external_id = wanted.name)";

const TIME_ZONE: &str = "
    SELECT CASE WHEN min(zone) = max(zone) AND bool_and(zone IS NOT NULL) THEN min(zone) END
    FROM (SELECT gridwatch_time_zone(component) AS zone
          FROM (SELECT DISTINCT component FROM device
                WHERE external_id = ANY($1)) AS own) AS zones";

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
    let sql = format!(
        "SELECT {COLUMNS} FROM device d JOIN series s ON s.device_id = d.id
         WHERE d.external_id = ANY($1) AND ($2::text IS NULL OR s.metric = $2)
         ORDER BY array_position($1, d.external_id), s.metric"
    );
    let rows = query(pool, &sql, &[&devices, &metric]).await?;
    Ok(rows.iter().map(Series::from_row).collect())
}

/// The time zone of the components of these devices. `None`: they differ, or a device has none.
///
/// # Errors
/// [`ReadError`].
pub async fn time_zone(pool: &Pool, devices: &[String]) -> Result<Option<String>, ReadError> {
    let rows = query(pool, TIME_ZONE, &[&devices]).await?;
    Ok(rows.first().and_then(|row| row.get(0)))
}

/// Those of these devices that are not registered.
///
/// # Errors
/// [`ReadError`].
pub async fn unknown_devices(pool: &Pool, devices: &[String]) -> Result<Vec<String>, ReadError> {
    let rows = query(pool, UNKNOWN, &[&devices]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
