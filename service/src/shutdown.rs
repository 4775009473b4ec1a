//! The stop signal.
//!
//! In: SIGTERM and SIGINT. Out: a token that is cancelled by the first of them. The second one
//! exits the process.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled by the first SIGTERM or Ctrl-C. A second signal exits the process
/// immediately with exit code 130, for a user who does not want to wait for the drain.
///
/// # Errors
/// The signal handlers cannot be installed.
pub fn on_signal() -> std::io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = CancellationToken::new();
    let token = stop.clone();
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        };
        let name = next().await;
        tracing::info!(signal = name, "stopping");
        token.cancel();
        let name = next().await;
        tracing::warn!(signal = name, "second signal; exiting immediately");
        std::process::exit(130);
    });
    Ok(stop)
}
