//! Idempotency keys: a `POST` that is retried creates nothing twice.
//!
//! In: a key that the client chose, and a digest of its request. Out: the response to the first
//! request with this key, if there was one. The key is written in the transaction that creates the
//! row, so that a concurrent retry waits for it, and a failed request leaves no key behind.

use deadpool_postgres::Transaction;
use serde_json::Value;

use super::{Request, WriteError, parse};

/// How long a key is kept, and how many expired keys each new one removes.
const REMOVE_EXPIRED: &str = "
    DELETE FROM idempotency WHERE key IN (
        SELECT key FROM idempotency WHERE created_at < now() - interval '24 hours'
        ORDER BY created_at LIMIT 100 FOR UPDATE SKIP LOCKED)";

const CLAIM: &str = "
    INSERT INTO idempotency (key, request) VALUES ($1, $2) ON CONFLICT (key) DO NOTHING";

/// A key and what it was used for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// Chosen by the client.
    pub key: String,
    /// SHA-256 of the path and the body.
    pub request: [u8; 32],
}

/// Takes the key of the request for this transaction. Returns the response to the first request
/// with this key.
pub(super) async fn claim(
    transaction: &Transaction<'_>,
    request: &Request,
) -> Result<Option<Value>, WriteError> {
    let Some(own) = &request.idempotency else {
        return Ok(None);
    };
    transaction.execute(REMOVE_EXPIRED, &[]).await?;
    let digest = &own.request[..];
    if transaction.execute(CLAIM, &[&own.key, &digest]).await? == 1 {
        return Ok(None);
    }
    let sql = "SELECT request, response::text FROM idempotency WHERE key = $1";
    // The key may have expired in between; the client then has to send the request again.
    let Some(row) = transaction.query_opt(sql, &[&own.key]).await? else {
        return Err(WriteError::KeyReused);
    };
    if row.get::<_, &[u8]>(0) != digest {
        return Err(WriteError::KeyReused);
    }
    Ok(Some(parse(row.get(1))?))
}

/// Keeps the response for later requests with the same key.
pub(super) async fn store(
    transaction: &Transaction<'_>,
    request: &Request,
    response: &Value,
) -> Result<(), WriteError> {
    if let Some(own) = &request.idempotency {
        let sql = "UPDATE idempotency SET response = $2::text::jsonb WHERE key = $1";
        transaction
            .execute(sql, &[&own.key, &response.to_string()])
            .await?;
    }
    Ok(())
}
