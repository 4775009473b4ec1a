//! Who changed what, and when.

use schema::reading::Micros;
use serde_json::Value;
use tokio_postgres::types::ToSql;

use super::parse;
use crate::Pool;
use crate::ledger::timestamp;
use crate::reads::{self, ReadError};

/// Which changes, and which page of them. Times are microseconds since 1970, `to` is excluded.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Name of a resource, such as `device`.
    pub entity: Option<String>,
    /// The key of the row, its parts separated by `/`.
    pub entity_id: Option<String>,
    /// Who made the change.
    pub actor: Option<String>,
    /// Made at or after this time.
    pub from: Option<Micros>,
    /// Made before this time.
    pub to: Option<Micros>,
    /// The id of the last change of the page before.
    pub after: Option<i64>,
    /// Whether the newest change comes first.
    pub descending: bool,
    /// Upper bound on the changes of the page.
    pub limit: usize,
}

/// Changes, in the order in which they were made, each with its length as text.
///
/// # Errors
/// [`ReadError`].
pub async fn page(pool: &Pool, query: &Query) -> Result<Vec<(Value, usize)>, ReadError> {
    let (operator, direction) = if query.descending {
        ("<", "DESC")
    } else {
        (">", "ASC")
    };
    let sql = format!(
        "SELECT json_build_object('id', id, 'at', gridwatch_time(at), 'actor', actor,
                                  'entity', entity, 'entity_id', entity_id, 'action', action,
                                  'before', before, 'after', after)::text
         FROM change
         WHERE ($1::text IS NULL OR entity = $1) AND ($2::text IS NULL OR entity_id = $2)
           AND ($3::text IS NULL OR actor = $3)
           AND ($4::timestamptz IS NULL OR at >= $4) AND ($5::timestamptz IS NULL OR at < $5)
           AND ($6::bigint IS NULL OR id {operator} $6)
         ORDER BY id {direction} LIMIT $7"
    );
    let (from, to) = (query.from.map(timestamp), query.to.map(timestamp));
    let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
    let parameters: [&(dyn ToSql + Sync); 7] = [
        &query.entity,
        &query.entity_id,
        &query.actor,
        &from,
        &to,
        &query.after,
        &limit,
    ];
    let rows = reads::query(pool, &sql, &parameters).await?;
    let change = |row: &tokio_postgres::Row| {
        let text: &str = row.get(0);
        Ok((parse(text)?, text.len()))
    };
    rows.iter().map(change).collect()
}
