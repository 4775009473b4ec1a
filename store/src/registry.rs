//! The registry tables: which devices exist, and which series each of them has.
//!
//! In: names to register, or the position from which changes are wanted. Out: devices with their
//! series. Statements that fail change nothing.

mod add;
#[cfg(test)]
mod tests;

use futures_util::TryStreamExt as _;
use schema::reading::SeriesId;
use tokio_postgres::{Client, Error, Row};

pub use self::add::{AddError, Added, UnitConflict, add};
use crate::error::cause;
use crate::{Pool, migrations};

/// Upper bound on the names that one statement registers.
const NAMES_PER_STATEMENT: usize = 20_000;
/// Number of devices that are handed over at a time while changes are read.
const DEVICES_PER_CHUNK: usize = 1_000;

/// A device with all of its series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// `device.id`.
    pub id: i32,
    /// `device.external_id`.
    pub name: String,
    /// `device.active`.
    pub active: bool,
    /// Metric and id of each of its series.
    pub series: Vec<(String, SeriesId)>,
}

/// A series to register: a metric of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NewSeries<'a> {
    /// External id of the device, which is registered too when it is new.
    pub device: &'a str,
    /// Name of the metric.
    pub metric: &'a str,
    /// Unit of the metric, if it is known. A unit that is stored is kept.
    pub unit: Option<&'a str>,
}

/// `DO UPDATE` and not `DO NOTHING`, because only an updated row is returned, and another process
/// may have registered the name in the meantime. Rows are in the order of names, so that two
/// processes cannot deadlock.
const REGISTER: &str = "
    WITH wanted AS (
        SELECT DISTINCT ON (device, metric) device, metric, unit
        FROM unnest($1::text[], $2::text[], $3::text[]) AS new (device, metric, unit)
        ORDER BY device, metric, unit),
    devices AS (
        INSERT INTO device (external_id) SELECT DISTINCT device FROM wanted ORDER BY device
        ON CONFLICT (external_id) DO UPDATE SET external_id = excluded.external_id
        RETURNING id, external_id, active),
    added AS (
        INSERT INTO series (device_id, metric, unit)
        SELECT id, metric, unit FROM wanted JOIN devices ON external_id = device
        ORDER BY device, metric
        ON CONFLICT (device_id, metric)
            DO UPDATE SET unit = coalesce(series.unit, excluded.unit)
        RETURNING id, device_id, metric),
    every AS (
        SELECT id, device_id, metric FROM added
        UNION SELECT s.id, s.device_id, s.metric
              FROM series s JOIN devices d ON d.id = s.device_id)
    SELECT d.id, d.external_id, d.active,
           array_agg(e.metric ORDER BY e.id), array_agg(e.id ORDER BY e.id)
    FROM devices d JOIN every e ON e.device_id = d.id
    GROUP BY d.id, d.external_id, d.active";

const CHANGED: &str = "
    SELECT d.id, d.external_id, d.active,
           array_remove(array_agg(s.metric ORDER BY s.id), NULL),
           array_remove(array_agg(s.id ORDER BY s.id), NULL)
    FROM device d LEFT JOIN series s ON s.device_id = d.id
    WHERE ($1 <> '0' OR d.deleted_at IS NULL)
      AND d.id IN (SELECT id FROM device WHERE changed_in >= $1::text::xid8
                   UNION SELECT device_id FROM series WHERE changed_in >= $1::text::xid8)
    GROUP BY d.id";

/// Registers series and their devices. Returns the devices with all of their series.
///
/// # Errors
/// PostgreSQL's error; the names of earlier statements of the same call remain registered.
pub async fn register(client: &Client, series: &[NewSeries<'_>]) -> Result<Vec<Device>, Error> {
    let mut devices = Vec::new();
    for series in series.chunks(NAMES_PER_STATEMENT) {
        let names: Vec<&str> = series.iter().map(|new| new.device).collect();
        let metrics: Vec<&str> = series.iter().map(|new| new.metric).collect();
        let units: Vec<Option<&str>> = series.iter().map(|new| new.unit).collect();
        let rows = client.query(REGISTER, &[&names, &metrics, &units]).await?;
        devices.extend(rows.iter().map(device));
    }
    Ok(devices)
}

/// Registers series and their devices over a connection of the pool. The devices of each statement
/// are handed to `on_devices`.
///
/// # Errors
/// A sentence with the cause; devices that were handed over before are registered.
pub async fn register_with(
    pool: &Pool,
    series: &[NewSeries<'_>],
    mut on_devices: impl FnMut(Vec<Device>),
) -> Result<(), String> {
    let client = crate::database::get(pool).await?;
    for series in series.chunks(NAMES_PER_STATEMENT) {
        let registered = register(&client, series).await;
        on_devices(registered.map_err(|error| cause(&error))?);
    }
    Ok(())
}

/// How far the changes of the registry have been read: a transaction id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position(String);

impl Default for Position {
    /// Before the first change.
    fn default() -> Self {
        Self("0".into())
    }
}

/// Reads the devices that changed since a position and returns the next position.
///
/// The position is the oldest transaction that was running when the changes were read. Reading from
/// there may return a row twice, but misses none, in whatever order transactions commit.
///
/// # Errors
/// A sentence with the cause; devices that were handed over before are valid.
pub async fn changes_since(
    pool: &Pool,
    position: &Position,
    on_devices: impl FnMut(Vec<Device>),
) -> Result<Position, String> {
    let client = crate::database::get(pool).await?;
    match read_changes(&client, position, on_devices).await {
        Ok(position) => Ok(position),
        Err(error) => Err(migrations::explain(&client, &error).await),
    }
}

async fn read_changes(
    client: &Client,
    position: &Position,
    mut on_devices: impl FnMut(Vec<Device>),
) -> Result<Position, Error> {
    // Before the rows: a transaction that commits in between is read now and again the next time.
    let oldest_running = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text";
    let next = client.query_one(oldest_running, &[]).await?.get(0);
    let rows = client.query_raw(CHANGED, [&position.0]).await?;
    let mut chunks = std::pin::pin!(rows.try_chunks(DEVICES_PER_CHUNK));
    while let Some(rows) = chunks.try_next().await.map_err(|error| error.1)? {
        on_devices(rows.iter().map(device).collect());
    }
    Ok(Position(next))
}

/// A row of id, external id, active, metrics, series ids.
fn device(row: &Row) -> Device {
    let metrics: Vec<String> = row.get(3);
    let ids: Vec<SeriesId> = row.get(4);
    Device {
        id: row.get(0),
        name: row.get(1),
        active: row.get(2),
        series: metrics.into_iter().zip(ids).collect(),
    }
}
