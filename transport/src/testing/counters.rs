//! The counters of one test.

use metrics::LocalRecorderGuard;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use schema::prometheus::{parse, sum};

/// Records the metrics of the current thread for as long as it exists: those of a test on a
/// current-thread runtime. Tests that run at the same time have other threads.
pub struct Counters {
    handle: PrometheusHandle,
    _guard: LocalRecorderGuard<'static>,
}

impl Counters {
    /// Starts recording. Counters that were registered on this thread before are not recorded.
    #[must_use]
    pub fn record() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "the guard borrows the recorder; a test process is short"
        )]
        let recorder = Box::leak(Box::new(PrometheusBuilder::new().build_recorder()));
        Self {
            handle: recorder.handle(),
            _guard: metrics::set_default_local_recorder(recorder),
        }
    }

    /// The sum of all samples with this name and all of these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        sum(&parse(&self.handle.render()), name, labels) as u64
    }
}
