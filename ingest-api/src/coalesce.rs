//! Coalescing: the readings of requests into batches, and batches to the sink.
//!
//! In: submissions, one or more per request. Out: the outcome of each submission, when its batch is
//! durable or is known not to be. The number of batches in flight is bounded; while the limit is
//! reached, new submissions join the next batch, which is sent as soon as one in flight is done.
//! There is no timer: a lone request is sent at once, a thousand concurrent ones share a message.
//! The number of pending readings is bounded; beyond it a submission is refused. The counters of
//! the books are incremented here when the outcome is known, so that a client that disconnects
//! changes nothing in them.

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use metrics::{Counter, Gauge};
use schema::Batch;
use schema::batch::{MAX_READINGS, Receipt};
use schema::clock::{self, Stage};
use schema::metric;
use schema::partition::{Days, MAX_DAYS};
use schema::reading::{Micros, Reading};
use service::histogram::LocalHistogram;
use service::log_limit::LogLimit;
use service::metrics::Histograms;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use transport::{Sink, SinkError};

/// Upper bound on pending submissions. Most have many readings, so that the limit on readings is
/// reached first; this one is for requests of a single reading.
const MAX_SUBMISSIONS: usize = 16_384;

/// How often the coalescer yields to other tasks without a new submission before it sends a batch.
/// Requests that arrive in between join the batch. This is not a timer: on an idle process the
/// yields return at once.
const IDLE_YIELDS: usize = 4;

/// The outcome of a submission.
pub type Outcome = Result<(), SinkError>;

/// Readings of one request, at most [`MAX_READINGS`].
#[derive(Debug)]
struct Submission {
    readings: Vec<Reading>,
    days: Days,
    received_at: Micros,
    reply: oneshot::Sender<Outcome>,
    /// Shared by the parts of a request that has several.
    refused: Option<RefusedRequest>,
    permit: OwnedSemaphorePermit,
}

/// Why a part of a request was refused. The client has to retry the whole request, so that the
/// parts that were not sent by then are refused as well.
type RefusedRequest = Arc<OnceLock<String>>;

impl Submission {
    fn refused(&self) -> Option<&String> {
        self.refused.as_ref()?.get()
    }
}

/// The limit on pending readings is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// How the coalescer behaves.
#[derive(Debug, Clone)]
pub struct Config {
    /// Upper bound on batches in flight.
    pub max_in_flight: usize,
    /// Upper bound on readings that wait for their outcome.
    pub max_pending: usize,
    /// How long the sink may retry.
    pub deliver_timeout: Duration,
}

/// Accepts the readings of requests. When the last handle is dropped, the coalescer delivers what
/// is pending and ends.
#[derive(Debug, Clone)]
pub struct Coalescer {
    queue: mpsc::Sender<Submission>,
    pending: Arc<PendingReadings>,
}

/// The limit on pending readings, and how many there are.
struct PendingReadings {
    available: Arc<Semaphore>,
    limit: usize,
    gauge: Gauge,
}

impl std::fmt::Debug for PendingReadings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PendingReadings({:?} of {})", self.available, self.limit)
    }
}

impl PendingReadings {
    fn update_gauge(&self) {
        let pending = self.limit - self.available.available_permits();
        self.gauge.set(pending as f64);
    }
}

impl Coalescer {
    /// Starts the coalescer as a task of `tasks`.
    pub fn start(
        config: Config,
        sink: Arc<dyn Sink>,
        histograms: Arc<Histograms>,
        tasks: &TaskTracker,
    ) -> Self {
        let (queue, receiver) = mpsc::channel(MAX_SUBMISSIONS);
        let limit = config.max_pending.min(Semaphore::MAX_PERMITS);
        let pending = Arc::new(PendingReadings {
            available: Arc::new(Semaphore::new(limit)),
            limit,
            gauge: metrics::gauge!(metric::PENDING.name),
        });
        let delivery = Arc::new(Delivery::new(
            config.deliver_timeout,
            sink,
            histograms,
            pending.clone(),
        ));
        tasks.spawn(run(receiver, config.max_in_flight, delivery));
        Self { queue, pending }
    }

