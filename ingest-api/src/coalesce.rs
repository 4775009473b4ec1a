//! Coalescing: the readings of requests into batches, and batches to the sink.
//!
//! In: submissions, one or more a request. Out: each submission's outcome, once its batch is durable or is known not to
//! be. At most so many batches are in flight; while they are, the submissions that arrive join the next batch, which
//! leaves as soon as one comes back. There is no timer: a lone request leaves at once, a thousand concurrent ones share a
//! message. What waits is bounded in readings; past that a submission is refused. The counters of the books move here,
//! when the outcome is known, so that a client that goes away changes nothing in them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use metrics::{Counter, Gauge};
use schema::Batch;
use schema::batch::{MAX_READINGS, Receipt};
use schema::clock::{self, Stage};
use schema::metric;
use schema::partition::{Days, MAX_DAYS};
use schema::reading::{Micros, Reading};
use service::histogram::Tally;
use service::metrics::Histograms;
use service::sink::{Sink, SinkError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// Submissions that may wait. Most hold many readings, so that the bound on readings is met first; this one is for
/// requests of a single reading.
const QUEUE: usize = 16_384;

/// How often the coalescer lets everything else in the process go first, in vain, before a batch leaves: requests that have
/// arrived by then join it. No timer: a lone request waits for nobody.
const LOOKS: usize = 4;

/// What became of a submission.
pub type Outcome = Result<(), SinkError>;

/// Readings of one request, at most [`MAX_READINGS`].
#[derive(Debug)]
struct Submission {
    readings: Vec<Reading>,
    days: Days,
    received_at: Micros,
    reply: oneshot::Sender<Outcome>,
    _share: OwnedSemaphorePermit,
}

/// There is no room: as many readings wait as may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// How the coalescer behaves.
#[derive(Debug, Clone)]
pub struct Config {
    /// Most batches in flight.
    pub max_in_flight: usize,
    /// Most readings that wait for their outcome.
    pub max_pending: usize,
    /// How long the sink may try.
    pub deliver_timeout: Duration,
}

/// Where requests hand in their readings. The coalescer ends, everything delivered, when the last one is dropped.
#[derive(Debug, Clone)]
pub struct Coalescer {
    queue: mpsc::Sender<Submission>,
    room: Arc<Room>,
}

/// How many readings may wait, and how many do.
struct Room {
    places: Arc<Semaphore>,
    size: usize,
    pending: Gauge,
}

impl std::fmt::Debug for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Room({:?} of {})", self.places, self.size)
    }
}

impl Room {
    fn note(&self) {
        self.pending
            .set((self.size - self.places.available_permits()) as f64);
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
        let (queue, receiver) = mpsc::channel(QUEUE);
        let size = config.max_pending.min(Semaphore::MAX_PERMITS);
        let pending = metrics::gauge!(metric::PENDING.name);
        let room = Arc::new(Room {
            places: Arc::new(Semaphore::new(size)),
            size,
            pending,
        });
        let delivery = Arc::new(Delivery::new(
            config.deliver_timeout,
            sink,
            histograms,
            room.clone(),
        ));
        tasks.spawn(run(receiver, config.max_in_flight, delivery));
        Self { queue, room }
    }

    /// Hands in the readings of one request, all of them or none. The receivers resolve when their part is decided.
    ///
    /// # Errors
    /// [`Full`]: none of them was taken.
    pub fn submit(
        &self,
        readings: Vec<Reading>,
        received_at: Micros,
    ) -> Result<Vec<oneshot::Receiver<Outcome>>, Full> {
        let count = u32::try_from(readings.len()).map_err(|_| Full)?;
        let parts = split(readings);
        let slots = self.queue.try_reserve_many(parts.len()).map_err(|_| Full)?;
        let mut share = self
            .room
            .places
            .clone()
            .try_acquire_many_owned(count)
            .map_err(|_| Full)?;
        let mut outcomes = Vec::with_capacity(parts.len());
        for (slot, (readings, days)) in slots.zip(parts) {
            let (reply, outcome) = oneshot::channel();
            // Never none: the parts sum up to what was acquired.
            let Some(own) = share.split(readings.len()) else {
                return Err(Full);
            };
            slot.send(Submission {
                readings,
                days,
                received_at,
                reply,
                _share: own,
            });
            outcomes.push(outcome);
        }
        self.room.note();
        Ok(outcomes)
    }
}

