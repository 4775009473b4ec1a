//! The sink of direct mode.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use schema::Batch;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::PendingBatch;
use crate::{Sink, SinkError};

/// Sends batches to the worker of this process.
#[derive(Debug)]
pub struct DirectSink(mpsc::Sender<PendingBatch>);

impl DirectSink {
    pub(super) fn new(sender: mpsc::Sender<PendingBatch>) -> Self {
        Self(sender)
    }
}

impl Sink for DirectSink {
    fn deliver(
        &self,
        batch: Arc<Batch>,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<(), SinkError>> {
        async move {
            let stopping = || "the process is stopping".to_owned();
            let (reply, stored) = oneshot::channel();
            let sending = self.0.send((batch, reply));
            match tokio::time::timeout_at(deadline, sending).await {
                Err(_) => {
                    let reason = "PostgreSQL is unavailable or too slow";
                    return Err(SinkError::Refused(reason.into()));
                }
                Ok(Err(_)) => return Err(SinkError::Refused(stopping())),
                Ok(Ok(())) => {}
            }
            stored.await.map_err(|_| SinkError::Unconfirmed(stopping()))
        }
        .boxed()
    }
}
