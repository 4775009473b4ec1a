//! A query that is repeated: refreshing the registry, probing PostgreSQL.
//!
//! In: a query, and how often it runs. Out: each of its results, and an error while it does not
//! respond. One query runs at a time, and it is not cancelled while it is slow, because the server
//! would go on executing it. At the stop signal it is aborted; nothing is lost with it.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How often a query runs, and how long it may take before that is reported.
#[derive(Debug, Clone, Copy)]
pub struct Interval {
    /// Pause between two queries.
    pub pause: Duration,
    /// After this time the query counts as failed, although it goes on.
    pub timeout: Duration,
}

/// Repeats a query until `stop`.
///
/// `query` gets the last result, and `report` each result or a sentence with the cause.
pub async fn poll<T, F>(
    interval: Interval,
    stop: CancellationToken,
    mut query: impl FnMut(Option<&T>) -> F,
    mut report: impl FnMut(Result<&T, String>),
) where
    T: Send + 'static,
    F: Future<Output = Result<T, String>> + Send + 'static,
{
    let mut last: Option<T> = None;
    let mut running: Option<JoinHandle<Result<T, String>>> = None;
    while !stop.is_cancelled() {
        let task = running.get_or_insert_with(|| tokio::spawn(query(last.as_ref())));
        let waiting = tokio::time::timeout(interval.timeout, task);
        match stop.run_until_cancelled(waiting).await {
            None => break,
            Some(Err(_)) => {
                let seconds = interval.timeout.as_secs();
                report(Err(format!(
                    "PostgreSQL does not respond within {seconds} s; waiting; check that the \
                     server is running"
                )));
            }
            Some(Ok(joined)) => {
                running = None;
                match joined.unwrap_or_else(|panic| Err(panic.to_string())) {
                    Ok(result) => report(Ok(last.insert(result))),
                    Err(reason) => report(Err(reason)),
                }
            }
        }
        let pause = tokio::time::sleep(interval.pause);
        stop.run_until_cancelled(pause).await;
    }
    if let Some(task) = running {
        task.abort();
        let _ = task.await;
    }
}