/// The readings of a request in parts that fit a batch, in their order, each with its days.
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
        // Closed by nobody.
        let Ok(slot) = slots.clone().acquire_owned().await else {
            break;
        };
        let mut submissions = Vec::new();
        let mut readings = 0;
        let mut days = Days::default();
        let mut looks = 0;
        next = Some(first);
        while looks < LOOKS {
            let Some(submission) = next.take().or_else(|| queue.try_recv().ok()) else {
                looks += 1;
                tokio::task::yield_now().await;
                continue;
            };
            if submission.reply.is_closed() {
                // The client has been told that its readings were not taken, or has gone: nobody was promised anything.
                delivery
                    .not_sent
                    .increment(submission.readings.len() as u64);
                continue;
            }
            let fits = readings + submission.readings.len() <= MAX_READINGS
                && days.len_with(&submission.days) <= MAX_DAYS;
            if !fits {
                next = Some(submission);
                break;
            }
            looks = 0;
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

/// Takes one batch to the sink and does the books.
struct Delivery {
    timeout: Duration,
    sink: Arc<dyn Sink>,
    histograms: Arc<Histograms>,
    room: Arc<Room>,
    accepted: Counter,
    not_sent: Counter,
    unconfirmed: Counter,
    batches: Counter,
    /// The last batch was not taken: said once in the log, and counted each time.
    failing: AtomicBool,
}

impl Delivery {
    fn new(
        timeout: Duration,
        sink: Arc<dyn Sink>,
        histograms: Arc<Histograms>,
        room: Arc<Room>,
    ) -> Self {
        let unavailable = |reason: &'static str| metrics::counter!(metric::UNAVAILABLE.name, metric::LABEL_REASON => reason);
        Self {
            timeout,
            sink,
            histograms,
            room,
            accepted: metrics::counter!(metric::ACCEPTED.name),
            not_sent: unavailable("not_sent"),
            unconfirmed: unavailable("unconfirmed"),
            batches: metrics::counter!(metric::SINK_BATCHES.name),
            failing: AtomicBool::new(false),
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
        let handed_over = Instant::now();
        let outcome = self
            .sink
            .deliver(batch.clone(), handed_over + self.timeout)
            .await;
        in_flight.decrement(1.0);

        if self.failing.swap(outcome.is_err(), Relaxed) != outcome.is_err() {
            match &outcome {
                Ok(()) => tracing::info!("the sink takes batches again"),
                Err(reason) => tracing::warn!(%reason, "the sink does not take batches"),
            }
        }
        match &outcome {
            Ok(()) => {
                self.accepted.increment(readings);
                self.batches.increment(1);
                let micros = u64::try_from(handed_over.elapsed().as_micros()).unwrap_or(u64::MAX);
                self.histograms.confirm.record(micros, 1);
                self.clock(&batch);
            }
            Err(SinkError::Refused(reason)) => {
                tracing::debug!(readings, reason, "the sink refused a batch");
                self.not_sent.increment(readings);
            }
            Err(SinkError::Unconfirmed(reason)) => {
                tracing::debug!(readings, reason, batch = %batch.id, "no confirmation of a batch");
                self.unconfirmed.increment(readings);
            }
        }
        for submission in submissions {
            // A client that has gone does not hear it.
            let _ = submission.reply.send(outcome.clone());
        }
        self.room.note();
    }

    fn clock(&self, batch: &Batch) {
        let mut measured = Tally::default();
        let mut received = Tally::default();
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

#[cfg(test)]
mod tests {
    use schema::partition::DAY;

    use super::*;

    #[test]
    fn a_request_is_split_by_readings_and_by_days_and_loses_none() {
        let reading = |n: i64, step: i64| Reading {
            series_id: 1,
            measured_at: 1_000_000_000_000_000 + n * step,
            value: n as f64,
        };
        for (step, parts) in [
            (1, 3),
            (DAY, 10_000usize.div_ceil(MAX_DAYS)),
            (-DAY, 10_000usize.div_ceil(MAX_DAYS)),
        ] {
            let readings: Vec<Reading> = (0..10_000).map(|n| reading(n % 10_000, step)).collect();
            let split = split(readings.clone());
            assert!(split.len() <= parts, "{} parts", split.len());
            for (part, days) in &split {
                assert!(part.len() <= MAX_READINGS && days.len() <= MAX_DAYS);
                assert_eq!(
                    *days,
                    part.iter()
                        .map(|reading| reading.measured_at)
                        .collect::<Days>()
                );
            }
            let joined: Vec<Reading> = split.into_iter().flat_map(|(part, _)| part).collect();
            assert_eq!(joined, readings);
        }
    }
}
