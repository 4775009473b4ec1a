//! Failover: a sink that puts on a spool what another sink does not take, and delivers it there later.
//!
//! In: batches. Out: each is durable with the primary, or on the spool. While the primary is away, batches go straight to
//! the spool; the drain tries the oldest of them until the primary takes it, which is also how its return is noticed. A
//! batch that the primary may have taken after all is delivered once more, under its id, which the ledger makes harmless.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};
use schema::{Batch, metric};
use service::sink::{Sink, SinkError};
use service::source::{Source as _, Token};
use service::spool::{Spool, SpoolSource};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Batches of the spool that are on their way to the primary together.
pub const WINDOW: usize = 64;
/// How long one attempt to deliver a window may take.
const ATTEMPT: Duration = Duration::from_secs(10);
/// Pause after an attempt that failed.
const PAUSE: Duration = Duration::from_millis(500);

/// See the module.
pub struct FailoverSink {
    primary: Arc<dyn Sink>,
    spool: Spool,
    away: Arc<AtomicBool>,
    patience: Duration,
}

impl FailoverSink {
    /// A sink in front of `primary`, which may take `patience` for a batch, and the drain of the spool, which ends at `stop`.
    pub fn start(
        primary: Arc<dyn Sink>,
        spool: Spool,
        source: SpoolSource,
        patience: Duration,
        stop: CancellationToken,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let away = Arc::new(AtomicBool::new(false));
        let drain = Drain {
            primary: primary.clone(),
            source,
            away: away.clone(),
            window: VecDeque::new(),
        };
        let draining = tokio::spawn(async move {
            stop.run_until_cancelled(drain.run()).await;
        });
        (
            Self {
                primary,
                spool,
                away,
                patience,
            },
            draining,
        )
    }

    async fn send(&self, batch: Arc<Batch>, deadline: Instant) -> Result<(), SinkError> {
        let mut may_be_taken = false;
        if !self.away.load(Ordering::Relaxed) {
            let until = deadline.min(Instant::now() + self.patience);
            // A task of its own: it owns the confirmation, which may come later than anyone waits for it here.
            let (primary, own) = (self.primary.clone(), batch.clone());
            let attempt = tokio::spawn(async move { primary.deliver(own, until).await });
            let outcome = tokio::time::timeout_at(until, attempt).await;
            may_be_taken = !matches!(outcome, Ok(Ok(Err(SinkError::Refused(_)))));
            let reason = match outcome {
                Ok(Ok(Ok(()))) => return Ok(()),
                Ok(Ok(Err(error))) => error.to_string(),
                Ok(Err(panic)) => panic.to_string(),
                Err(_) => "no confirmation in time".into(),
            };
            if !self.away.swap(true, Ordering::Relaxed) {
                tracing::warn!(reason, "the queue takes nothing; readings go to the spool");
            }
        }
        self.spool
            .deliver(batch, deadline)
            .await
            .map_err(|error| match error {
                // The spool has refused it, but the primary may store it yet.
                SinkError::Refused(reason) if may_be_taken => SinkError::Unconfirmed(reason),
                error => error,
            })
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

/// Takes the spool to the primary, in order.
struct Drain {
    primary: Arc<dyn Sink>,
    source: SpoolSource,
    away: Arc<AtomicBool>,
    window: VecDeque<(u64, Arc<Batch>)>,
}

impl Drain {
    async fn run(mut self) {
        loop {
            while self.window.is_empty() {
                self.fill().await;
            }
            let deadline = Instant::now() + ATTEMPT;
            let attempts = self
                .window
                .iter()
                .map(|(_, batch)| self.primary.deliver(batch.clone(), deadline));
            let outcomes = join_all(attempts).await;
            // What was delivered behind a failure is delivered again, so that the order holds.
            let delivered = outcomes
                .iter()
                .take_while(|outcome| outcome.is_ok())
                .count();
            if let Some((sequence, _)) = self.window.drain(..delivered).next_back() {
                self.source.acknowledge(sequence).await;
                if self.away.swap(false, Ordering::Relaxed) {
                    tracing::info!("the queue takes readings again; the spool is delivered");
                }
            }
            if let Some(Err(error)) = outcomes.get(delivered) {
                tracing::debug!(%error, waiting = self.window.len(), "the queue does not take what is in the spool");
                self.away.store(true, Ordering::Relaxed);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Waits for a record, and takes what else is there.
    async fn fill(&mut self) {
        let mut next = Some(self.source.take().await);
        while let Some(record) = next {
            let sequence = record.header.sequence;
            match Batch::decode(&record.payload) {
                Ok(batch) => self.window.push_back((sequence, Arc::new(batch))),
                Err(error) => {
                    tracing::error!(%error, sequence, "a record of the spool is no batch; it is kept aside");
                    if self
                        .source
                        .reject(Token {
                            generation: 1,
                            tag: sequence,
                        })
                        .await
                    {
                        let code = error.code();
                        metrics::counter!(metric::POISON_MESSAGES.name, metric::LABEL_CODE => code)
                            .increment(1);
                    }
                }
            }
            next = if self.window.len() < WINDOW {
                self.source.take_ready()
            } else {
                None
            };
        }
    }
}
