//! The seam at the end of the front end: where batches become durable.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use schema::Batch;
use tokio::time::Instant;

/// Why a batch was not taken. Whether it may be stored all the same is the difference that the books need.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// The batch was refused, or never left the process: it is not stored.
    #[error("{0}")]
    Refused(String),
    /// It was handed over, and no answer came: it may be stored or not. Delivering it once more is harmless.
    #[error("{0}")]
    Unconfirmed(String),
}

/// Takes batches and makes them durable.
pub trait Sink: Send + Sync + 'static {
    /// Returns when the batch is durable: confirmed by a quorum, or synced to a disk.
    ///
    /// The sink may try again until `deadline`, and then gives up; an answer that is under way is waited for even beyond
    /// it, so whoever has less time waits aside. The future must be driven to its end: it owns the confirmation.
    ///
    /// # Errors
    /// [`SinkError`]: not durable, or not known to be.
    fn deliver(&self, batch: Arc<Batch>, deadline: Instant)
    -> BoxFuture<'_, Result<(), SinkError>>;
}
