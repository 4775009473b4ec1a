//! The drain of the failover: from the spool to the primary, in order.
//!
//! In: records of the spool. Out: their batches are durable at the primary, and acknowledged in the
//! spool. After a failure it retries. A record that is not a valid batch is quarantined.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use schema::{Batch, metric};
use tokio::time::Instant;

use super::{ATTEMPT_TIMEOUT, PrimaryDown, WINDOW};
use crate::Sink;
use crate::spool::{Record, SpoolSource};

/// Pause after an attempt that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

pub(super) struct Drain {
    primary: Arc<dyn Sink>,
    source: SpoolSource,
    primary_down: PrimaryDown,
    /// The batches in flight, each with its sequence.
    window: VecDeque<(u64, Arc<Batch>)>,
}

impl Drain {
    pub(super) fn new(
        primary: Arc<dyn Sink>,
        source: SpoolSource,
        primary_down: PrimaryDown,
    ) -> Self {
        Self {
            primary,
            source,
            primary_down,
            window: VecDeque::new(),
        }
    }

    /// Delivers what is in the spool, and what is appended to it later. Never completes.
    pub(super) async fn run(mut self) {
        loop {
            while self.window.is_empty() {
                self.fill().await;
            }
            let deadline = Instant::now() + ATTEMPT_TIMEOUT;
            let attempts = self
                .window
                .iter()
                .map(|(_, batch)| self.primary.deliver(batch.clone(), deadline));
            let results = join_all(attempts).await;
            // Batches after a failed one are delivered again, which keeps the order.
            let delivered = results.iter().take_while(|result| result.is_ok()).count();
            if let Some((sequence, _)) = self.window.drain(..delivered).next_back() {
                self.source.acknowledge(sequence).await;
                if self.primary_down.set(false) {
                    tracing::info!("queue available again; draining the spool");
                }
            }
            if let Some(Err(error)) = results.get(delivered) {
                let pending = self.window.len();
                tracing::debug!(%error, pending, "cannot drain the spool; retrying");
                self.primary_down.set(true);
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }

    /// Waits for a record, and adds all that were read already.
    async fn fill(&mut self) {
        let mut next = Some(self.source.next_record().await);
        while let Some(record) = next {
            self.add(record).await;
            next = if self.window.len() < WINDOW {
                self.source.try_next_record()
            } else {
                None
            };
        }
    }

    async fn add(&mut self, record: Record) {
        let sequence = record.header.sequence;
        let error = match Batch::decode(&record.payload) {
            Ok(batch) => {
                self.window.push_back((sequence, Arc::new(batch)));
                return;
            }
            Err(error) => error,
        };
        tracing::error!(%error, sequence, "a record of the spool is not a valid batch");
        if self.source.quarantine_rejected(sequence).await {
            let name = metric::POISON_MESSAGES.name;
            metrics::counter!(name, metric::LABEL_CODE => error.code()).increment(1);
        }
    }
}
