//! Metrics of a process: counters and gauges through the `metrics` facade, histograms of our own.
//!
//! In: increments from anywhere in the process. Out: the text of `/metrics`.

use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use schema::clock::Stage;
use schema::metric;
use tokio_util::sync::CancellationToken;

use crate::histogram::{Histogram, Tally, render_family};

/// How often the exporter tidies up what it holds.
const UPKEEP: Duration = Duration::from_secs(5);

/// The histograms that Gridwatch has, one field each.
#[derive(Debug, Default)]
pub struct Histograms {
    stages: [Histogram; Stage::ALL.len()],
    /// Requests for readings, head to answer.
    pub http: Histogram,
    /// Batches, handed over to confirmed.
    pub confirm: Histogram,
    /// Transactions of the worker.
    pub transaction: Histogram,
}

impl Histograms {
    /// Adds what a batch has gathered of one stage, and counts its negative times.
    pub fn merge_stage(&self, stage: Stage, tally: &Tally) {
        self.stages[stage as usize].merge(tally);
        if tally.skewed > 0 {
            ::metrics::counter!(metric::CLOCK_SKEW.name, metric::LABEL_STAGE => stage.label())
                .increment(tally.skewed);
        }
    }

    fn render(&self, out: &mut String) {
        let stages = Stage::ALL
            .iter()
            .zip(&self.stages)
            .map(|(stage, histogram)| {
                (
                    format!("{}=\"{}\"", metric::LABEL_STAGE, stage.label()),
                    histogram,
                )
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
    /// Installs the process-wide recorder and describes every metric. Once a process.
    ///
    /// # Errors
    /// A second call.
    pub fn install() -> anyhow::Result<Self> {
        let exporter = PrometheusBuilder::new().install_recorder()?;
        for counter in metric::COUNTERS {
            ::metrics::describe_counter!(counter.name, counter.help);
        }
        for gauge in metric::GAUGES {
            ::metrics::describe_gauge!(gauge.name, gauge.help);
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
        let mut out = self.exporter.render();
        self.histograms.render(&mut out);
        out
    }

    /// Tidies up until `stop`; without it the exporter's memory grows.
    pub async fn upkeep(self, stop: CancellationToken) {
        while stop
            .run_until_cancelled(tokio::time::sleep(UPKEEP))
            .await
            .is_some()
        {
            self.exporter.run_upkeep();
        }
    }
}