    /// Submits the readings of one request, all of them or none. Each receiver gets the outcome of
    /// its part.
    ///
    /// # Errors
    /// [`Full`]: none of them was accepted.
    pub fn submit(
        &self,
        readings: Vec<Reading>,
        received_at: Micros,
    ) -> Result<Vec<oneshot::Receiver<Outcome>>, Full> {
        let count = u32::try_from(readings.len()).map_err(|_| Full)?;
        let parts = split(readings);
        let slots = self.queue.try_reserve_many(parts.len()).map_err(|_| Full)?;
        let mut permit = self
            .pending
            .available
            .clone()
            .try_acquire_many_owned(count)
            .map_err(|_| Full)?;
        let refused = (parts.len() > 1).then(RefusedRequest::default);
        let mut outcomes = Vec::with_capacity(parts.len());
        for (slot, (readings, days)) in slots.zip(parts) {
            let (reply, outcome) = oneshot::channel();
            // Never `None`: the sizes of the parts add up to what was acquired.
            let Some(permit) = permit.split(readings.len()) else {
                return Err(Full);
            };
            slot.send(Submission {
                readings,
                days,
                received_at,
                reply,
                refused: refused.clone(),
                permit,
            });
            outcomes.push(outcome);
        }
        self.pending.update_gauge();
        Ok(outcomes)
    }
}

/// Splits the readings of a request into parts that fit into a batch, in order, each with its days.
fn split(readings: Vec<Reading>) -> Vec<(Vec<Reading>, Days)> {
    let mut parts = Vec::new();
    let mut rest = readings;
    while !rest.is_empty() {
        let mut days = Days::default();
        let mut end = 0;
        while end < rest.len().min(MAX_READINGS) && days.len() < MAX_DAYS {
            days.insert(rest[end].measured_at);
            end += 1;
        }
        let tail = rest.split_off(end);
        parts.push((std::mem::replace(&mut rest, tail), days));
    }
    parts
}

async fn run(mut queue: mpsc::Receiver<Submission>, max_in_flight: usize, delivery: Arc<Delivery>) {
    let slots = Arc::new(Semaphore::new(max_in_flight));
    let deliveries = TaskTracker::new();
    let mut next = None;
    loop {
        let first = match next.take() {
            Some(first) => first,
            None => match queue.recv().await {
                Some(first) => first,
                None => break,
            },
        };
        // The semaphore is never closed.
        let Ok(slot) = slots.clone().acquire_owned().await else {
            break;
        };
        let mut submissions = Vec::new();
        let mut readings = 0;
        let mut days = Days::default();
        let mut idle_yields = 0;
        next = Some(first);
        while idle_yields < IDLE_YIELDS {
            let Some(submission) = next.take().or_else(|| queue.try_recv().ok()) else {
                idle_yields += 1;
                tokio::task::yield_now().await;
                continue;
            };
            if submission.reply.is_closed() || submission.refused().is_some() {
                // The client has disconnected or gets an error. No response promises to store the
                // readings.
                delivery.drop_unsent(submission);
                continue;
            }
            let fits = readings + submission.readings.len() <= MAX_READINGS
                && days.len_with(&submission.days) <= MAX_DAYS;
            if !fits {
                next = Some(submission);
                break;
            }
            idle_yields = 0;
            readings += submission.readings.len();
            days.extend(&submission.days);
            submissions.push(submission);
        }
        if submissions.is_empty() {
            continue;
        }
        let delivery = delivery.clone();
        deliveries.spawn(async move {
            delivery.deliver(submissions).await;
            drop(slot);
        });
    }
    deliveries.close();
    deliveries.wait().await;
}

/// When there is a line about the sink: when batches fail after they succeeded, or the other way
/// round. A queue that is nearly full alternates, so that the lines are limited; the counters have
/// each failure.
#[derive(Default)]
struct OutcomeLog {
    /// What the last line says.
    failing: AtomicBool,
    limit: LogLimit,
}

impl OutcomeLog {
    /// Whether a line is due after a batch that failed or did not.
    fn is_due(&self, failing: bool) -> bool {
        let is_new = self.failing.load(Relaxed) != failing;
        let is_due = is_new && self.limit.count().is_some();
        if is_due {
            self.failing.store(failing, Relaxed);
        }
        is_due
    }
}

