//! Failover: a sink with the spool as its fallback.
//!
//! In: batches. Out: each is durable at the primary sink or in the spool, and the drain delivers
//! what is in the spool to the primary. While the primary is down, batches go straight to the
//! spool. The drain retries the oldest ones until the primary accepts them, which also shows that
//! the primary is available again. If both fail, the batch is refused, or unconfirmed if the
//! primary may have stored it.
//!
//! A batch that the primary may have stored is delivered again under the same id, which the ledger
//! makes safe.

mod drain;
mod sink;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub use sink::FailoverSink;

/// Upper bound on the batches of the spool that are in flight to the primary.
pub const WINDOW: usize = 64;

/// How long one attempt to deliver to the primary may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether the primary is down, as far as the last attempt shows. Clones share it.
#[derive(Debug, Clone, Default)]
struct PrimaryDown(Arc<AtomicBool>);

impl PrimaryDown {
    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Returns the value before.
    fn set(&self, down: bool) -> bool {
        self.0.swap(down, Ordering::Relaxed)
    }
}
