//! Registering new names, with one statement for all requests that wait.
//!
//! In: the new names of requests. Out: the registry has them, or an error that is worth a retry.
//! While one statement runs, the names of further requests gather for the next one, so that a
//! thousand new devices cost two statements and not a thousand.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use service::log_limit::LogLimit;
use service::quote::shorten;
use store::Pool;
use store::registry::{NewSeries, register_with};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::{Freshness, Lookup, Registry};

/// Upper bound on the requests that wait for a registration.
const MAX_REQUESTS: usize = 1_024;
/// Upper bound on the names that wait for a registration.
const MAX_NAMES: usize = 200_000;
/// Number of names from which no further request joins a registration.
const NAMES_PER_ROUND: usize = 20_000;
/// Upper bound on the series of one device: all of them are read whenever one is added.
pub const MAX_SERIES_OF_DEVICE: usize = 4_096;
/// Number of names that are listed in one log line.
const MAX_LOGGED_NAMES: usize = 3;

/// Names of a device and of a metric.
pub type Pair = (String, String);

/// Why names were not registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegisterError {
    /// PostgreSQL is unavailable, or too many names are pending.
    Unavailable,
    /// The limit on series is reached.
    Full,
}

/// A request that waits for its names to be registered.
struct PendingNames {
    pairs: Vec<Pair>,
    reply: oneshot::Sender<Result<(), RegisterError>>,
    _permit: OwnedSemaphorePermit,
}

/// Accepts the new names of requests.
#[derive(Debug, Clone)]
pub struct Registrar {
    queue: mpsc::Sender<PendingNames>,
    names: Arc<Semaphore>,
}

impl Registrar {
    /// Starts the registrar. Its task ends when the last handle is dropped; the caller awaits it.
    pub fn start(registry: Arc<Registry>, pool: Pool, max_series: usize) -> (Self, JoinHandle<()>) {
        let (queue, receiver) = mpsc::channel(MAX_REQUESTS);
        let task = tokio::spawn(run(registry, pool, max_series, receiver));
        let registrar = Self {
            queue,
            names: Arc::new(Semaphore::new(MAX_NAMES)),
        };
        (registrar, task)
    }

    /// Registers these names. Afterwards the registry has them.
    ///
    /// # Errors
    /// [`RegisterError`]; the names are not registered, or not known to be.
    pub async fn register(&self, pairs: Vec<Pair>) -> Result<(), RegisterError> {
        let unavailable = || RegisterError::Unavailable;
        let count = u32::try_from(pairs.len()).map_err(|_| unavailable())?;
        let names = self.names.clone();
        let permit = names
            .try_acquire_many_owned(count)
            .map_err(|_| unavailable())?;
        let (reply, outcome) = oneshot::channel();
        let pending = PendingNames {
            pairs,
            reply,
            _permit: permit,
        };
        self.queue.try_send(pending).map_err(|_| unavailable())?;
        outcome.await.unwrap_or_else(|_| Err(unavailable()))
    }
}

async fn run(
    registry: Arc<Registry>,
    pool: Pool,
    max_series: usize,
    mut queue: mpsc::Receiver<PendingNames>,
) {
    let failure_log = LogLimit::new();
    while let Some(first) = queue.recv().await {
        let mut count = first.pairs.len();
        let mut pending = vec![first];
        while count < NAMES_PER_ROUND
            && let Ok(next) = queue.try_recv()
        {
            count += next.pairs.len();
            pending.push(next);
        }
        // A request whose client has disconnected no longer waits.
        pending.retain(|names| !names.reply.is_closed());
        let (new, over_limit) = admit(&registry, &pending, max_series);
        let result = insert(&registry, &pool, &new).await.map_err(|reason| {
            if let Some(attempts) = failure_log.count() {
                tracing::warn!(reason, attempts, "cannot register new names");
            }
            RegisterError::Unavailable
        });
        // Another front end may have registered these very names. Only an up-to-date registry can
        // tell that they are beyond the limit.
        let limit_error = match registry.freshness() {
            Freshness::Fresh => RegisterError::Full,
            Freshness::Empty | Freshness::Stale => RegisterError::Unavailable,
        };
        for (names, over_limit) in pending.into_iter().zip(over_limit) {
            let outcome = if over_limit {
                Err(limit_error.clone())
            } else {
                result.clone()
            };
            // An error means that the client has disconnected.
            let _ = names.reply.send(outcome);
        }
    }
}

/// Selects the new names of the requests that fit within the limits, and tells for each request
/// whether it exceeds one.
fn admit(
    registry: &Registry,
    pending: &[PendingNames],
    max_series: usize,
) -> (BTreeSet<Pair>, Vec<bool>) {
    let mut remaining = max_series.saturating_sub(registry.series());
    let names = registry.names();
    let mut admitted = BTreeSet::new();
    let mut admitted_of_device: BTreeMap<String, usize> = BTreeMap::new();
    let mut exceeds_limit = |pairs: &[Pair]| {
        // Another front end, or an earlier statement, may have registered some of them.
        let is_new = |pair: &&Pair| {
            let lookup = names.find(&pair.0, &pair.1);
            matches!(lookup, Lookup::UnknownDevice | Lookup::UnknownMetric)
                && !admitted.contains(*pair)
        };
        let new: BTreeSet<&Pair> = pairs.iter().filter(is_new).collect();
        let mut of_device: BTreeMap<&str, usize> = BTreeMap::new();
        for (device, _) in &new {
            *of_device.entry(device).or_default() += 1;
        }
        let device_is_full = of_device.iter().any(|(&device, count)| {
            let admitted = admitted_of_device.get(device).unwrap_or(&0);
            names.series_of(device) + admitted + count > MAX_SERIES_OF_DEVICE
        });
        if new.len() > remaining || device_is_full {
            return true;
        }
        remaining -= new.len();
        for (device, count) in of_device {
            *admitted_of_device.entry(device.to_owned()).or_default() += count;
        }
        admitted.extend(new.into_iter().cloned());
        false
    };
    let over_limit = pending
        .iter()
        .map(|names| exceeds_limit(&names.pairs))
        .collect();
    (admitted, over_limit)
}

async fn insert(registry: &Registry, pool: &Pool, new: &BTreeSet<Pair>) -> Result<(), String> {
    if new.is_empty() {
        return Ok(());
    }
    let series = |(device, metric)| NewSeries {
        device,
        metric,
        unit: None,
    };
    let series: Vec<NewSeries<'_>> = new
        .iter()
        .map(|(device, metric)| series((device.as_str(), metric.as_str())))
        .collect();
    register_with(pool, &series, |devices| registry.update(devices)).await?;
    tracing::info!(
        series = new.len(),
        names = examples(new),
        "registered new series"
    );
    Ok(())
}

/// The first few names, each as `device metric` and shortened.
fn examples(names: &BTreeSet<Pair>) -> String {
    let logged = names.iter().take(MAX_LOGGED_NAMES);
    let mut examples: Vec<String> = logged
        .map(|(device, metric)| format!("{} {}", shorten(device), shorten(metric)))
        .collect();
    if names.len() > MAX_LOGGED_NAMES {
        examples.push("…".into());
    }
    examples.join(", ")
}
