//! Reading, creating and changing one row.

use std::fmt::Write as _;

use deadpool_postgres::Transaction;
use serde_json::Value;
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use super::{Request, Resource, WriteError, component, idempotency, invalid, parse};
use crate::Pool;
use crate::reads::{ReadError, connection};

/// The document of a row.
///
/// # Errors
/// [`ReadError`].
pub async fn get(
    pool: &Pool,
    resource: Resource,
    key: &[String],
) -> Result<Option<Value>, ReadError> {
    let client = connection(pool).await?;
    let sql = select(resource, "");
    let statement = client.prepare_cached(&sql).await?;
    let Some(row) = client.query_opt(&statement, &[&key]).await? else {
        return Ok(None);
    };
    let mut document = parse(row.get(0))?;
    if resource == Resource::Component {
        let missing = component::missing_children(&client, &document).await?;
        document["missing"] = missing;
    }
    Ok(Some(document))
}

fn select(resource: Resource, lock: &str) -> String {
    format!(
        "SELECT {} FROM {} e WHERE {} {lock}",
        resource.document(),
        resource.table(),
        resource.has_key()
    )
}

/// Creates a row. `value` has every field of [`Resource::columns`]. Returns its document.
///
/// # Errors
/// [`WriteError`]; nothing was written.
pub async fn create(
    pool: &Pool,
    resource: Resource,
    key: &[String],
    value: &Value,
    request: &Request,
) -> Result<Value, WriteError> {
    let mut client = connection(pool).await?;
    let transaction = client.transaction().await?;
    if let Some(first) = idempotency::claim(&transaction, request).await? {
        return Ok(first);
    }
    let document = create_in(&transaction, resource, key, value, &request.actor).await?;
    idempotency::store(&transaction, request, &document).await?;
    transaction.commit().await?;
    Ok(document)
}

/// Creates a row within a transaction.
pub(super) async fn create_in(
    transaction: &Transaction<'_>,
    resource: Resource,
    key: &[String],
    value: &Value,
    actor: &str,
) -> Result<Value, WriteError> {
    if resource == Resource::Component {
        component::check_parent(transaction, key, None, value).await?;
    }
    let (mut columns, mut values) = (String::new(), String::new());
    for column in resource.columns() {
        let _ = write!(columns, "{}, ", column.name);
        let _ = write!(values, "new.\"{}\", ", column.field);
    }
    if let Some((column, value)) = resource.key_column() {
        let _ = write!(columns, "{column}, ");
        let _ = write!(values, "{value}, ");
    }
    let sql = format!(
        "INSERT INTO {} ({columns} updated_by) SELECT {values} $3::text FROM {}
         WHERE $1::text[] IS NOT NULL",
        resource.table(),
        record(resource)
    );
    let statement = transaction.prepare_cached(&sql).await?;
    let text = value.to_string();
    let inserted = transaction
        .execute(&statement, &[&key, &text, &actor])
        .await;
    inserted.map_err(|error| reference(resource, error, value))?;
    if resource == Resource::Series {
        touch_device(transaction, key).await?;
    }
    let document = locked(transaction, resource, key).await?;
    let document = document.ok_or(WriteError::NotFound)?;
    record_change(
        transaction,
        resource,
        key,
        "create",
        actor,
        None,
        Some(&document),
    )
    .await?;
    Ok(document)
}

/// Changes a row. `value` has the new value of every field of [`Resource::columns`], which the
/// caller computed from the document `base`, before any lock. Returns the new document; nothing is
/// written when no field changes.
///
/// # Errors
/// [`WriteError`]; nothing was written. [`WriteError::Changed`]: the row is not `base` any more.
pub async fn change(
    pool: &Pool,
    resource: Resource,
    key: &[String],
    request: &Request,
    base: &Value,
    value: &Value,
) -> Result<Value, WriteError> {
    let mut client = connection(pool).await?;
    let transaction = client.transaction().await?;
    if resource == Resource::Component {
        component::lock_tree(&transaction).await?;
    }
    let before = locked(&transaction, resource, key).await?;
    let before = before.ok_or(WriteError::NotFound)?;
    check_version(&before, request)?;
    let mut columns = resource.columns().iter();
    if columns.any(|column| before[column.field] != base[column.field]) {
        return Err(WriteError::Changed);
    }
    let mut columns = resource.columns().iter();
    if columns.all(|column| before[column.field] == value[column.field]) {
        return Ok(before);
    }
    match resource {
        Resource::Component => {
            component::check_parent(&transaction, key, Some(&before), value).await?;
        }
        Resource::Kind => component::check_rules(&transaction, &before, value).await?,
        _ => {}
    }
    let (mut names, mut values) = (String::new(), String::new());
    for column in resource.columns() {
        let _ = write!(names, "{}, ", column.name);
        let _ = write!(values, "new.\"{}\", ", column.field);
    }
    let sql = format!(
        "UPDATE {} e SET ({names} version, updated_at, updated_by) =
             (SELECT {values} e.version + 1, now(), $3::text FROM {}) WHERE {}",
        resource.table(),
        record(resource),
        resource.has_key()
    );
    let statement = transaction.prepare_cached(&sql).await?;
    let text = value.to_string();
    let updated = transaction
        .execute(&statement, &[&key, &text, &request.actor])
        .await;
    updated.map_err(|error| reference(resource, error, value))?;
    let mut new_key = key.to_vec();
    if resource == Resource::Device
        && let Some(name) = value["device"].as_str()
    {
        new_key = vec![name.to_owned()];
    }
    let after = locked(&transaction, resource, &new_key).await?;
    let after = after.ok_or(WriteError::NotFound)?;
    let (before, actor) = (Some(&before), &request.actor);
    record_change(
        &transaction,
        resource,
        key,
        "update",
        actor,
        before,
        Some(&after),
    )
    .await?;
    transaction.commit().await?;
    Ok(after)
}

