//! The stop signal.
//!
//! In: SIGTERM and SIGINT. Out: a token that is cancelled by the first of them. A later one exits
//! the process. Supervisors send a signal twice, to the process and to its group; the second one
//! of such a pair changes nothing.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A signal that comes within this time after the first one belongs to it.
const REPEAT: Duration = Duration::from_millis(200);

/// A token that is cancelled by the first SIGTERM or Ctrl-C. A signal more than 200 ms later exits
/// the process immediately with exit code 130, for a user who does not want to wait for the drain.
///
/// # Errors
/// The signal handlers cannot be installed.
pub fn on_signal() -> std::io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = CancellationToken::new();
    let token = stop.clone();
    let mut next = move |context: &mut Context<'_>| {
        if terminate.poll_recv(context).is_ready() {
            Poll::Ready("SIGTERM")
        } else {
            interrupt.poll_recv(context).map(|_| "SIGINT")
        }
    };
    tokio::spawn(async move {
        let name = poll_fn(&mut next).await;
        tracing::info!(signal = name, "stopping");
        token.cancel();
        let name = second(&mut next, tokio::time::sleep(REPEAT)).await;
        tracing::warn!(signal = name, "second signal; exiting immediately");
        std::process::exit(130);
    });
    Ok(stop)
}

/// The next signal that does not belong to the first one. Signals until the end of `repeats` do.
async fn second(
    next: &mut impl FnMut(&mut Context<'_>) -> Poll<&'static str>,
    repeats: impl Future<Output = ()>,
) -> &'static str {
    let mut repeats = std::pin::pin!(repeats);
    loop {
        tokio::select! {
            biased;
            () = &mut repeats => return poll_fn(&mut *next).await,
            _ = poll_fn(&mut *next) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_signal_that_is_sent_twice_is_one_and_a_later_one_is_the_second() {
        let over = CancellationToken::new();
        let mut signals = ["repeat", "another repeat", "second", "third"].into_iter();
        let mut next = |_: &mut Context<'_>| {
            let name = signals.next().unwrap();
            if name == "another repeat" {
                over.cancel();
            }
            Poll::Ready(name)
        };
        assert_eq!(second(&mut next, over.cancelled()).await, "second");
    }
}
