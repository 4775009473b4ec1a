//! Devices with their series, in pages.

use super::{ReadError, connection};
use crate::Pool;

/// A device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its external id.
    pub name: String,
    /// Whether its readings are accepted.
    pub active: bool,
    /// Metric and unit of each of its series, in the order of metrics.
    pub series: Vec<(String, Option<String>)>,
}

const PAGE: &str = "
    SELECT d.external_id, d.active,
           array_remove(array_agg(s.metric ORDER BY s.metric), NULL),
           array_agg(s.unit ORDER BY s.metric)
    FROM (SELECT * FROM device WHERE external_id > $1 AND ($2::text IS NULL OR external_id = $2)
          ORDER BY external_id LIMIT $3) d
    LEFT JOIN series s ON s.device_id = d.id
    GROUP BY d.id, d.external_id, d.active ORDER BY d.external_id";

/// The devices behind an external id, in the order of external ids.
///
/// # Errors
/// [`ReadError`].
pub async fn page(pool: &Pool, after: &str, limit: usize) -> Result<Vec<Device>, ReadError> {
    query(pool, after, None, limit).await
}

/// A device by its external id.
///
/// # Errors
/// [`ReadError`].
pub async fn get(pool: &Pool, name: &str) -> Result<Option<Device>, ReadError> {
    Ok(query(pool, "", Some(name), 1).await?.pop())
}

async fn query(
    pool: &Pool,
    after: &str,
    name: Option<&str>,
    limit: usize,
) -> Result<Vec<Device>, ReadError> {
    let client = connection(pool).await?;
    let statement = client.prepare_cached(PAGE).await?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = client.query(&statement, &[&after, &name, &limit]).await?;
    let device = |row: &tokio_postgres::Row| {
        let metrics: Vec<String> = row.get(2);
        let units: Vec<Option<String>> = row.get(3);
        Device {
            name: row.get(0),
            active: row.get(1),
            series: metrics.into_iter().zip(units).collect(),
        }
    };
    Ok(rows.iter().map(device).collect())
}
