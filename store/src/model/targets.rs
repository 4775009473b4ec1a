//! Replacing all targets of a series at once.

use serde_json::{Value, json};

use super::write::{locked, record_change};
use super::{Request, Resource, WriteError};
use crate::Pool;
use crate::reads::connection;

const DELETE: &str = "
    DELETE FROM target WHERE series_id = (
        SELECT s.id FROM series s JOIN device d ON d.id = s.device_id
        WHERE d.external_id = ($1::text[])[1] AND d.deleted_at IS NULL
          AND s.metric = ($1::text[])[2])";

const INSERT: &str = "
    INSERT INTO target (series_id, starts_at, value, updated_by)
    SELECT s.id, new.starts_at, new.value, $3
    FROM series s JOIN device d ON d.id = s.device_id
    CROSS JOIN jsonb_to_recordset($2::text::jsonb) AS new (starts_at timestamptz, value float8)
    WHERE d.external_id = ($1::text[])[1] AND d.deleted_at IS NULL
      AND s.metric = ($1::text[])[2]";

/// Replaces the targets of a series. `targets` is a list of objects with `starts_at` and `value`.
/// Returns the number of targets that were deleted and created.
///
/// # Errors
/// [`WriteError`]; nothing was written.
pub async fn replace(
    pool: &Pool,
    series: &[String],
    targets: &Value,
    request: &Request,
) -> Result<Value, WriteError> {
    let mut client = connection(pool).await?;
    let transaction = client.transaction().await?;
    let found = locked(&transaction, Resource::Series, series).await?;
    found.ok_or(WriteError::NotFound)?;
    let deleted = transaction.execute(DELETE, &[&series]).await?;
    let actor = request.actor.as_str();
    let text = targets.to_string();
    let created = transaction
        .execute(INSERT, &[&series, &text, &actor])
        .await?;
    let (before, after) = (json!({ "targets": deleted }), json!({ "targets": created }));
    let (before, after) = (Some(&before), Some(&after));
    let resource = Resource::Target;
    record_change(
        &transaction,
        resource,
        series,
        "replace",
        actor,
        before,
        after,
    )
    .await?;
    transaction.commit().await?;
    Ok(json!({ "deleted": deleted, "created": created }))
}
