//! Weighted histograms.
//!
//! In: durations, each with a weight, which is the number of readings that had it. Out: the
//! histogram in Prometheus' text format. The histogram of the metrics exporter keeps every sample
//! until it is drained, so that a message of a thousand readings would cost a thousand samples.
//! Here it costs one addition. Nothing can fail: a negative duration counts as zero.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use schema::metric::{BUCKETS, Metric};

const SLOTS: usize = BUCKETS.len() + 1;

/// Index of the bucket that a duration in microseconds falls into.
fn slot(micros: u64) -> usize {
    BUCKETS.partition_point(|&bound| micros as f64 > bound * 1e6)
}

/// The counts of one series, shared by threads.
#[derive(Debug, Default)]
pub struct Histogram {
    counts: [AtomicU64; SLOTS],
    /// The bits of an `f64`. As an integer of microseconds it would overflow if a few days of
    /// readings came from a device whose clock is at 1970.
    sum_seconds: AtomicU64,
}

impl Histogram {
    /// Adds a duration in microseconds that `weight` readings had.
    pub fn record(&self, micros: u64, weight: u64) {
        self.counts[slot(micros)].fetch_add(weight, Relaxed);
        self.add(micros as f64 * weight as f64);
    }

    /// Adds the counts of a local histogram.
    pub fn merge(&self, local: &LocalHistogram) {
        for (shared, &count) in self.counts.iter().zip(&local.counts) {
            if count > 0 {
                shared.fetch_add(count, Relaxed);
            }
        }
        self.add(local.sum_micros);
    }

    fn add(&self, micros: f64) {
        let added = |bits| Some((f64::from_bits(bits) + micros / 1e6).to_bits());
        // The closure always returns a value, so that the update cannot fail.
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
            // Writing to a String cannot fail.
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

/// The counts of one batch. Its readings are added without atomics and then merged at once.
#[derive(Debug, Default)]
pub struct LocalHistogram {
    counts: [u64; SLOTS],
    sum_micros: f64,
    /// Number of readings whose duration was negative and counted as zero.
    pub skewed: u64,
}

impl LocalHistogram {
    /// Adds the duration between two clocks in microseconds that `weight` readings had.
    pub fn between(&mut self, earlier: i64, later: i64, weight: u64) {
        let micros = u64::try_from(later.saturating_sub(earlier)).unwrap_or_else(|_| {
            self.skewed += weight;
            0
        });
        self.counts[slot(micros)] += weight;
        self.sum_micros += micros as f64 * weight as f64;
    }
}

/// Appends one metric family: its help and type, then each histogram with its labels.
pub fn render_family<'a>(
    out: &mut String,
    metric: Metric,
    histograms: impl IntoIterator<Item = (String, &'a Histogram)>,
) {
    let _ = writeln!(
        out,
        "# HELP {} {}\n# TYPE {} histogram",
        metric.name, metric.help, metric.name
    );
    for (labels, histogram) in histograms {
        histogram.render(out, metric.name, &labels);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_counts_as_that_number_of_readings() {
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
    fn readings_from_a_clock_at_1970_do_not_overflow_the_sum() {
        let histogram = Histogram::default();
        let mut local = LocalHistogram::default();
        local.between(0, 1_795_168_800_000_000, 100_000);
        histogram.merge(&local);
        histogram.record(1_795_168_800_000_000, 100_000);
        let mut out = String::new();
        histogram.render(&mut out, "x", "");
        assert!(out.contains("x_sum 359033760000000\n"), "{out}");
    }

    #[test]
    fn a_negative_duration_counts_as_zero_and_as_skewed() {
        let mut local = LocalHistogram::default();
        local.between(10, 5, 2);
        local.between(10, 210, 1);
        assert_eq!(local.skewed, 2);
        assert_eq!(local.counts[..2], [2, 1]);
        assert_eq!(local.sum_micros, 200.0);
        let histogram = Histogram::default();
        histogram.merge(&local);
        assert_eq!(histogram.counts[0].load(Relaxed), 2);
    }
}
