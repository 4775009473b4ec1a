//! For tests only: a sink and a source that the test controls, and the counters of a test.

mod counters;
mod sink;
mod source;

pub use counters::Counters;
pub use sink::{RecordedBatches, RecordingSink, SentBatch, SentBatches};
pub use source::{ScriptedSource, SourceCall, SourceControl};

use std::time::Duration;

/// Ends a test that hangs; far beyond what any condition needs.
pub const LIMIT: Duration = Duration::from_secs(30);

/// Upper bound on the events that a test has not received yet.
const CAPACITY: usize = 1_024;

/// Waits for a future that is expected to complete.
///
/// # Panics
/// It does not within [`LIMIT`]; the message names what was expected.
pub async fn within_limit<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(output) => output,
        Err(_) => panic!("timed out after {LIMIT:?}, waiting until {what}"),
    }
}

/// Lets every other task of a current-thread runtime run until it waits for something that this
/// task does. For assertions that something does not happen.
pub async fn run_other_tasks() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}