/// The fields of the JSON text `$2`, as columns of `new`.
fn record(resource: Resource) -> String {
    let mut columns = String::new();
    for column in resource.columns() {
        let comma = if columns.is_empty() { "" } else { ", " };
        let _ = write!(columns, "{comma}\"{}\" {}", column.field, column.sql_type);
    }
    format!("jsonb_to_record($2::text::jsonb) AS new ({columns})")
}

/// The document of a row, which stays as it is until the end of the transaction.
pub(super) async fn locked(
    transaction: &Transaction<'_>,
    resource: Resource,
    key: &[String],
) -> Result<Option<Value>, WriteError> {
    let sql = select(resource, "FOR NO KEY UPDATE OF e");
    let statement = transaction.prepare_cached(&sql).await?;
    let row = transaction.query_opt(&statement, &[&key]).await?;
    Ok(row.map(|row| parse(row.get(0))).transpose()?)
}

/// Whether the row has a version that the client asked for.
///
/// # Errors
/// [`WriteError::VersionMismatch`].
pub fn check_version(document: &Value, request: &Request) -> Result<(), WriteError> {
    let version = document["version"].as_i64().unwrap_or_default();
    match &request.if_match {
        Some(versions) if !versions.contains(&version) => Err(WriteError::VersionMismatch(version)),
        _ => Ok(()),
    }
}

/// Makes front ends read a device again: they learn of its series from changes of the device, and
/// a series that is missing is no change.
pub(super) async fn touch_device(
    transaction: &Transaction<'_>,
    key: &[String],
) -> Result<(), Error> {
    let sql = "UPDATE device SET external_id = external_id
               WHERE external_id = ($1::text[])[1] AND deleted_at IS NULL";
    transaction.execute(sql, &[&key]).await?;
    Ok(())
}

/// Records who changed what.
pub(super) async fn record_change(
    transaction: &Transaction<'_>,
    resource: Resource,
    key: &[String],
    action: &str,
    actor: &str,
    before: Option<&Value>,
    after: Option<&Value>,
) -> Result<(), Error> {
    let sql = "INSERT INTO change (actor, entity, entity_id, action, before, after)
               VALUES ($1, $2, $3, $4, $5::text::jsonb, $6::text::jsonb)";
    let statement = transaction.prepare_cached(sql).await?;
    let (entity, id) = (resource.name(), key.join("/"));
    let before = before.map(ToString::to_string);
    let after = after.map(ToString::to_string);
    transaction
        .execute(
            &statement,
            &[&actor, &entity, &id, &action, &before, &after],
        )
        .await?;
    Ok(())
}

/// The field of a foreign key that refers to nothing.
fn reference(resource: Resource, error: Error, value: &Value) -> WriteError {
    let state = error.code();
    let database = error.as_db_error();
    if state == Some(&SqlState::NOT_NULL_VIOLATION)
        && let Some((column, _)) = resource.key_column()
        && database.and_then(|error| error.column()) == Some(column)
    {
        return WriteError::NotFound;
    }
    let constraint = database.and_then(|error| error.constraint());
    let mut fields = resource.references().iter();
    match fields.find(|(name, _)| constraint == Some(name)) {
        Some((_, field)) if state == Some(&SqlState::FOREIGN_KEY_VIOLATION) => {
            let id = value[field].as_str().unwrap_or_default();
            invalid(&format!("/{field}"), format!("no {field} '{id}' exists"))
        }
        _ => error.into(),
    }
}
