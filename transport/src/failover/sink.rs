//! The sink of the failover: the primary first, then the spool.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use schema::Batch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::drain::Drain;
use super::{ATTEMPT_TIMEOUT, PrimaryDown};
use crate::spool::{Spool, SpoolSource};
use crate::{Sink, SinkError};

/// Delivers to the primary, or to the spool while the primary is down.
pub struct FailoverSink {
    primary: Arc<dyn Sink>,
    spool: Spool,
    primary_down: PrimaryDown,
    primary_timeout: Duration,
    /// The attempts with the primary, each of which owns a confirmation.
    attempts: TaskTracker,
}

impl FailoverSink {
    /// A sink that gives `primary` up to `primary_timeout` for a batch, and the task that drains
    /// the spool.
    ///
    /// At `stop` the task stops draining and waits for the pending attempts with the primary, for
    /// at most ten seconds. They end at once when the primary closes its connection, so that the
    /// caller stops the primary before it awaits the task.
    pub fn start(
        primary: Arc<dyn Sink>,
        spool: Spool,
        source: SpoolSource,
        primary_timeout: Duration,
        stop: CancellationToken,
    ) -> (Self, JoinHandle<()>) {
        let primary_down = PrimaryDown::default();
        let attempts = TaskTracker::new();
        let drain = Drain::new(primary.clone(), source, primary_down.clone());
        let task = tokio::spawn(run(drain, attempts.clone(), stop));
        let sink = Self {
            primary,
            spool,
            primary_down,
            primary_timeout,
            attempts,
        };
        (sink, task)
    }

    async fn send(&self, batch: Arc<Batch>, deadline: Instant) -> Result<(), SinkError> {
        let mut may_be_stored = false;
        if !self.primary_down.get() {
            let reason = match self.try_primary(batch.clone(), deadline).await {
                Ok(()) => return Ok(()),
                Err(SinkError::Refused(reason)) => reason,
                Err(SinkError::Unconfirmed(reason)) => {
                    may_be_stored = true;
                    reason
                }
            };
            if !self.primary_down.set(true) {
                tracing::warn!(reason, "queue unavailable; spooling to disk");
            }
        }
        let spooled = self.spool.deliver(batch, deadline).await;
        spooled.map_err(|error| match error {
            // The spool refused the batch, but the primary may still store it.
            SinkError::Refused(reason) if may_be_stored => SinkError::Unconfirmed(reason),
            error => error,
        })
    }

    async fn try_primary(&self, batch: Arc<Batch>, deadline: Instant) -> Result<(), SinkError> {
        let deadline = deadline.min(Instant::now() + self.primary_timeout);
        // A separate task, because the confirmation may come after the timeout.
        let primary = self.primary.clone();
        let attempt = self
            .attempts
            .spawn(async move { primary.deliver(batch, deadline).await });
        match tokio::time::timeout_at(deadline, attempt).await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => Err(SinkError::Unconfirmed(panic.to_string())),
            Err(_) => Err(SinkError::Unconfirmed("no confirmation in time".into())),
        }
    }
}

impl Sink for FailoverSink {
    fn deliver(
        &self,
        batch: Arc<Batch>,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<(), SinkError>> {
        self.send(batch, deadline).boxed()
    }
}

/// Drains the spool until `stop`, then waits for the pending attempts.
async fn run(drain: Drain, attempts: TaskTracker, stop: CancellationToken) {
    stop.run_until_cancelled(drain.run()).await;
    attempts.close();
    let ended = tokio::time::timeout(ATTEMPT_TIMEOUT, attempts.wait()).await;
    if ended.is_err() {
        let pending = attempts.len();
        tracing::warn!(
            pending,
            "broker confirmations were still pending at shutdown"
        );
    }
}
