//! What is measured while requests go out: counts and latencies, a second at a time.
//!
//! In: each answer, from the threads that send. Out: once a second everything since the last time, which the run adds up,
//! so that memory does not grow with the number of requests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Longest latency that is told from longer ones, in microseconds.
const LONGEST: u64 = 600_000_000;
/// Unlike answers that are kept word by word.
const KEPT: usize = 20;

/// An empty histogram of microseconds with three significant digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST, 3)
        .unwrap_or_else(|_| unreachable!("the bounds are in order"))
}

/// Adds a time to a histogram.
pub fn record(histogram: &mut Histogram<u64>, time: Duration) {
    histogram.saturating_record(u64::try_from(time.as_micros()).unwrap_or(LONGEST));
}

/// Counts of a run or a part of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Requests sent, without repetitions.
    pub sent: u64,
    /// Requests whose send began more than a millisecond after its time.
    pub late: u64,
    /// Requests that were so late that they were not sent.
    pub dropped: u64,
    /// Requests sent again after 503 or no answer.
    pub retried: u64,
    /// Requests sent again although they were answered.
    pub repeated: u64,
    /// Readings in answers with 2xx that accept them.
    pub accepted: u64,
    /// Readings that the front end rejected.
    pub rejected: u64,
    /// Readings without a final answer.
    pub unknown: u64,
    /// Requests that ended without one: 5xx, a broken connection, no answer in time.
    pub errors: u64,
    /// Answers that do not fit what was sent.
    pub unlike: u64,
    /// Answers by status; 0 where there was none.
    pub statuses: BTreeMap<u16, u64>,
}

impl Counts {
    /// Adds those of another part.
    pub fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.late += other.late;
        self.dropped += other.dropped;
        self.retried += other.retried;
        self.repeated += other.repeated;
        self.accepted += other.accepted;
        self.rejected += other.rejected;
        self.unknown += other.unknown;
        self.errors += other.errors;
        self.unlike += other.unlike;
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
    }
}

/// What was measured in a part of the run.
#[derive(Debug, Clone)]
pub struct Measured {
    /// See [`Counts`].
    pub counts: Counts,
    /// From the intended send to the final answer: what a device waits that cannot choose when it measures. Without one it
    /// is the timeout at least.
    pub intended: Histogram<u64>,
    /// The same from the send itself: hides that a slow answer keeps others from being sent.
    pub sent: Histogram<u64>,
    /// From the intended send to the send.
    pub lateness: Histogram<u64>,
    /// Some answers that do not fit what was sent.
    pub unlike: Vec<String>,
}

impl Default for Measured {
    fn default() -> Self {
        Self {
            counts: Counts::default(),
            intended: histogram(),
            sent: histogram(),
            lateness: histogram(),
            unlike: Vec::new(),
        }
    }
}

impl Measured {
    /// Adds another part.
    pub fn add(&mut self, other: &Self) {
        self.counts.add(&other.counts);
        for (own, more) in [
            (&mut self.intended, &other.intended),
            (&mut self.sent, &other.sent),
            (&mut self.lateness, &other.lateness),
        ] {
            // They have the same bounds.
            let _ = own.add(more);
        }
        self.keep(&other.unlike);
    }

    fn keep(&mut self, unlike: &[String]) {
        let room = KEPT.saturating_sub(self.unlike.len());
        self.unlike.extend(unlike.iter().take(room).cloned());
    }

    /// Notes an answer that does not fit what was sent.
    pub fn note_unlike(&mut self, what: impl FnOnce() -> String) {
        self.counts.unlike += 1;
        if self.unlike.len() < KEPT {
            self.unlike.push(what());
        }
    }

    /// Forgets everything, and keeps the memory.
    pub fn clear(&mut self) {
        self.counts = Counts::default();
        self.unlike.clear();
        for histogram in [&mut self.intended, &mut self.sent, &mut self.lateness] {
            histogram.reset();
        }
    }
}

/// A thread's measurements since the last look. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Meter(Arc<Mutex<Measured>>);

impl Meter {
    /// To add something, briefly.
    pub fn lock(&self) -> MutexGuard<'_, Measured> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves what was measured since the last look into `out`.
    pub fn take(&self, out: &mut Measured) {
        let mut measured = self.lock();
        out.add(&measured);
        measured.clear();
    }
}

/// Times of a histogram, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Quantiles {
    /// How many.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// The median.
    pub p50: f64,
    /// Nine of ten.
    pub p90: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1,000.
    pub p999: f64,
    /// 9,999 of 10,000.
    pub p9999: f64,
    /// The longest.
    pub max: f64,
}

impl From<&Histogram<u64>> for Quantiles {
    fn from(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Self {
            count: histogram.len(),
            mean: histogram.mean() / 1e3,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: histogram.max() as f64 / 1e3,
        }
    }
}
