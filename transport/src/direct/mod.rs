//! Direct mode: a sink and a source in one process, without a queue in between.
//!
//! In: batches of the front end. Out: the same batches at the intake of a worker in the same
//! process, which stores them like those of a queue. A batch is durable when the worker
//! acknowledges it, which it does after the commit.

mod sink;
mod source;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use schema::Batch;
use tokio::sync::{mpsc, oneshot};

pub use sink::DirectSink;
pub use source::DirectSource;

/// A batch, and where its acknowledgement goes.
type PendingBatch = (Arc<Batch>, oneshot::Sender<()>);

/// A sink and its source, with at most `capacity` batches in between. At the limit the sink waits.
pub fn pair(capacity: usize) -> (DirectSink, DirectSource) {
    let (sender, receiver) = mpsc::channel(capacity);
    (DirectSink::new(sender), DirectSource::new(receiver))
}
