//! Errors of reads, as the client sees them.

use service::ApiError;
use store::reads::ReadError;

/// The response to a read that failed. The cause goes to the log.
pub(crate) fn api_error(error: &ReadError) -> ApiError {
    match error {
        ReadError::Unavailable(cause) => {
            tracing::warn!(%cause, "a query failed because PostgreSQL is unavailable");
            ApiError::DatabaseUnavailable
        }
        ReadError::Timeout => ApiError::QueryTimeout,
        ReadError::Failed(cause) => {
            tracing::error!(%cause, "a query failed");
            ApiError::Internal
        }
    }
}
