//! Gridwatch's way from the queue to the table.
//!
//! ```text
//! source ▸ intake (decode, gather) ▸ writer (assemble, store: ledger, COPY, commit) ▸ settle ▸ acknowledge
//! ```
//!
//! Batching is natural: a load leaves as soon as a connection is free, with everything that is there. A lone message is
//! stored at once; under load the transactions grow, up to [`Config::max_rows`]. An acknowledgement never precedes the
//! commit.

pub mod amqp_source;
pub mod assemble;
pub mod copy;
pub mod direct;
pub mod failure;
pub mod intake;
pub mod partitions;
pub mod settle;
pub mod store;
pub mod writer;

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::Pool;
use service::health::{Health, Part};
use service::metrics::Histograms;
use service::postgres::words;
use service::source::Source;
use tokio_util::sync::CancellationToken;

use crate::partitions::Partitions;
use crate::writer::Writer;

/// Time between two looks at whether PostgreSQL can be reached.
const LOOK: Duration = Duration::from_secs(1);
/// How long PostgreSQL may take to answer before it counts as away.
const PATIENCE: Duration = Duration::from_secs(15);

/// Connections that the worker needs besides its writers': partitions ahead, and the look at whether PostgreSQL is there.
pub const SPARE_CONNECTIONS: usize = 2;

/// How the worker behaves.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Transactions at a time.
    pub writers: usize,
    /// Most readings of one transaction.
    pub max_rows: usize,
    /// How long transactions under way may take to finish after the stop signal.
    pub grace: Duration,
}

/// Works until `stop`, then drains: takes nothing more, finishes and acknowledges the transactions under way, gives back the
/// rest. Waits for PostgreSQL and its tables before it takes the first message.
///
/// # Errors
/// PostgreSQL says something that no retry mends. What was taken is given back.
pub async fn run(
    config: Config,
    source: Box<dyn Source>,
    pool: Pool,
    health: Health,
    histograms: Arc<Histograms>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let database = health.part("database");
    let watch_stop = CancellationToken::new();
    let partitions = Arc::new(Partitions::default());
    if !wait_for_tables(&pool, &partitions, &database, &stop).await {
        return Ok(());
    }
    let background = [
        tokio::spawn(watch(pool.clone(), database, watch_stop.clone())),
        tokio::spawn(partitions::make_ahead(
            partitions.clone(),
            pool.clone(),
            watch_stop.clone(),
        )),
    ];
    tracing::info!(writers = config.writers, "taking batches");
    let writer = Arc::new(Writer::new(pool, partitions, histograms, stop.clone()));
    let result = intake::run(config, source, writer, &health, stop).await;
    watch_stop.cancel();
    for task in background {
        // Nothing is lost with them.
        task.abort();
    }
    Ok(result?)
}

/// Waits until PostgreSQL answers and has every table. Returns false where `stop` came first.
async fn wait_for_tables(
    pool: &Pool,
    partitions: &Partitions,
    database: &Part,
    stop: &CancellationToken,
) -> bool {
    while !stop.is_cancelled() {
        let looked = async {
            let client = pool
                .get()
                .await
                .map_err(|error| format!("cannot connect: {}", words(&error)))?;
            if !schema::migrations::are_current(&client)
                .await
                .map_err(|error| words(&error))?
            {
                return Err("the tables are missing or old: run 'gridwatch migrate'".to_owned());
            }
            partitions
                .refresh(&client)
                .await
                .map_err(|error| words(&error))
        };
        match stop.run_until_cancelled(looked).await {
            Some(Ok(())) => {
                database.ready();
                return true;
            }
            Some(Err(reason)) => database.unready(reason),
            None => return false,
        }
        stop.run_until_cancelled(tokio::time::sleep(LOOK)).await;
    }
    false
}

/// Says every second whether PostgreSQL can be reached.
async fn watch(pool: Pool, database: Part, stop: CancellationToken) {
    let mut asking = None;
    while stop
        .run_until_cancelled(tokio::time::sleep(LOOK))
        .await
        .is_some()
    {
        // A task, and never two: PostgreSQL's futures are not given up in the middle.
        let task = asking.get_or_insert_with(|| tokio::spawn(ask(pool.clone())));
        let Some(answered) = stop
            .run_until_cancelled(tokio::time::timeout(PATIENCE, task))
            .await
        else {
            return;
        };
        match answered {
            Err(_) => database.unready(format!("no answer within {} s", PATIENCE.as_secs())),
            Ok(joined) => {
                asking = None;
                match joined.unwrap_or_else(|panic| Err(panic.to_string())) {
                    Ok(()) => database.ready(),
                    Err(reason) => database.unready(reason),
                }
            }
        }
    }
}

async fn ask(pool: Pool) -> Result<(), String> {
    let client = pool
        .get()
        .await
        .map_err(|error| format!("cannot connect: {}", words(&error)))?;
    client
        .simple_query("")
        .await
        .map(drop)
        .map_err(|error| words(&error))
}
