//! Registering: new names into `device` and `series`, in one statement for all that wait.
//!
//! In: the new names of requests. Out: the registry knows them, or an error that is worth a retry. One task does it: while
//! one statement is under way the names of every further request gather for the next, so that a thousand devices that
//! appear at once cost two statements and not a thousand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use deadpool_postgres::Pool;
use service::postgres::words;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::{Freshness, Known, Registry, follow};

/// Requests whose names may wait.
const QUEUE: usize = 1_024;
/// Names that may wait.
const NAMES: usize = 200_000;
/// Names that one statement registers at most.
const STATEMENT: usize = 20_000;
/// Most series of one device: all of them are read whenever one is added.
pub const MAX_SERIES_OF_DEVICE: usize = 4_096;

/// A device name and a metric name.
pub type Pair = (String, String);

/// `DO UPDATE` rather than `DO NOTHING`, because only then a name that another front end has registered meanwhile is
/// returned as well; and in order of names, so that two front ends cannot wait for each other.
const REGISTER: &str = "
    WITH wanted AS (SELECT DISTINCT device, metric FROM unnest($1::text[], $2::text[]) AS pair (device, metric)),
    devices AS (
        INSERT INTO device (external_id) SELECT DISTINCT device FROM wanted ORDER BY device
        ON CONFLICT (external_id) DO UPDATE SET external_id = excluded.external_id
        RETURNING id, external_id, active),
    added AS (
        INSERT INTO series (device_id, metric)
        SELECT id, metric FROM wanted JOIN devices ON external_id = device ORDER BY device, metric
        ON CONFLICT (device_id, metric) DO UPDATE SET metric = excluded.metric
        RETURNING id, device_id, metric),
    every AS (
        SELECT id, device_id, metric FROM added
        UNION SELECT s.id, s.device_id, s.metric FROM series s JOIN devices d ON d.id = s.device_id)
    SELECT d.id, d.external_id, d.active, array_agg(e.metric ORDER BY e.id), array_agg(e.id ORDER BY e.id)
    FROM devices d JOIN every e ON e.device_id = d.id
    GROUP BY d.id, d.external_id, d.active";

/// Why names were not registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegisterError {
    /// PostgreSQL cannot be asked for now.
    Unavailable,
    /// There are as many series as are allowed.
    Full,
}

struct Wanted {
    pairs: Vec<Pair>,
    reply: oneshot::Sender<Result<(), RegisterError>>,
    _share: OwnedSemaphorePermit,
}

/// Where requests hand in their new names.
#[derive(Debug, Clone)]
pub struct Registrar {
    queue: mpsc::Sender<Wanted>,
    room: Arc<Semaphore>,
}

impl Registrar {
    /// Starts the task. It ends when the last registrar is dropped.
    pub fn start(registry: Arc<Registry>, pool: Pool, max_series: usize) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(run(registry, pool, max_series, receiver));
        Self {
            queue: sender,
            room: Arc::new(Semaphore::new(NAMES)),
        }
    }

    /// Registers these names; afterwards the registry finds them.
    ///
    /// # Errors
    /// [`RegisterError`]; none of the names is registered then, or not known to be.
    pub async fn register(&self, pairs: Vec<Pair>) -> Result<(), RegisterError> {
        let (reply, answer) = oneshot::channel();
        let names = u32::try_from(pairs.len()).map_err(|_| RegisterError::Unavailable)?;
        let share = self
            .room
            .clone()
            .try_acquire_many_owned(names)
            .map_err(|_| RegisterError::Unavailable)?;
        self.queue
            .try_send(Wanted {
                pairs,
                reply,
                _share: share,
            })
            .map_err(|_| RegisterError::Unavailable)?;
        answer.await.unwrap_or(Err(RegisterError::Unavailable))
    }
}

async fn run(
    registry: Arc<Registry>,
    pool: Pool,
    max_series: usize,
    mut receiver: mpsc::Receiver<Wanted>,
) {
    while let Some(first) = receiver.recv().await {
        let mut count = first.pairs.len();
        let mut waiting = vec![first];
        while count < STATEMENT
            && let Ok(next) = receiver.try_recv()
        {
            count += next.pairs.len();
            waiting.push(next);
        }
        // A request whose client has gone does not wait for the answer any more.
        waiting.retain(|wanted| !wanted.reply.is_closed());
        let (new, full) = admit(&registry, &waiting, max_series);
        let result = insert(&registry, &pool, &new).await.map_err(|reason| {
            tracing::warn!(reason, "cannot register new names");
            RegisterError::Unavailable
        });
        // Whether there is room, only PostgreSQL can tell: another front end may have registered these very names.
        let no_room = if registry.freshness() == Freshness::Fresh {
            RegisterError::Full
        } else {
            RegisterError::Unavailable
        };
        for (wanted, full) in waiting.into_iter().zip(full) {
            let _ = wanted.reply.send(if full {
                Err(no_room.clone())
            } else {
                result.clone()
            });
        }
    }
}

/// The names that are new, of those requests for which there is room; and which requests there is none for.
fn admit(
    registry: &Registry,
    waiting: &[Wanted],
    max_series: usize,
) -> (BTreeSet<Pair>, Vec<bool>) {
    let mut room = max_series.saturating_sub(registry.series());
    let names = registry.names();
    let mut new = BTreeSet::new();
    let mut of_device: BTreeMap<String, usize> = BTreeMap::new();
    let mut admit_one = |wanted: &[Pair]| {
        // Another front end, or the statement before, may have registered some of them.
        let is_new = |pair: &&Pair| {
            matches!(
                names.find(&pair.0, &pair.1),
                Known::NoDevice | Known::NoMetric
            ) && !new.contains(*pair)
        };
        let own: BTreeSet<&Pair> = wanted.iter().filter(is_new).collect();
        let mut more: BTreeMap<&str, usize> = BTreeMap::new();
        for (device, _) in &own {
            *more.entry(device).or_default() += 1;
        }
        let crowded = more.iter().any(|(&device, count)| {
            names.series_of(device) + of_device.get(device).unwrap_or(&0) + count
                > MAX_SERIES_OF_DEVICE
        });
        if own.len() > room || crowded {
            return true;
        }
        room -= own.len();
        for (device, count) in more {
            *of_device.entry(device.to_owned()).or_default() += count;
        }
        new.extend(own.into_iter().cloned());
        false
    };
    let full = waiting
        .iter()
        .map(|wanted| admit_one(&wanted.pairs))
        .collect();
    (new, full)
}

async fn insert(registry: &Registry, pool: &Pool, new: &BTreeSet<Pair>) -> Result<(), String> {
    let (devices, metrics): (Vec<&str>, Vec<&str>) = new
        .iter()
        .map(|(device, metric)| (device.as_str(), metric.as_str()))
        .unzip();
    for (devices, metrics) in devices.chunks(STATEMENT).zip(metrics.chunks(STATEMENT)) {
        let client = pool.get().await.map_err(|error| words(&error))?;
        let rows = client
            .query(REGISTER, &[&devices, &metrics])
            .await
            .map_err(|error| words(&error))?;
        tracing::info!(names = devices.len(), "registered new names");
        registry.put(rows.iter().map(follow::device).collect());
    }
    Ok(())
}
