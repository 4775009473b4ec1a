//! Errors of reads, as the client sees them.

use service::ApiError;
use store::reads::ReadError;

use crate::aggregate::MAX_VALUES;
use crate::parameters::bad;

/// Why a response cannot be completed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QueryError {
    /// PostgreSQL has no result.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A bucket has more values than quartiles are computed of.
    #[error(
        "a bucket has more than {MAX_VALUES} values, too many for quartiles; use a finer \
         resolution, or leave out q1, median and q3"
    )]
    TooManyValues,
}

impl From<&QueryError> for ApiError {
    fn from(error: &QueryError) -> Self {
        match error {
            QueryError::Read(error) => api_error(error),
            QueryError::TooManyValues => bad(error.to_string()),
        }
    }
}

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
