//! What was imported, and when: the newest imports, for people.
//!
//! In: an entry for each import, written when it starts and again when it ends. Out: the entries in
//! the order of their ids. When there are more than `MAX_IMPORTS`, the first ones are removed.

use serde_json::Value;
use tokio_postgres::Row;
use uuid::Uuid;

use super::parse;
use crate::Pool;
use crate::reads::{ReadError, connection};

/// Upper bound on the entries.
const MAX_IMPORTS: i64 = 10_000;

/// An import.
#[derive(Debug, Clone)]
pub struct Import {
    /// Name of the file.
    pub name: String,
    /// SHA-256 of the file.
    pub digest: Option<String>,
    /// What the file has.
    pub kind: String,
    /// Rows that were accepted.
    pub accepted: i64,
    /// Rows that were left out.
    pub left_out: i64,
    /// Whether the file was read to its end.
    pub complete: bool,
}

const DOCUMENT: &str = "
    json_build_object('id', id, 'name', name, 'digest', digest, 'kind', kind,
                      'accepted', accepted, 'left_out', left_out, 'complete', complete,
                      'created_at', gridwatch_time(created_at),
                      'updated_at', gridwatch_time(updated_at), 'updated_by', updated_by)::text";

/// Writes an entry, and returns it.
///
/// # Errors
/// [`ReadError`].
pub async fn put(pool: &Pool, id: Uuid, import: &Import, actor: &str) -> Result<Value, ReadError> {
    let sql = format!(
        "INSERT INTO import (id, name, digest, kind, accepted, left_out, complete, updated_by)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
         ON CONFLICT (id) DO UPDATE SET
             (name, digest, kind, accepted, left_out, complete, updated_at, updated_by) =
             ($2, $3, $4, $5, $6, $7, now(), $8)
         RETURNING {DOCUMENT}"
    );
    let client = connection(pool).await?;
    let written = client
        .query_one(
            &sql,
            &[
                &id,
                &import.name,
                &import.digest,
                &import.kind,
                &import.accepted,
                &import.left_out,
                &import.complete,
                &actor,
            ],
        )
        .await?;
    let remove = "DELETE FROM import WHERE id IN
                      (SELECT id FROM import ORDER BY id DESC OFFSET $1)";
    client.execute(remove, &[&MAX_IMPORTS]).await?;
    document(&written)
}

/// A page of entries behind a position, each with its id as `id`.
///
/// # Errors
/// [`ReadError`].
pub async fn page(
    pool: &Pool,
    after: Option<Uuid>,
    descending: bool,
    limit: usize,
) -> Result<Vec<Value>, ReadError> {
    let (operator, direction) = if descending {
        ("<", "DESC")
    } else {
        (">", "ASC")
    };
    let sql = format!(
        "SELECT {DOCUMENT} FROM import WHERE $1::uuid IS NULL OR id {operator} $1
         ORDER BY id {direction} LIMIT $2"
    );
    let client = connection(pool).await?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = client.query(&sql, &[&after, &limit]).await?;
    rows.iter().map(document).collect()
}

/// An entry.
///
/// # Errors
/// [`ReadError`].
pub async fn get(pool: &Pool, id: Uuid) -> Result<Option<Value>, ReadError> {
    let sql = format!("SELECT {DOCUMENT} FROM import WHERE id = $1");
    let client = connection(pool).await?;
    let row = client.query_opt(&sql, &[&id]).await?;
    row.as_ref().map(document).transpose()
}

fn document(row: &Row) -> Result<Value, ReadError> {
    parse(row.get(0))
}
