//! Histograms that take a weight.
//!
//! In: durations, each standing for any number of readings. Out: the Prometheus text of a histogram. The metrics
//! exporter's own histogram keeps every sample until it is drained, so a message of a thousand readings would cost a
//! thousand samples; here it costs one addition. Nothing can fail: a negative duration is taken as zero by whoever measures.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use schema::metric::{BUCKETS, Metric};

const SLOTS: usize = BUCKETS.len() + 1;

/// Index of the bucket that a duration in microseconds falls into.
fn slot(micros: u64) -> usize {
    BUCKETS.partition_point(|&bound| micros as f64 > bound * 1e6)
}

/// Counts of one series of a histogram, shared between threads.
#[derive(Debug, Default)]
pub struct Histogram {
    counts: [AtomicU64; SLOTS],
    /// An `f64` by its bits: in whole microseconds a few days of readings from a clock of 1970 would wrap a `u64` round.
    sum_seconds: AtomicU64,
}

impl Histogram {
    /// Adds a duration, in microseconds, that `weight` readings had.
    pub fn record(&self, micros: u64, weight: u64) {
        self.counts[slot(micros)].fetch_add(weight, Relaxed);
        self.add(micros as f64 * weight as f64);
    }

    /// Adds what a batch has gathered by itself.
    pub fn merge(&self, tally: &Tally) {
        for (shared, &own) in self.counts.iter().zip(&tally.counts) {
            if own > 0 {
                shared.fetch_add(own, Relaxed);
            }
        }
        self.add(tally.sum_micros);
    }

    fn add(&self, micros: f64) {
        let added = |bits| Some((f64::from_bits(bits) + micros / 1e6).to_bits());
        // Never an error: the closure always has a value.
        let _ = self.sum_seconds.fetch_update(Relaxed, Relaxed, added);
    }

    /// Appends the lines of this histogram in the text exposition format
    /// (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
    fn render(&self, out: &mut String, name: &str, labels: &str) {
        let (comma, braces) = if labels.is_empty() {
            ("", String::new())
        } else {
            (",", format!("{{{labels}}}"))
        };
        let mut total = 0;
        for (bound, count) in BUCKETS.iter().map(Some).chain([None]).zip(&self.counts) {
            total += count.load(Relaxed);
            // Writing to a String does not fail.
            let _ = match bound {
                Some(le) => writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{le}\"}} {total}"),
                None => writeln!(out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {total}"),
            };
        }
        let sum = f64::from_bits(self.sum_seconds.load(Relaxed));
        let _ = writeln!(
            out,
            "{name}_sum{braces} {sum}\n{name}_count{braces} {total}"
        );
    }
}

/// A batch's own counts: readings are added one by one without an atomic, and merged once.
#[derive(Debug, Default)]
pub struct Tally {
    counts: [u64; SLOTS],
    sum_micros: f64,
    /// How many of the durations were negative and taken as zero.
    pub skewed: u64,
}

impl Tally {
    /// Adds the time from one clock to a later one, in microseconds, that `weight` readings had.
    pub fn between(&mut self, earlier: i64, later: i64, weight: u64) {
        let micros = u64::try_from(later.saturating_sub(earlier)).unwrap_or_else(|_| {
            self.skewed += weight;
            0
        });
        self.counts[slot(micros)] += weight;
        self.sum_micros += micros as f64 * weight as f64;
    }
}

/// Appends one family: its head, then each member under its labels.
pub fn render_family<'a>(
    out: &mut String,
    metric: Metric,
    members: impl IntoIterator<Item = (String, &'a Histogram)>,
) {
    let _ = writeln!(
        out,
        "# HELP {} {}\n# TYPE {} histogram",
        metric.name, metric.help, metric.name
    );
    for (labels, histogram) in members {
        histogram.render(out, metric.name, &labels);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_counts_as_that_many_readings() {
        let histogram = Histogram::default();
        histogram.record(100, 3);
        histogram.record(101, 1);
        histogram.record(400_000_000, 2);
        let mut out = String::new();
        histogram.render(&mut out, "x", "stage=\"a\"");
        assert!(
            out.contains("x_bucket{stage=\"a\",le=\"0.0001\"} 3\n"),
            "{out}"
        );
        assert!(
            out.contains("x_bucket{stage=\"a\",le=\"0.00025\"} 4\n"),
            "{out}"
        );
        assert!(
            out.contains("x_bucket{stage=\"a\",le=\"300\"} 4\n"),
            "{out}"
        );
        assert!(
            out.contains("x_bucket{stage=\"a\",le=\"+Inf\"} 6\n"),
            "{out}"
        );
        assert!(out.contains("x_count{stage=\"a\"} 6\n"), "{out}");
        assert!(out.contains("x_sum{stage=\"a\"} 800.000401\n"), "{out}");
    }

    #[test]
    fn readings_from_a_clock_of_1970_do_not_wrap_the_sum_round() {
        let histogram = Histogram::default();
        let mut tally = Tally::default();
        tally.between(0, 1_795_168_800_000_000, 100_000);
        histogram.merge(&tally);
        histogram.record(1_795_168_800_000_000, 100_000);
        let mut out = String::new();
        histogram.render(&mut out, "x", "");
        assert!(out.contains("x_sum 359033760000000\n"), "{out}");
    }

    #[test]
    fn a_clock_behind_is_taken_as_zero_and_counted() {
        let mut tally = Tally::default();
        tally.between(10, 5, 2);
        tally.between(10, 210, 1);
        assert_eq!(
            (
                tally.skewed,
                tally.counts[0],
                tally.counts[1],
                tally.sum_micros
            ),
            (2, 2, 1, 200.0)
        );
        let histogram = Histogram::default();
        histogram.merge(&tally);
        assert_eq!(histogram.counts[0].load(Relaxed), 2);
    }
}
