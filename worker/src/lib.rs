//! The worker: from the queue to the table.
//!
//! ```text
//! source ▸ intake (decode, gather) ▸ writer (transaction) ▸ acknowledge
//! ```
//!
//! Batching is natural: a transaction starts as soon as a connection is free, with everything that
//! has been received. A lone message is stored at once; under load the transactions grow, up to
//! [`Config::max_rows`]. An acknowledgement never precedes the commit.

mod ack_tracker;
mod intake;
mod pending;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use service::Context;
use service::health::Component;
use store::partitions::{self, Partitions};
use store::{Pool, migrations, probe};
use tokio_util::sync::CancellationToken;
use transport::Source;

use crate::writer::Writer;

/// How often the partitions ahead of today are created.
const CREATE_INTERVAL: Duration = Duration::from_secs(3_600);

/// Connections that the worker needs besides one for each writer: one creates partitions, one
/// probes.
pub const SPARE_CONNECTIONS: usize = 2;

/// How the worker behaves.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Upper bound on concurrent transactions.
    pub writers: usize,
    /// Upper bound on the readings of one transaction; one message may exceed it.
    pub max_rows: usize,
    /// How long open transactions may take after the stop signal.
    pub grace: Duration,
}

/// Works until the stop signal, then drains: stops receiving, commits and acknowledges the open
/// transactions, and returns the rest to the queue. Waits for PostgreSQL and its tables before it
/// receives the first message.
///
/// # Errors
/// PostgreSQL reports an error that no retry resolves. What was received is returned to the queue.
pub async fn run(
    context: Context,
    config: Config,
    source: Box<dyn Source>,
    pool: Pool,
) -> anyhow::Result<()> {
    let database = context.health.component(Component::Database);
    let partitions = Arc::new(Partitions::default());
    let check = async || {
        migrations::check(&pool).await?;
        partitions::load(&partitions, &pool).await
    };
    if !migrations::wait(&database, &context.stop, check).await {
        return Ok(());
    }
    database.ready();
    let background_stop = CancellationToken::new();
    let probing = tokio::spawn(probe::run(pool.clone(), database, background_stop.clone()));
    let creating = tokio::spawn(create_ahead(
        partitions.clone(),
        pool.clone(),
        background_stop.clone(),
    ));
    tracing::info!(writers = config.writers, "receiving batches");
    let writer = Arc::new(Writer::new(&context, pool, partitions));
    let result = intake::run(&context, config, source, writer).await;
    background_stop.cancel();
    for task in [probing, creating] {
        let _ = task.await;
    }
    Ok(result?)
}

/// Creates the partitions of the next days, now and every hour, until `stop`. A failure is logged:
/// partitions are also created when readings need them.
async fn create_ahead(partitions: Arc<Partitions>, pool: Pool, stop: CancellationToken) {
    while let Some(created) = stop
        .run_until_cancelled(partitions::create_ahead(&partitions, &pool))
        .await
    {
        if let Err(reason) = created {
            tracing::warn!(
                reason,
                "cannot create partitions ahead of time; they are created when readings need them"
            );
        }
        let pause = tokio::time::sleep(CREATE_INTERVAL);
        stop.run_until_cancelled(pause).await;
    }
}
