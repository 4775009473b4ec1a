//! The load generator: sends the readings of a fleet at a fixed rate or as fast as possible, and
//! reports counts and latencies.
//!
//! In: [`Traffic`] and a [`Target`]. Out: [`Sent`]. A target that fails is a result: it is in the
//! counts. `loadtest run` adds the metrics of the processes and a report.

#[cfg(all(test, feature = "harness"))]
mod tests;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio_util::sync::CancellationToken;

use crate::ledger::Ledger;
use crate::plural::plural;
use crate::recorder::{Counts, Measurements, Quantiles, Recorder};
use crate::scenario::Mode;
use crate::send::{Partition, Sender, SenderResult, Target};
use crate::traffic::Traffic;

/// Time from the start to the first scheduled send, in which the threads start.
pub(crate) const HEAD_START: Duration = Duration::from_millis(200);
/// Interval at which the end of the threads is polled.
const POLL: Duration = Duration::from_millis(10);
/// Interval of progress reports.
const PROGRESS: Duration = Duration::from_millis(100);

/// When requests are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pacing {
    /// As the scenario's mode requires: on schedule, or in a closed loop for its duration.
    Scenario,
    /// Every request of the schedule, each as soon as a connection is free. The times of the
    /// readings are those of the schedule: let them begin early enough that none is in the future.
    /// A closed loop ends after its duration, as with [`Pacing::Scenario`].
    AsFastAsPossible,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Generator {
    /// What is sent.
    pub traffic: Arc<Traffic>,
    /// The server.
    pub target: Target,
    /// Threads that send; at most one per connection.
    pub threads: u64,
    /// When it is sent.
    pub pacing: Pacing,
}

/// The result of [`Generator::send`].
#[derive(Debug, Clone, PartialEq)]
pub struct Sent {
    /// Counts of requests and readings.
    pub counts: Counts,
    /// Time from the start to the last response, in seconds.
    pub seconds: f64,
    /// From the scheduled send to the final response, in milliseconds, without the warm-up. Without
    /// a schedule it is measured from the send.
    pub latency_ms: Quantiles,
    /// Examples of failures.
    pub examples: Vec<String>,
}

impl Sent {
    /// Readings that were accepted per second.
    pub fn accepted_per_second(&self) -> f64 {
        self.counts.accepted as f64 / self.seconds
    }

    /// Returns the result if every reading was accepted.
    ///
    /// # Errors
    /// A request failed or was dropped, or a reading was rejected; the error has examples.
    pub fn ensure_all_accepted(self) -> anyhow::Result<Self> {
        let Counts {
            rejected, unknown, ..
        } = self.counts;
        let failed = self.counts.failed();
        ensure!(
            failed + rejected + unknown == 0,
            "{} failed or dropped, {} rejected, {} without a final response: {}",
            plural(failed, "request"),
            plural(rejected, "reading"),
            plural(unknown, "reading"),
            self.examples.join("; ")
        );
        Ok(self)
    }
}

impl Generator {
    /// Sends until the end of the scenario or until `stop` is cancelled; requests in flight are
    /// completed. `progress` is called ten times per second with the counts so far, and at the end.
    ///
    /// # Errors
    /// A thread cannot be started, or panics.
    pub async fn send(
        self,
        stop: CancellationToken,
        mut progress: impl FnMut(&Counts),
    ) -> anyhow::Result<Sent> {
        let begin = match self.pacing {
            Pacing::Scenario => Instant::now() + HEAD_START,
            Pacing::AsFastAsPossible => Instant::now(),
        };
        let sending = self.start(begin, &stop)?;
        let mut total = Measurements::default();
        let mut next_progress = Instant::now();
        while !sending.is_finished() {
            tokio::time::sleep(POLL).await;
            if Instant::now() >= next_progress {
                next_progress = Instant::now() + PROGRESS;
                sending.collect_into(&mut total);
                progress(&total.counts);
            }
        }
        sending.collect_into(&mut total);
        progress(&total.counts);
        let (_, ended) = sending.join()?;
        Ok(Sent {
            seconds: seconds_between(begin, ended),
            latency_ms: Quantiles::from(&total.latency),
            counts: total.counts,
            examples: total.examples,
        })
    }

    /// Starts the threads. Their schedule starts at `begin`.
    pub(crate) fn start(
        &self,
        begin: Instant,
        stop: &CancellationToken,
    ) -> anyhow::Result<Sending> {
        let scenario = self.traffic.scenario();
        let threads = self.threads.min(scenario.connections).max(1);
        let mut sending = Sending {
            begin,
            recorders: Vec::new(),
            threads: Vec::new(),
        };
        for thread in 0..threads {
            let recorder = Recorder::default();
            sending.recorders.push(recorder.clone());
            let sender = Sender {
                traffic: self.traffic.clone(),
                target: self.target.clone(),
                begin,
                is_paced: scenario.mode == Mode::Open && self.pacing == Pacing::Scenario,
                partition: Partition { thread, threads },
                connections: (scenario.connections + threads - 1 - thread) / threads,
                recorder,
                stop: stop.clone(),
            };
            let thread = sender
                .spawn()
                .context("a sending thread cannot be started")?;
            sending.threads.push(thread);
        }
        Ok(sending)
    }
}

/// The threads while they send.
#[derive(Debug)]
pub(crate) struct Sending {
    pub(crate) begin: Instant,
    pub(crate) recorders: Vec<Recorder>,
    threads: Vec<JoinHandle<SenderResult>>,
}

impl Sending {
    /// Whether every thread has ended.
    pub(crate) fn is_finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Moves the measurements since the last collection into `total`.
    pub(crate) fn collect_into(&self, total: &mut Measurements) {
        for recorder in &self.recorders {
            recorder.collect_into(total);
        }
    }

    /// Waits for the threads, and returns the ledger of all requests and when the last response was
    /// received.
    pub(crate) fn join(self) -> SenderResult {
        let (mut ledgers, mut ended) = (Vec::new(), self.begin);
        for thread in self.threads {
            let result = thread
                .join()
                .map_err(|_| anyhow::anyhow!("a sending thread panicked"))?;
            let (ledger, thread_ended) = result?;
            ledgers.push(ledger);
            ended = ended.max(thread_ended);
        }
        Ok((Ledger::interleave(&ledgers), ended))
    }
}

/// The time between two instants in seconds; at least a millisecond, because a run may be stopped
/// before its first send.
pub(crate) fn seconds_between(begin: Instant, ended: Instant) -> f64 {
    ended
        .saturating_duration_since(begin)
        .as_secs_f64()
        .max(1e-3)
}
