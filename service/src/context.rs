//! What the stages of one process share.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::health::Health;
use crate::metrics::Histograms;

/// Health, histograms and the stop signal of a process. Clones share everything.
#[derive(Clone, Debug)]
pub struct Context {
    /// Where components report whether they work.
    pub health: Health,
    /// Where latencies are recorded.
    pub histograms: Arc<Histograms>,
    /// Cancelled when the process has to stop.
    pub stop: CancellationToken,
}

impl Context {
    /// The same context with another stop signal, for a stage that stops at another time.
    #[must_use]
    pub fn with_stop(&self, stop: CancellationToken) -> Self {
        Self {
            stop,
            ..self.clone()
        }
    }
}