/// Delivers batches to the sink and counts the outcomes.
struct Delivery {
    timeout: Duration,
    sink: Arc<dyn Sink>,
    histograms: Arc<Histograms>,
    pending: Arc<PendingReadings>,
    accepted: Counter,
    not_sent: Counter,
    unconfirmed: Counter,
    batches: Counter,
    outcome_log: OutcomeLog,
}

impl Delivery {
    fn new(
        timeout: Duration,
        sink: Arc<dyn Sink>,
        histograms: Arc<Histograms>,
        pending: Arc<PendingReadings>,
    ) -> Self {
        let unavailable = |reason: &'static str| {
            let name = metric::UNAVAILABLE.name;
            metrics::counter!(name, metric::LABEL_REASON => reason)
        };
        Self {
            timeout,
            sink,
            histograms,
            pending,
            accepted: metrics::counter!(metric::ACCEPTED.name),
            not_sent: unavailable("not_sent"),
            unconfirmed: unavailable("unconfirmed"),
            batches: metrics::counter!(metric::SINK_BATCHES.name),
            outcome_log: OutcomeLog::default(),
        }
    }

    async fn deliver(&self, submissions: Vec<Submission>) {
        let mut batch = Batch::new();
        for submission in &submissions {
            let count = submission.readings.len() as u32;
            batch.receipts.push(Receipt {
                received_at: submission.received_at,
                count,
            });
            for &reading in &submission.readings {
                batch.push(reading);
            }
        }
        batch.enqueued_at = clock::now();
        let batch = Arc::new(batch);
        let readings = batch.len() as u64;

        let in_flight = metrics::gauge!(metric::SINK_IN_FLIGHT.name);
        in_flight.increment(1.0);
        let begin = Instant::now();
        let outcome = self.sink.deliver(batch.clone(), begin + self.timeout).await;
        in_flight.decrement(1.0);

        if self.outcome_log.is_due(outcome.is_err()) {
            match &outcome {
                Ok(()) => tracing::info!("the sink accepts batches again"),
                Err(reason) => tracing::warn!(%reason, "the sink does not accept batches"),
            }
        }
        match &outcome {
            Ok(()) => {
                self.accepted.increment(readings);
                self.batches.increment(1);
                let micros = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
                self.histograms.confirm.record(micros, 1);
                self.record_stages(&batch);
            }
            Err(SinkError::Refused(reason)) => {
                tracing::debug!(readings, reason, "the sink refused a batch");
                self.not_sent.increment(readings);
            }
            Err(SinkError::Unconfirmed(reason)) => {
                tracing::debug!(readings, reason, batch = %batch.id, "a batch was not confirmed");
                self.unconfirmed.increment(readings);
            }
        }
        for submission in submissions {
            if let (Err(SinkError::Refused(reason)), Some(refused)) =
                (&outcome, &submission.refused)
            {
                // An error means that another part was refused before.
                let _ = refused.set(reason.clone());
            }
            // An error means that the client has disconnected.
            let _ = submission.reply.send(outcome.clone());
        }
        self.pending.update_gauge();
    }

    /// Counts and refuses a submission that is not sent.
    fn drop_unsent(&self, submission: Submission) {
        self.not_sent.increment(submission.readings.len() as u64);
        let reason = submission.refused().cloned().unwrap_or_default();
        // An error means that the client has disconnected.
        let _ = submission.reply.send(Err(SinkError::Refused(reason)));
        // The gauge does not count the readings of a permit that was returned.
        drop(submission.permit);
        self.pending.update_gauge();
    }

    fn record_stages(&self, batch: &Batch) {
        let mut measured = LocalHistogram::default();
        let mut received = LocalHistogram::default();
        let mut times = batch.measured_at.iter();
        for receipt in &batch.receipts {
            received.between(
                receipt.received_at,
                batch.enqueued_at,
                u64::from(receipt.count),
            );
            for &measured_at in times.by_ref().take(receipt.count as usize) {
                measured.between(measured_at, receipt.received_at, 1);
            }
        }
        self.histograms
            .merge_stage(Stage::MeasuredToReceived, &measured);
        self.histograms
            .merge_stage(Stage::ReceivedToEnqueued, &received);
    }
}
