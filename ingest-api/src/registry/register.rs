//! Registering: new names into `device` and `series`, in one statement for all that wait.
//!
//! In: the new names of requests. Out: the registry knows them, or an error that is worth a retry. One task does it: while
//! one statement is under way the names of every further request gather for the next, so that a thousand devices that
//! appear at once cost two statements and not a thousand.

use std::collections::BTreeSet;
use std::sync::Arc;

use deadpool_postgres::Pool;
use service::postgres::words;
use tokio::sync::{mpsc, oneshot};

use super::{Registry, follow};

/// Requests whose names may wait.
const QUEUE: usize = 1_024;
/// Names that one statement registers at most.
const STATEMENT: usize = 20_000;

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
}

/// Where requests hand in their new names.
#[derive(Debug, Clone)]
pub struct Registrar(mpsc::Sender<Wanted>);

impl Registrar {
    /// Starts the task. It ends when the last registrar is dropped.
    pub fn start(registry: Arc<Registry>, pool: Pool, max_series: usize) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(run(registry, pool, max_series, receiver));
        Self(sender)
    }

    /// Registers these names; afterwards the registry finds them.
    ///
    /// # Errors
    /// [`RegisterError`]; none of the names is registered then, or not known to be.
    pub async fn register(&self, pairs: Vec<Pair>) -> Result<(), RegisterError> {
        let (reply, answer) = oneshot::channel();
        self.0.try_send(Wanted { pairs, reply }).map_err(|_| RegisterError::Unavailable)?;
        answer.await.unwrap_or(Err(RegisterError::Unavailable))
    }
}

async fn run(registry: Arc<Registry>, pool: Pool, max_series: usize, mut receiver: mpsc::Receiver<Wanted>) {
    while let Some(first) = receiver.recv().await {
        let mut count = first.pairs.len();
        let mut waiting = vec![first];
        while count < STATEMENT
            && let Ok(next) = receiver.try_recv()
        {
            count += next.pairs.len();
            waiting.push(next);
        }
        // Another front end, or the statement before, may have registered some of them.
        let new: BTreeSet<Pair> = {
            let names = registry.names();
            let unknown = |(device, metric): &&Pair| {
                matches!(names.find(device, metric), super::Known::NoDevice | super::Known::NoMetric)
            };
            waiting.iter().flat_map(|wanted| &wanted.pairs).filter(unknown).cloned().collect()
        };
        let result = if registry.series() + new.len() > max_series {
            Err(RegisterError::Full)
        } else if new.is_empty() {
            Ok(())
        } else {
            insert(&registry, &pool, new).await.map_err(|reason| {
                tracing::warn!(reason, "cannot register new names");
                RegisterError::Unavailable
            })
        };
        for wanted in waiting {
            // A request whose client has gone does not wait for the answer any more.
            let _ = wanted.reply.send(result.clone());
        }
    }
}

async fn insert(registry: &Registry, pool: &Pool, new: BTreeSet<Pair>) -> Result<(), String> {
    let client = pool.get().await.map_err(|error| words(&error))?;
    let (devices, metrics): (Vec<String>, Vec<String>) = new.into_iter().unzip();
    let rows = client.query(REGISTER, &[&devices, &metrics]).await.map_err(|error| words(&error))?;
    tracing::info!(names = devices.len(), "registered new names");
    registry.put(rows.iter().map(follow::device).collect());
    Ok(())
}
