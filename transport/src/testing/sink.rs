//! A sink that hands every batch to the test, which decides on the outcome.

use std::sync::{Arc, Mutex};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use schema::Batch;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::{CAPACITY, within_limit};
use crate::{Sink, SinkError};

/// The sink. Every batch is in flight until the test decides on its outcome.
#[derive(Debug)]
pub struct RecordingSink(mpsc::Sender<SentBatch>);

/// The batches that a [`RecordingSink`] received, in order.
#[derive(Debug)]
pub struct SentBatches(mpsc::Receiver<SentBatch>);

/// A batch in flight. If it is dropped without an outcome, the sink panics.
#[derive(Debug)]
pub struct SentBatch {
    /// The batch.
    pub batch: Arc<Batch>,
    /// Until when the sink may retry.
    pub deadline: Instant,
    outcome: oneshot::Sender<Result<(), SinkError>>,
}

/// The batches whose outcome was decided by [`SentBatches::respond_with`], in order.
pub type RecordedBatches = Arc<Mutex<Vec<Arc<Batch>>>>;

impl RecordingSink {
    /// A sink and what it receives.
    pub fn new() -> (Arc<Self>, SentBatches) {
        let (sender, receiver) = mpsc::channel(CAPACITY);
        (Arc::new(Self(sender)), SentBatches(receiver))
    }
}

impl Sink for RecordingSink {
    fn deliver(
        &self,
        batch: Arc<Batch>,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<(), SinkError>> {
        let (outcome, decided) = oneshot::channel();
        async move {
            let sent = SentBatch {
                batch,
                deadline,
                outcome,
            };
            self.0.try_send(sent).unwrap();
            decided.await.expect("the test decides on every batch")
        }
        .boxed()
    }
}

impl SentBatches {
    /// The next batch.
    ///
    /// # Panics
    /// No batch is sent within the limit.
    pub async fn next(&mut self) -> SentBatch {
        let sent = within_limit("a batch is sent", self.0.recv()).await;
        sent.expect("the sink exists")
    }

    /// The next batch, if it was sent already.
    pub fn try_next(&mut self) -> Option<SentBatch> {
        self.0.try_recv().ok()
    }

    /// Decides on every batch in the same way, in a task. Returns where the batches are recorded.
    pub fn respond_with(mut self, outcome: Result<(), SinkError>) -> RecordedBatches {
        let recorded = RecordedBatches::default();
        let record = recorded.clone();
        tokio::spawn(async move {
            while let Some(sent) = self.0.recv().await {
                record.lock().unwrap().push(sent.batch.clone());
                sent.respond(outcome.clone());
            }
        });
        recorded
    }
}

impl SentBatch {
    /// The batch is durable.
    pub fn confirm(self) {
        self.respond(Ok(()));
    }

    /// The batch is not stored.
    pub fn refuse(self) {
        self.respond(Err(SinkError::Refused("refused".into())));
    }

    /// The batch may be stored or not.
    pub fn leave_unconfirmed(self) {
        self.respond(Err(SinkError::Unconfirmed("unconfirmed".into())));
    }

    /// The sink panics.
    pub fn panic(self) {
        drop(self);
    }

    fn respond(self, outcome: Result<(), SinkError>) {
        // An error means that the caller no longer waits.
        let _ = self.outcome.send(outcome);
    }
}
