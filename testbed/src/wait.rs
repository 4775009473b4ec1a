//! Waiting for a condition, never for a fixed time.
//!
//! In: a condition and a limit. The functions poll the condition and return once it holds. When it
//! does not hold within the limit, they panic or return an error that names the condition.

use std::time::{Duration, Instant};

/// Poll interval.
const INTERVAL: Duration = Duration::from_millis(20);

/// Waits until `condition` returns true.
///
/// # Panics
/// It does not within `limit`. The limit ends a test that hangs; it is far beyond what any
/// condition needs.
pub fn until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    try_until(what, limit, || Ok(condition())).unwrap_or_else(|error| panic!("{error:#}"));
}

/// As [`until`], without the panic.
///
/// # Errors
/// The condition returns an error, or it does not return true within `limit`.
pub fn try_until(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    while !condition()? {
        anyhow::ensure!(
            begun.elapsed() < limit,
            "timed out after {limit:?}, waiting until {what}"
        );
        std::thread::sleep(INTERVAL);
    }
    Ok(())
}

/// As [`until`], on a tokio runtime: other tasks run between two polls.
///
/// # Panics
/// The condition does not return true within `limit`.
pub async fn until_async(what: &str, limit: Duration, mut condition: impl AsyncFnMut() -> bool) {
    until_ok(what, limit, async || {
        anyhow::ensure!(condition().await, "not yet");
        Ok(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}"));
}

/// Waits until `check` returns `Ok`, on a tokio runtime.
///
/// # Errors
/// It does not within `limit`; the error contains the last error of `check`.
pub async fn until_ok(
    what: &str,
    limit: Duration,
    mut check: impl AsyncFnMut() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    while let Err(error) = check().await {
        if begun.elapsed() >= limit {
            return Err(error.context(format!("timed out after {limit:?}, waiting until {what}")));
        }
        tokio::time::sleep(INTERVAL).await;
    }
    Ok(())
}
