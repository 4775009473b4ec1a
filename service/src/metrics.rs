//! Metrics of a process: counters and gauges of the `metrics` facade, and our own histograms.
//!
//! The CPU time of the process is rendered here, too, because the facade's counters are integers,
//! and a whole second is longer than the work of many load tests.
//!
//! In: increments from anywhere in the process. Out: the text of `/metrics`. Only installing the
//! recorder can fail, and only when there is one already.

use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use rustix::time::{ClockId, clock_gettime};
use schema::clock::Stage;
use schema::metric;
use tokio_util::sync::CancellationToken;

use crate::histogram::{Histogram, LocalHistogram, render_family};

/// The counter of CPU time in user and system mode, which the collector of process metrics exports
/// in whole seconds.
const CPU_SECONDS: &str = "process_cpu_seconds_total";
/// Time between two upkeeps of the exporter.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// All histograms of Gridwatch.
#[derive(Debug, Default)]
pub struct Histograms {
    stages: [Histogram; Stage::ALL.len()],
    /// Requests with readings, from the request head to the response.
    pub http: Histogram,
    /// Batches, from the call of the sink to the confirmation.
    pub confirm: Histogram,
    /// Transactions of the worker.
    pub transaction: Histogram,
}

impl Histograms {
    /// Adds the counts of one stage, and counts its negative durations as clock skew.
    pub fn merge_stage(&self, stage: Stage, local: &LocalHistogram) {
        self.stages[stage as usize].merge(local);
        if local.skewed > 0 {
            ::metrics::counter!(metric::CLOCK_SKEW.name, metric::LABEL_STAGE => stage.label())
                .increment(local.skewed);
        }
    }

    fn render(&self, out: &mut String) {
        let stages = Stage::ALL
            .iter()
            .zip(&self.stages)
            .map(|(stage, histogram)| {
                let labels = format!("{}=\"{}\"", metric::LABEL_STAGE, stage.label());
                (labels, histogram)
            });
        render_family(out, metric::STAGE_SECONDS, stages);
        for (family, histogram) in [
            (metric::HTTP_SECONDS, &self.http),
            (metric::CONFIRM_SECONDS, &self.confirm),
            (metric::TRANSACTION_SECONDS, &self.transaction),
        ] {
            render_family(out, family, [(String::new(), histogram)]);
        }
    }
}

/// The metrics of this process. Clones share everything.
#[derive(Clone, Debug)]
pub struct Metrics {
    exporter: PrometheusHandle,
    process: metrics_process::Collector,
    /// The histograms to record into.
    pub histograms: Arc<Histograms>,
}

impl Metrics {
    /// Installs the recorder of the process and describes every metric. Can be called once.
    ///
    /// # Errors
    /// There is a recorder already.
    pub fn install() -> anyhow::Result<Self> {
        let exporter = PrometheusBuilder::new().install_recorder()?;
        for counter in metric::COUNTERS {
            ::metrics::describe_counter!(counter.name, counter.help);
        }
        for gauge in metric::GAUGES {
            ::metrics::describe_gauge!(gauge.name, gauge.help);
        }
        // They exist before the first skew, so that a rate includes it.
        for stage in Stage::ALL {
            ::metrics::counter!(metric::CLOCK_SKEW.name, metric::LABEL_STAGE => stage.label())
                .increment(0);
        }
        let version = env!("CARGO_PKG_VERSION");
        ::metrics::gauge!(metric::BUILD_INFO.name, metric::LABEL_VERSION => version).set(1.0);
        let process = metrics_process::Collector::default();
        process.describe();
        Ok(Self {
            exporter,
            process,
            histograms: Arc::default(),
        })
    }

    /// The text of `/metrics`.
    pub fn render(&self) -> String {
        self.process.collect();
        let mut out = with_cpu_seconds(self.exporter.render(), cpu_seconds());
        self.histograms.render(&mut out);
        out
    }

    /// Runs the upkeep of the exporter until `stop`. Without it the exporter's memory grows.
    pub async fn upkeep(self, stop: CancellationToken) {
        while stop
            .run_until_cancelled(tokio::time::sleep(UPKEEP_INTERVAL))
            .await
            .is_some()
        {
            self.exporter.run_upkeep();
        }
    }
}

/// CPU time of this process in seconds, with nanoseconds.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Replaces the value of the sample of CPU time in a rendered text.
fn with_cpu_seconds(mut text: String, seconds: f64) -> String {
    let sample = format!("\n{CPU_SECONDS} ");
    if let Some(at) = text.find(&sample) {
        let begin = at + sample.len();
        let end = text[begin..]
            .find('\n')
            .map_or(text.len(), |length| begin + length);
        text.replace_range(begin..end, &format!("{seconds:.3}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use schema::prometheus::{parse, sum};

    use super::*;

    #[test]
    fn cpu_time_is_exported_in_fractions_of_a_second() {
        let metrics = Metrics::install().unwrap();
        let cpu = || {
            let text = metrics.render();
            assert!(
                text.contains("# TYPE process_cpu_seconds_total counter\n"),
                "{text}"
            );
            assert_eq!(
                text.matches("\nprocess_cpu_seconds_total ").count(),
                1,
                "{text}"
            );
            assert!(text.contains("\nprocess_resident_memory_bytes "), "{text}");
            sum(&parse(&text), CPU_SECONDS, &[])
        };
        // Each turn uses CPU time. Other threads may use a second of it between two turns, but not
        // between all.
        let first = cpu();
        let mut last = first;
        loop {
            let now = cpu();
            assert!(now >= last, "{now} after {last}");
            assert!(now - first < 5.0, "only whole seconds");
            if now > last && now - last < 1.0 {
                return;
            }
            last = now;
        }
    }

    #[test]
    fn only_the_value_of_the_cpu_time_is_replaced() {
        let text = "# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total 3\n\n\
                    process_threads 7\n";
        assert_eq!(
            with_cpu_seconds(text.into(), 3.4567),
            text.replace(" 3\n", " 3.457\n")
        );
        assert_eq!(with_cpu_seconds("a 1\n".into(), 1.0), "a 1\n");
    }
}
