//! Deleting: what depends on a row is deleted with it only when the client says so.
//!
//! In: the key of a row, and whether to cascade. Out: what was deleted, and the job that deletes
//! the rest, if that is too much for one transaction. Rows of components, devices and series are
//! deleted first, so that no query shows their readings any more; then their readings, in slices.
//!
//! Front ends read changes of rows, and a missing row is no change. So a deleted device keeps its
//! row, inactive, without series, and under a name that no device can have.

use deadpool_postgres::Transaction;
use serde_json::{Value, json};
use tokio_postgres::Error;
use uuid::Uuid;

use super::remove::{
    Counts, add_counts, added, column, remove_components, remove_devices, remove_series, series_of,
};
use super::write::{check_version, locked, record_change, touch_device};
use super::{Request, Resource, WriteError, component};
use crate::Pool;
use crate::reads::connection;

/// Upper bound on the components and devices that a request deletes itself.
const MAX_ROWS: i64 = 1_000;
/// Upper bound on the readings that a request deletes itself.
const MAX_READINGS: i64 = 5_000;
/// Readings of dependents are counted up to this number.
const MAX_COUNTED: i64 = 10_000;

/// What a request deleted.
#[derive(Debug, Clone, PartialEq)]
pub struct Deletion {
    /// The number of rows of each kind.
    pub deleted: Value,
    /// The job that deletes the rest.
    pub job: Option<Uuid>,
}

/// Deletes a row.
///
/// # Errors
/// [`WriteError`]; nothing was deleted.
pub async fn delete(
    pool: &Pool,
    resource: Resource,
    key: &[String],
    request: &Request,
    cascade: bool,
) -> Result<Deletion, WriteError> {
    let mut client = connection(pool).await?;
    let transaction = client.transaction().await?;
    if resource == Resource::Component {
        component::lock_tree(&transaction).await?;
    }
    let before = locked(&transaction, resource, key).await?;
    let before = before.ok_or(WriteError::NotFound)?;
    check_version(&before, request)?;
    let actor = request.actor.as_str();
    let deletion = match resource {
        Resource::Component => delete_component(&transaction, key, actor, cascade).await?,
        Resource::Device => delete_device(&transaction, key, actor, cascade).await?,
        Resource::Series => {
            let deletion = delete_series(&transaction, key, actor, cascade).await?;
            record(&transaction, resource, key, actor, &before).await?;
            deletion
        }
        Resource::Kind | Resource::Type | Resource::Customer | Resource::Target => {
            check_unused(&transaction, resource, key).await?;
            let (table, has_key) = (resource.table(), resource.has_key());
            let sql = format!("DELETE FROM {table} e WHERE {has_key}");
            transaction.execute(&sql, &[&key]).await.map_err(added)?;
            record(&transaction, resource, key, actor, &before).await?;
            let deleted = json!({ format!("{}s", resource.name()): 1 });
            Deletion { deleted, job: None }
        }
    };
    transaction.commit().await?;
    Ok(deletion)
}

async fn record(
    transaction: &Transaction<'_>,
    resource: Resource,
    key: &[String],
    actor: &str,
    before: &Value,
) -> Result<(), Error> {
    record_change(
        transaction,
        resource,
        key,
        "delete",
        actor,
        Some(before),
        None,
    )
    .await
}

/// Kinds, types and customers are deleted when nothing refers to them.
async fn check_unused(
    transaction: &Transaction<'_>,
    resource: Resource,
    key: &[String],
) -> Result<(), WriteError> {
    let uses: &[(&str, &str)] = match resource {
        Resource::Kind => &[
            ("components", "component WHERE kind = ($1::text[])[1]"),
            (
                "kinds",
                "kind WHERE name <> ($1::text[])[1] AND parents @> jsonb_build_array(
                     jsonb_build_object('kind', ($1::text[])[1]))",
            ),
        ],
        Resource::Type => &[("devices", "device WHERE type = ($1::text[])[1]::uuid")],
        Resource::Customer => &[(
            "components",
            "component WHERE customer = ($1::text[])[1]::uuid",
        )],
        _ => &[],
    };
    let mut dependents = json!({});
    for (name, condition) in uses {
        let sql = format!("SELECT count(*) FROM {condition}");
        let count: i64 = transaction.query_one(&sql, &[&key]).await?.get(0);
        if count > 0 {
            dependents[*name] = count.into();
        }
    }
    if dependents.as_object().is_none_or(serde_json::Map::is_empty) {
        return Ok(());
    }
    Err(WriteError::HasDependents {
        dependents,
        can_cascade: false,
    })
}

async fn delete_series(
    transaction: &Transaction<'_>,
    key: &[String],
    actor: &str,
    cascade: bool,
) -> Result<Deletion, WriteError> {
    let has_key = Resource::Series.has_key();
    let sql = format!("SELECT id FROM series e WHERE {has_key} FOR UPDATE");
    let ids: Vec<i32> = vec![transaction.query_one(&sql, &[&key]).await?.get(0)];
    let readings = check_dependents(transaction, &ids, json!({}), cascade).await?;
    let job = start_job(transaction, None, actor, readings).await?;
    let mut counts = Counts {
        series: remove_series(transaction, &ids, job).await?,
        ..Counts::default()
    };
    touch_device(transaction, key).await?;
    finish(transaction, &ids, job, actor, &mut counts).await
}

