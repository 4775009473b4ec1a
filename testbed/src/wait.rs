//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Waits until `condition` says yes.
///
/// # Panics
/// It has not within `limit`, which is there to end a test that hangs: it is far beyond what any condition takes.
pub fn until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    try_until(what, limit, || Ok(condition())).unwrap_or_else(|error| panic!("{error:#}"));
}

/// The same without a panic.
///
/// # Errors
/// The condition's own, or it has not said yes within `limit`.
pub fn try_until(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    while !condition()? {
        anyhow::ensure!(begun.elapsed() < limit, "waited {limit:?} in vain: {what}");
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// The same in a runtime: the condition is asked in between of whatever else goes on.
///
/// # Panics
/// It has not within `limit`.
pub async fn until_async(what: &str, limit: Duration, mut condition: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < limit, "waited {limit:?} in vain: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}
