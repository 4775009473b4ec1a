//! The sink of the spool.
//!
//! In: batches, or payloads with their numbers of readings. Out: each is on the disk, or it is
//! refused with the reason.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use schema::{Batch, clock};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::writer::{Append, Command};
use super::{AppendError, Depth, Shared, record};
use crate::{Sink, SinkError};

/// Appends to the spool. Clones share everything.
#[derive(Debug, Clone)]
pub struct Spool {
    commands: mpsc::Sender<Command>,
    pub(super) shared: Arc<Shared>,
}

impl Spool {
    pub(super) fn new(commands: mpsc::Sender<Command>, shared: Arc<Shared>) -> Self {
        Self { commands, shared }
    }

    /// Appends a payload and returns when it is on the disk.
    ///
    /// # Errors
    /// [`AppendError`]: the payload is not in the spool or, if the disk failed, not known to be.
    pub async fn append(&self, payload: Bytes, readings: u32) -> Result<(), AppendError> {
        if payload.len() > record::MAX_PAYLOAD {
            return Err(AppendError::TooLarge);
        }
        let ended = || AppendError::Failed("the writer has ended".into());
        let (reply, result) = oneshot::channel();
        let append = Append {
            payload,
            readings,
            appended_at: clock::now(),
            reply,
        };
        self.commands
            .send(Command::Append(append))
            .await
            .map_err(|_| ended())?;
        result.await.map_err(|_| ended())?
    }

    /// What is in the spool and not acknowledged.
    pub fn depth(&self) -> Depth {
        self.shared.lock().depth
    }

    /// Number of readings that were acknowledged since the spool was opened.
    pub fn acknowledged(&self) -> u64 {
        self.shared.lock().acknowledged
    }

    /// Number of groups that were synced since the spool was opened.
    pub fn syncs(&self) -> u64 {
        self.shared.lock().syncs
    }

    /// Cancelled when the disk has failed: the process has to end.
    pub fn failed(&self) -> CancellationToken {
        self.shared.failed.clone()
    }
}

impl Sink for Spool {
    fn deliver(
        &self,
        batch: Arc<Batch>,
        _deadline: Instant,
    ) -> BoxFuture<'_, Result<(), SinkError>> {
        // A batch has at most 4,096 readings.
        let readings = batch.len() as u32;
        async move { Ok(self.append(batch.encode().into(), readings).await?) }.boxed()
    }
}
