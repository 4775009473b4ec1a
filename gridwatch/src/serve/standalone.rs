//! `gridwatch standalone`: a front end and a worker in one process.
//!
//! The queue is the spool, or RabbitMQ with the spool as fallback. The database is embedded, or a
//! PostgreSQL server.

use std::sync::Arc;

use anyhow::Context as _;
use ingest_api::Confirms;
use service::health::Component;
use store::Pool;
use tokio_util::sync::CancellationToken;
use transport::amqp::AmqpSource;
use transport::failover;
use transport::synced::SyncedSource;
use transport::{Sink, Source};

use super::parts::{FRONT_END_CONNECTIONS, OpenSpool, Queue, WORKER_STATEMENT_TIMEOUT};
use super::process::{Process, bind};
use super::{Deployment, FrontEnd, Worker, query_api};
use crate::config::Standalone;
use crate::embedded::Embedded;
use crate::migrate;

/// The name in `pg_stat_activity`.
const NAME: &str = "gridwatch standalone";

/// Runs the command.
pub(crate) async fn run(arguments: Standalone) -> anyhow::Result<()> {
    let (deployment, process) = open(arguments).await?;
    deployment.run(process).await
}

/// Opens every part of the process.
///
/// # Errors
/// A flag is wrong, a directory or an address is in use, or the embedded database does not start.
pub(crate) async fn open(arguments: Standalone) -> anyhow::Result<(Deployment, Process)> {
    let Standalone {
        front_end,
        writer,
        grace,
        ..
    } = &arguments;
    let broker = match &arguments.amqp.amqp_url {
        None => None,
        Some(_) => Some(arguments.amqp.parse()?),
    };
    let server = match &arguments.database.database_url {
        None => None,
        Some(_) => Some(arguments.database.parse(NAME, WORKER_STATEMENT_TIMEOUT)?),
    };
    let listener = bind("--listen", &front_end.listen).await?;
    let mut components = vec![Component::Database, Component::Registry, Component::Spool];
    components.extend(broker.as_ref().map(|_| Component::Broker));
    let process = Process::start(&arguments.admin, &components).await?;
    let context = process.context();
    let prefetch = match broker {
        Some(_) => failover::WINDOW,
        None => writer.prefetch.into(),
    };
    // The spool comes first, because its lock keeps a second process out of the directory.
    let directory = arguments.data.join("queue");
    let options = &arguments.spool_options;
    let (open, spool, spool_source) =
        OpenSpool::open(&context, ("--data", &directory), options, prefetch).await?;
    let failed = spool.failed();

    let mut worker_config = writer.config(grace.grace);
    let mut has_tables = true;
    let (pool, reads, embedded) = match server {
        Some(database) => {
            let reads = database
                .clone()
                .named(NAME, query_api::STATEMENT_TIMEOUT)
                .pool(query_api::CONNECTIONS)?;
            let pool = database.pool(FRONT_END_CONNECTIONS + writer.connections())?;
            // A server that is unavailable, or refuses, is retried while the front end runs.
            if let Err(reason) = migrate::apply_with(&pool).await {
                has_tables = false;
                tracing::warn!(
                    %database,
                    reason,
                    "cannot create or update the tables yet; retrying until it succeeds"
                );
                let health = context.health.component(Component::Database);
                health.unready(reason);
            }
            (pool, Some(reads), None)
        }
        None => {
            let (embedded, pool) = open_embedded(&arguments).await?;
            // The embedded database has one connection.
            worker_config.writers = 1;
            (pool, None, Some(embedded))
        }
    };
    let reads = reads.unwrap_or_else(|| pool.clone());
    let insecure = arguments.insecure_no_auth;
    let queries = match query_api::check_access(&front_end.listen, &listener, insecure) {
        Ok(access) => Some((reads.clone(), access)),
        Err(error) => {
            tracing::warn!("queries are not served: {error}");
            None
        }
    };
    // Last, because the tasks of the queue have to be closed in order once they run.
    let (sink, source, queue): (Arc<dyn Sink>, Box<dyn Source>, _) = match broker {
        None => {
            let source = synced(Box::new(spool_source), &arguments, &embedded, failed)?;
            (Arc::new(spool), source, None)
        }
        Some(broker) => {
            let health = context.health.component(Component::Broker);
            let source = AmqpSource::new(broker.clone(), writer.prefetch, health);
            let source = synced(Box::new(source), &arguments, &embedded, failed)?;
            let fallback = Some((spool, spool_source));
            let queue = Queue::start(&context, broker, fallback, options.spool_after);
            (queue.sink(), source, Some(queue))
        }
    };
    let deployment = Deployment {
        front_end: Some(FrontEnd {
            config: front_end.config(arguments.unknown_devices, grace.grace, Confirms::Enqueued),
            listener,
            sink,
        }),
        worker: Some(Worker {
            config: worker_config,
            source,
            migrate: !has_tables,
        }),
        queue,
        spool: Some(open),
        pool,
        queries,
        background: Some(reads),
        embedded,
    };
    Ok((deployment, process))
}

/// Starts the embedded database and creates its tables.
async fn open_embedded(arguments: &Standalone) -> anyhow::Result<(Embedded, Pool)> {
    let (embedded, pool) = Embedded::pool(&arguments.data.join("postgres"))?;
    let mut client = embedded.connect(&pool).await?;
    migrate::apply(&mut client, &"the embedded PostgreSQL").await?;
    drop(client);
    Ok((embedded, pool.into()))
}

/// Makes the acknowledgements of a source wait for the disk of the embedded database, if there is
/// one.
fn synced(
    source: Box<dyn Source>,
    arguments: &Standalone,
    embedded: &Option<Embedded>,
    failed: CancellationToken,
) -> anyhow::Result<Box<dyn Source>> {
    if embedded.is_none() {
        return Ok(source);
    }
    let data = &arguments.data;
    let synced = SyncedSource::new(source, data, failed)
        .with_context(|| format!("--data: {}", data.display()))?;
    Ok(Box::new(synced))
}

#[cfg(all(test, feature = "embedded"))]
mod tests {
    use std::time::Duration;

    use clap::Parser as _;
    use testbed::wait::until_async;

    use super::*;
    use crate::config::{Command, Settings};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn jobs_are_worked_on_where_queries_are_not_served() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().to_str().unwrap();
        let flags = [
            "--data",
            data,
            "--listen",
            "0.0.0.0:0",
            "--admin",
            "127.0.0.1:0",
        ];
        let command = ["gridwatch", "standalone"].into_iter().chain(flags);
        let Command::Standalone(settings) = Settings::try_parse_from(command).unwrap().command
        else {
            panic!("not the standalone command");
        };
        let (deployment, process) = open(settings).await.unwrap();
        assert!(deployment.queries.is_none());
        let (pool, stop) = (deployment.pool.clone(), process.context().stop);
        let client = pool.get().await.unwrap();
        let job = "INSERT INTO job (id, action, actor) VALUES (gen_random_uuid(), 'delete', 'x')";
        client.batch_execute(job).await.unwrap();
        drop(client);
        let working = async {
            until_async("the job is done", Duration::from_secs(60), async || {
                let client = pool.get().await.unwrap();
                let sql = "SELECT FROM job WHERE state = 'done'";
                client.query_opt(sql, &[]).await.unwrap().is_some()
            })
            .await;
            stop.cancel();
        };
        let (run, ()) = tokio::join!(deployment.run(process), working);
        run.unwrap();
    }
}
