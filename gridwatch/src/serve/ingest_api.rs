//! `gridwatch ingest-api`: a front end whose sink is RabbitMQ, or PostgreSQL directly.

use std::sync::Arc;

use ::ingest_api::Confirms;
use service::health::Component;
use transport::{direct, failover};

use super::parts::{
    FRONT_END_CONNECTIONS, FRONT_END_STATEMENT_TIMEOUT, OpenSpool, Queue, WORKER_STATEMENT_TIMEOUT,
};
use super::process::{Process, bind};
use super::{Deployment, FrontEnd, Worker};
use crate::UsageError;
use crate::config::{IngestApi, SinkChoice};

/// The name in `pg_stat_activity`.
const NAME: &str = "gridwatch ingest-api";

/// Runs the command.
pub(crate) async fn run(arguments: IngestApi) -> anyhow::Result<()> {
    match arguments.sink {
        SinkChoice::Queue => queued(arguments).await,
        SinkChoice::Direct => direct(arguments).await,
    }
}

async fn queued(arguments: IngestApi) -> anyhow::Result<()> {
    let IngestApi {
        front_end, grace, ..
    } = &arguments;
    let broker = arguments.amqp.parse()?;
    let database = arguments
        .database
        .parse(NAME, FRONT_END_STATEMENT_TIMEOUT)?;
    let config = front_end.config(arguments.unknown_devices, grace.grace, Confirms::Enqueued);
    let listener = bind("--listen", &front_end.listen).await?;
    let mut components = vec![Component::Broker, Component::Registry];
    components.extend(arguments.spool.as_ref().map(|_| Component::Spool));
    let process = Process::start(&arguments.admin, &components).await?;
    let context = process.context();
    let pool = database.pool(FRONT_END_CONNECTIONS)?;
    let options = &arguments.spool_options;
    let (spool, fallback) = match &arguments.spool {
        None => (None, None),
        Some(directory) => {
            let (open, spool, source) =
                OpenSpool::open(&context, ("--spool", directory), options, failover::WINDOW)
                    .await?;
            (Some(open), Some((spool, source)))
        }
    };
    let queue = Queue::start(&context, broker, fallback, options.spool_after);
    let deployment = Deployment {
        front_end: Some(FrontEnd {
            config,
            listener,
            sink: queue.sink(),
        }),
        worker: None,
        queue: Some(queue),
        spool,
        pool,
        queries: None,
        background: None,
        embedded: None,
    };
    deployment.run(process).await
}

async fn direct(arguments: IngestApi) -> anyhow::Result<()> {
    let IngestApi {
        front_end,
        writer,
        grace,
        ..
    } = &arguments;
    if arguments.spool.is_some() {
        let sentence = "--spool needs --sink queue: it is the fallback for RabbitMQ";
        return Err(UsageError(sentence.into()).into());
    }
    let database = arguments.database.parse(NAME, WORKER_STATEMENT_TIMEOUT)?;
    let config = front_end.config(arguments.unknown_devices, grace.grace, Confirms::Committed);
    let listener = bind("--listen", &front_end.listen).await?;
    let components = [Component::Database, Component::Registry];
    let process = Process::start(&arguments.admin, &components).await?;
    let pool = database.pool(FRONT_END_CONNECTIONS + writer.connections())?;
    let (sink, source) = direct::pair(config.coalesce.max_in_flight);
    let deployment = Deployment {
        front_end: Some(FrontEnd {
            config,
            listener,
            sink: Arc::new(sink),
        }),
        worker: Some(Worker {
            config: writer.config(grace.grace),
            source: Box::new(source),
            migrate: false,
        }),
        queue: None,
        spool: None,
        pool,
        queries: None,
        background: None,
        embedded: None,
    };
    deployment.run(process).await
}
