//! Removing rows of the model, as part of a transaction.
//!
//! In: ids. Out: the number of rows that were removed. What was removed is recorded in `change`.

use deadpool_postgres::Transaction;
use serde_json::{Value, json};
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use super::{Resource, WriteError};
use crate::reads::ReadError;

/// Counts of deleted rows.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) components: i64,
    pub(super) devices: i64,
    pub(super) series: i64,
    pub(super) readings: i64,
}

impl Counts {
    pub(super) fn json(self) -> Value {
        let mut json = json!({});
        for (name, count) in [
            ("components", self.components),
            ("devices", self.devices),
            ("series", self.series),
            ("readings", self.readings),
        ] {
            if count > 0 {
                json[name] = count.into();
            }
        }
        json
    }
}

/// Adds what was deleted to the progress of a job. It is then the turn of other jobs.
pub(super) async fn add_counts(
    transaction: &Transaction<'_>,
    job: Uuid,
    counts: Counts,
) -> Result<(), Error> {
    let sql = "UPDATE job SET components = components + $2, devices = devices + $3,
                   series = series + $4, readings = readings + $5, updated_at = now(),
                   due_at = clock_timestamp(), failures = 0, error = NULL
               WHERE id = $1";
    let Counts {
        components,
        devices,
        series,
        readings,
    } = counts;
    transaction
        .execute(sql, &[&job, &components, &devices, &series, &readings])
        .await?;
    Ok(())
}

/// Locks the rows of devices until the end of the transaction, in the order of a registration.
pub(super) async fn lock_devices(
    transaction: &Transaction<'_>,
    devices: &[i32],
) -> Result<(), Error> {
    let lock = "SELECT FROM device WHERE id = ANY($1) ORDER BY external_id FOR UPDATE";
    transaction.execute(lock, &[&devices]).await?;
    Ok(())
}

/// The series of devices, whose rows are locked until the end of the transaction.
pub(super) async fn series_of(
    transaction: &Transaction<'_>,
    devices: &[i32],
) -> Result<Vec<i32>, Error> {
    // The rows of the devices are locked first, as in a registration.
    lock_devices(transaction, devices).await?;
    let sql = "SELECT id FROM series WHERE device_id = ANY($1)";
    Ok(column(&transaction.query(sql, &[&devices]).await?))
}

/// Deletes series. Their targets are deleted with them, and a job may delete their readings.
pub(super) async fn remove_series(
    transaction: &Transaction<'_>,
    ids: &[i32],
    job: Option<Uuid>,
) -> Result<i64, Error> {
    let sql = "INSERT INTO deleted_series (series_id, job)
               SELECT id, $2 FROM unnest($1::integer[]) AS id";
    transaction.execute(sql, &[&ids, &job]).await?;
    let sql = "DELETE FROM series WHERE id = ANY($1)";
    let deleted = transaction.execute(sql, &[&ids]).await?;
    Ok(i64::try_from(deleted).unwrap_or(i64::MAX))
}

/// Deletes devices and their series.
pub(super) async fn remove_devices(
    transaction: &Transaction<'_>,
    ids: &[i32],
    actor: &str,
    job: Option<Uuid>,
) -> Result<Counts, Error> {
    let series = series_of(transaction, ids).await?;
    let document = Resource::Device.document();
    let sql = format!(
        "INSERT INTO change (actor, entity, entity_id, action, before)
         SELECT $2, 'device', e.external_id, 'delete', ({document})::jsonb
         FROM device e WHERE e.id = ANY($1)"
    );
    transaction.execute(&sql, &[&ids, &actor]).await?;
    let series = remove_series(transaction, &series, job).await?;
    let sql = "UPDATE device SET external_id = chr(1) || 'deleted ' || id, active = false,
                   deleted_at = now(), type = NULL, component = NULL, name = NULL, specs = '{}',
                   configuration = '{}', latitude = NULL, longitude = NULL
               WHERE id = ANY($1)";
    let devices = transaction.execute(sql, &[&ids]).await?;
    let sql = "DELETE FROM placement WHERE device_id = ANY($1)";
    transaction.execute(sql, &[&ids]).await?;
    Ok(Counts {
        devices: i64::try_from(devices).unwrap_or(i64::MAX),
        series,
        ..Counts::default()
    })
}

/// Deletes components that have no devices, and no children besides each other.
pub(super) async fn remove_components(
    transaction: &Transaction<'_>,
    ids: &[Uuid],
    actor: &str,
) -> Result<i64, WriteError> {
    let document = Resource::Component.document();
    let sql = format!(
        "INSERT INTO change (actor, entity, entity_id, action, before)
         SELECT $2, 'component', e.id::text, 'delete', ({document})::jsonb
         FROM component e WHERE e.id = ANY($1)"
    );
    transaction.execute(&sql, &[&ids, &actor]).await?;
    let sql = "DELETE FROM component WHERE id = ANY($1)";
    let deleted = transaction.execute(sql, &[&ids]).await.map_err(added)?;
    Ok(i64::try_from(deleted).unwrap_or(i64::MAX))
}

/// A row that refers to a deleted one was added in the meantime: a retry counts it.
pub(super) fn added(error: Error) -> WriteError {
    if error.code() == Some(&SqlState::FOREIGN_KEY_VIOLATION) {
        let cause = "rows were added while their parent was deleted";
        return ReadError::Unavailable(cause.into()).into();
    }
    error.into()
}

/// The first column of rows.
pub(super) fn column<T>(rows: &[tokio_postgres::Row]) -> Vec<T>
where
    T: for<'a> tokio_postgres::types::FromSql<'a>,
{
    rows.iter().map(|row| row.get(0)).collect()
}
