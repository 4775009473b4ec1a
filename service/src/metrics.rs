//! Metrics of a process: counters and gauges of the `metrics` facade, and our own histograms.
//!
//! In: increments from anywhere in the process. Out: the text of `/metrics`. Only installing the
//! recorder can fail, and only when there is one already.

use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use schema::clock::Stage;
use schema::metric;
use tokio_util::sync::CancellationToken;

use crate::histogram::{Histogram, LocalHistogram, render_family};

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
