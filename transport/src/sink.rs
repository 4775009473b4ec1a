//! The interface at the end of the front end: where batches become durable.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use schema::Batch;
use tokio::time::Instant;

/// Why a batch is not durable. The balance of the books needs to know whether it may be stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// The batch was refused, or never left the process: it is not stored.
    #[error("{0}")]
    Refused(String),
    /// The batch was sent and no confirmation came: it may or may not be stored. Sending it again
    /// is safe.
    #[error("{0}")]
    Unconfirmed(String),
}

/// Makes batches durable.
pub trait Sink: Send + Sync + 'static {
    /// Returns when the batch is durable: confirmed by a quorum, synced to a disk, or committed.
    ///
    /// The sink may retry until `deadline`. It waits for a confirmation that is pending even beyond
    /// the deadline; a caller with less time has to stop waiting by itself. The future must be
    /// polled to completion, because it owns the confirmation.
    ///
    /// # Errors
    /// [`SinkError`]: the batch is not durable, or not known to be.
    fn deliver(&self, batch: Arc<Batch>, deadline: Instant)
    -> BoxFuture<'_, Result<(), SinkError>>;
}