async fn delete_device(
    transaction: &Transaction<'_>,
    key: &[String],
    actor: &str,
    cascade: bool,
) -> Result<Deletion, WriteError> {
    let has_key = Resource::Device.has_key();
    let sql = format!("SELECT id FROM device e WHERE {has_key}");
    let devices: Vec<i32> = vec![transaction.query_one(&sql, &[&key]).await?.get(0)];
    let ids = series_of(transaction, &devices).await?;
    let readings = check_dependents(transaction, &ids, json!({}), cascade).await?;
    let job = start_job(transaction, None, actor, readings).await?;
    let mut counts = remove_devices(transaction, &devices, actor, job).await?;
    finish(transaction, &ids, job, actor, &mut counts).await
}

async fn delete_component(
    transaction: &Transaction<'_>,
    key: &[String],
    actor: &str,
    cascade: bool,
) -> Result<Deletion, WriteError> {
    let root = key
        .first()
        .and_then(|id| id.parse::<Uuid>().ok())
        .unwrap_or_default();
    let sql = "SELECT (SELECT count(*) FROM gridwatch_subtree($1)) - 1,
                      (SELECT count(*) FROM device
                       WHERE component IN (SELECT component FROM gridwatch_subtree($1)))";
    let row = transaction.query_one(sql, &[&root]).await?;
    let (components, devices): (i64, i64) = (row.get(0), row.get(1));
    let mut dependents = json!({});
    if components > 0 {
        dependents["components"] = components.into();
    }
    if devices > 0 {
        dependents["devices"] = devices.into();
    }
    if components + devices > MAX_ROWS {
        check_cascade(dependents, cascade)?;
        let job = start_job(transaction, Some(root), actor, i64::MAX).await?;
        let deleted = json!({});
        return Ok(Deletion { deleted, job });
    }
    // Nothing can be attached to these until the end of the transaction.
    let sql = "SELECT id FROM component WHERE id IN (SELECT component FROM gridwatch_subtree($1))
               FOR UPDATE";
    let components = column(&transaction.query(sql, &[&root]).await?);
    // A device that is moved while this waits for its row is not in the result.
    let sql = "SELECT id FROM device WHERE component = ANY($1) ORDER BY external_id FOR UPDATE";
    let devices: Vec<i32> = column(&transaction.query(sql, &[&components]).await?);
    let ids = series_of(transaction, &devices).await?;
    let readings = check_dependents(transaction, &ids, dependents, cascade).await?;
    let job = start_job(transaction, None, actor, readings).await?;
    let mut counts = remove_devices(transaction, &devices, actor, job).await?;
    counts.components = remove_components(transaction, &components, actor).await?;
    finish(transaction, &ids, job, actor, &mut counts).await
}

/// Refuses to delete what has dependents unless the client asked for it. Returns the number of
/// readings, up to a bound.
async fn check_dependents(
    transaction: &Transaction<'_>,
    series: &[i32],
    mut dependents: Value,
    cascade: bool,
) -> Result<i64, WriteError> {
    let sql = "SELECT count(*) FROM
                   (SELECT FROM reading WHERE series_id = ANY($1) LIMIT $2) AS counted";
    let limit = if cascade {
        MAX_READINGS + 1
    } else {
        MAX_COUNTED
    };
    let row = transaction.query_one(sql, &[&series, &limit]).await?;
    let readings: i64 = row.get(0);
    if !series.is_empty() {
        dependents["series"] = series.len().into();
    }
    if readings > 0 {
        dependents["readings"] = readings.into();
        if readings == MAX_COUNTED {
            dependents["readings_counted_up_to"] = MAX_COUNTED.into();
        }
    }
    check_cascade(dependents, cascade)?;
    Ok(readings)
}

fn check_cascade(dependents: Value, cascade: bool) -> Result<(), WriteError> {
    let is_free = dependents.as_object().is_none_or(serde_json::Map::is_empty);
    if cascade || is_free {
        return Ok(());
    }
    Err(WriteError::HasDependents {
        dependents,
        can_cascade: true,
    })
}

/// Creates a job if there is too much for one transaction.
async fn start_job(
    transaction: &Transaction<'_>,
    component: Option<Uuid>,
    actor: &str,
    readings: i64,
) -> Result<Option<Uuid>, Error> {
    if readings <= MAX_READINGS {
        return Ok(None);
    }
    Ok(Some(insert_job(transaction, component, actor).await?))
}

async fn insert_job(
    transaction: &Transaction<'_>,
    component: Option<Uuid>,
    actor: &str,
) -> Result<Uuid, Error> {
    let id = Uuid::now_v7();
    let sql = "INSERT INTO job (id, action, component, actor) VALUES ($1, 'delete', $2, $3)";
    transaction.execute(sql, &[&id, &component, &actor]).await?;
    Ok(id)
}

/// Deletes the readings, or hands the counts so far to the job.
///
/// A worker may be storing readings of the series at this moment. So there is a job in any case; of
/// one that has only those to delete, the client does not learn.
async fn finish(
    transaction: &Transaction<'_>,
    series: &[i32],
    job: Option<Uuid>,
    actor: &str,
    counts: &mut Counts,
) -> Result<Deletion, WriteError> {
    match job {
        Some(job) => add_counts(transaction, job, *counts).await?,
        None if series.is_empty() => {}
        None => {
            let sql = "DELETE FROM reading WHERE series_id = ANY($1)";
            let deleted = transaction.execute(sql, &[&series]).await?;
            counts.readings = i64::try_from(deleted).unwrap_or(i64::MAX);
            let rest = insert_job(transaction, None, actor).await?;
            let sql = "UPDATE deleted_series SET job = $2 WHERE series_id = ANY($1)";
            transaction.execute(sql, &[&series, &rest]).await?;
        }
    }
    let deleted = counts.json();
    Ok(Deletion { deleted, job })
}
