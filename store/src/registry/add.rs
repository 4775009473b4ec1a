//! Registering devices with the units of their metrics, for an operator.
//!
//! In: series. Out: how many of them are new. A stored unit is never replaced: when one differs
//! from the given one, nothing is registered.

use tokio_postgres::{Client, Error, Row, Transaction};

use super::NewSeries;
use crate::migrations;

/// What became of the names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Added {
    /// Devices that did not exist.
    pub devices: u64,
    /// Series that did not exist.
    pub series: u64,
    /// Series that existed without a unit and have the given one now.
    pub units: u64,
}

/// A series whose stored unit is not the given one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitConflict {
    /// External id of the device.
    pub device: String,
    /// Name of the metric.
    pub metric: String,
    /// The unit in the table.
    pub stored: String,
    /// The unit that was to be registered.
    pub given: String,
}

/// Why nothing was registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// A sentence with the cause, and what to do if tables are missing.
    #[error("{0}")]
    Failed(String),
    /// These series have another unit, in the order of names.
    #[error("{} series have another unit", .0.len())]
    Units(Vec<UnitConflict>),
}

/// Rows are in the order of names, as in `REGISTER`, so that two processes cannot deadlock.
const ADD_DEVICES: &str = "
    INSERT INTO device (external_id)
    SELECT DISTINCT name FROM unnest($1::text[]) AS wanted (name)
    WHERE NOT EXISTS (SELECT FROM device WHERE external_id = name)
    ORDER BY name
    ON CONFLICT (external_id) DO NOTHING";

const ADD_SERIES: &str = "
    INSERT INTO series (device_id, metric, unit)
    SELECT device.id, wanted.metric, wanted.unit
    FROM unnest($1::text[], $2::text[], $3::text[]) AS wanted (device, metric, unit)
    JOIN device ON external_id = wanted.device
    WHERE NOT EXISTS (SELECT FROM series
                      WHERE device_id = device.id AND series.metric = wanted.metric)
    ORDER BY wanted.device, wanted.metric
    ON CONFLICT (device_id, metric) DO NOTHING";

/// Locks the rows that `ADD_UNITS` changes, in the order of names too: an update has no order.
const LOCK_UNITS: &str = "
    SELECT FROM unnest($1::text[], $2::text[], $3::text[]) AS wanted (device, metric, unit)
    JOIN device ON external_id = wanted.device
    JOIN series ON device_id = device.id AND series.metric = wanted.metric
    WHERE series.unit IS NULL AND wanted.unit IS NOT NULL
    ORDER BY wanted.device, wanted.metric
    FOR NO KEY UPDATE OF series";

const ADD_UNITS: &str = "
    UPDATE series SET unit = wanted.unit
    FROM unnest($1::text[], $2::text[], $3::text[]) AS wanted (device, metric, unit)
    JOIN device ON external_id = wanted.device
    WHERE device_id = device.id AND series.metric = wanted.metric
      AND series.unit IS NULL AND wanted.unit IS NOT NULL";

const DIFFERENT_UNITS: &str = "
    SELECT external_id, series.metric, series.unit, wanted.unit
    FROM unnest($1::text[], $2::text[], $3::text[]) AS wanted (device, metric, unit)
    JOIN device ON external_id = wanted.device
    JOIN series ON device_id = device.id AND series.metric = wanted.metric
    WHERE series.unit <> wanted.unit
    ORDER BY external_id, series.metric";

/// Registers series and their devices in one transaction. Each device and metric occurs once.
///
/// # Errors
/// [`AddError`]; nothing is registered then.
pub async fn add(client: &mut Client, series: &[NewSeries<'_>]) -> Result<Added, AddError> {
    let result = async {
        let transaction = client.transaction().await?;
        let (added, conflicts) = insert(&transaction, series).await?;
        if conflicts.is_empty() {
            transaction.commit().await?;
        } else {
            transaction.rollback().await?;
        }
        Ok::<_, Error>((added, conflicts))
    };
    match result.await {
        Ok((added, conflicts)) if conflicts.is_empty() => Ok(added),
        Ok((_, conflicts)) => Err(AddError::Units(conflicts)),
        Err(error) => Err(AddError::Failed(migrations::explain(client, &error).await)),
    }
}

/// Inserts the names and returns the units that differ. The units are read last, because another
/// process may have registered a name in the meantime.
async fn insert(
    transaction: &Transaction<'_>,
    series: &[NewSeries<'_>],
) -> Result<(Added, Vec<UnitConflict>), Error> {
    let names: Vec<&str> = series.iter().map(|new| new.device).collect();
    let metrics: Vec<&str> = series.iter().map(|new| new.metric).collect();
    let units: Vec<Option<&str>> = series.iter().map(|new| new.unit).collect();
    let devices = transaction.execute(ADD_DEVICES, &[&names]).await?;
    let series = transaction
        .execute(ADD_SERIES, &[&names, &metrics, &units])
        .await?;
    transaction
        .execute(LOCK_UNITS, &[&names, &metrics, &units])
        .await?;
    let units_added = transaction
        .execute(ADD_UNITS, &[&names, &metrics, &units])
        .await?;
    let added = Added {
        devices,
        series,
        units: units_added,
    };
    let rows = transaction
        .query(DIFFERENT_UNITS, &[&names, &metrics, &units])
        .await?;
    let conflict = |row: &Row| UnitConflict {
        device: row.get(0),
        metric: row.get(1),
        stored: row.get(2),
        given: row.get(3),
    };
    Ok((added, rows.iter().map(conflict).collect()))
}
