//! The long-running commands: which sink, which source, which pool.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use deadpool_postgres::Pool;
use ingest_api::UnknownDevices;
use ingest_api::amqp_sink::AmqpSink;
use ingest_api::coalesce;
use ingest_api::failover::{self, FailoverSink};
use service::amqp::Broker;
use service::health::Health;
use service::metrics::Metrics;
use service::postgres::Database;
use service::sink::Sink;
use service::source::Source;
use service::spool::{self, Spool, SpoolSource};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use worker::amqp_source::AmqpSource;
use worker::direct;

use crate::config::{
    AmqpUrl, DatabaseUrl, FrontEnd, IngestApi, SinkChoice, SpoolLimits, Standalone, Worker, Writing,
};
use crate::embedded::{Embedded, SyncedSource};
use crate::{Usage, migrate};

/// Budget of all bodies under way in one process, in bytes.
const BODY_BUDGET: usize = 96 * 1024 * 1024;
/// Connections of the front end: one follows the registry, one registers.
const INGEST_CONNECTIONS: usize = 2;
/// Longest statement of the front end.
const INGEST_STATEMENT: Duration = Duration::from_secs(10);
/// Longest statement of the worker: a COPY of a full transaction on a slow disk.
const WORKER_STATEMENT: Duration = Duration::from_secs(300);
/// Batches in flight to a queue, where `--max-in-flight` does not say.
const IN_FLIGHT: usize = 4;
/// The same to PostgreSQL directly: what one transaction of the worker takes.
const IN_FLIGHT_DIRECT: usize = 64;
/// Bytes of a segment of the spool.
const SEGMENT: u64 = 16 * 1024 * 1024;
/// Connections at a time on the admin port.
const ADMIN_CONNECTIONS: usize = 64;
/// How long a scrape under way may take at the end.
const ADMIN_GRACE: Duration = Duration::from_secs(1);

impl DatabaseUrl {
    /// The database, for a process of this name.
    ///
    /// # Errors
    /// [`Usage`]: not a URL.
    pub fn parse(&self, name: &str, statement_timeout: Duration) -> Result<Database, Usage> {
        database(&self.database_url, name, statement_timeout)
    }
}

fn database(url: &str, name: &str, statement_timeout: Duration) -> Result<Database, Usage> {
    let database: Database = url
        .parse()
        .map_err(|error| Usage(format!("--database-url: {error}")))?;
    Ok(database.named(name, statement_timeout))
}

fn broker(url: &str) -> Result<Broker, Usage> {
    url.parse()
        .map_err(|error| Usage(format!("--amqp-url: {error}")))
}

impl AmqpUrl {
    fn parse(&self) -> Result<Broker, Usage> {
        broker(&self.amqp_url)
    }
}

impl FrontEnd {
    fn config(
        &self,
        unknown_devices: UnknownDevices,
        grace: Duration,
        stored: bool,
    ) -> ingest_api::Config {
        ingest_api::Config {
            unknown_devices,
            max_series: self.max_series,
            max_body_bytes: self.max_body_bytes,
            body_budget_bytes: BODY_BUDGET,
            max_connections: self.max_connections,
            coalesce: coalesce::Config {
                max_in_flight: self.max_in_flight.unwrap_or(if stored {
                    IN_FLIGHT_DIRECT
                } else {
                    IN_FLIGHT
                }),
                max_pending: self.max_pending,
                deliver_timeout: self.deliver_timeout,
            },
            future_tolerance: self.future_tolerance,
            horizon: self.horizon,
            stored,
            grace,
        }
    }
}

impl Writing {
    fn config(&self, grace: Duration) -> worker::Config {
        worker::Config {
            writers: self.writers,
            max_rows: self.max_rows,
            grace,
        }
    }
}

/// `gridwatch ingest-api`.
pub async fn ingest_api(arguments: IngestApi) -> anyhow::Result<()> {
    let IngestApi {
        front_end,
        writing,
        grace,
        ..
    } = &arguments;
    let direct = arguments.sink == SinkChoice::Direct;
    let statement = if direct {
        WORKER_STATEMENT
    } else {
        INGEST_STATEMENT
    };
    let database = arguments
        .database
        .parse("gridwatch ingest-api", statement)?;
    let config = front_end.config(arguments.unknown_devices, *grace, direct);
    if direct {
        if arguments.spool.is_some() {
            return Err(Usage(
                "--spool is for --sink queue: without a queue there is nothing to stand in for"
                    .into(),
            )
            .into());
        }
        let listener = bind("--listen", front_end.listen).await?;
        let process = Process::start(arguments.admin, &["database"]).await?;
        let pool =
            database.pool(INGEST_CONNECTIONS + writing.writers + worker::SPARE_CONNECTIONS)?;
        let (sink, source) = direct::pair(config.coalesce.max_in_flight);
        let result = both(
            &process,
            config,
            listener,
            Arc::new(sink),
            Box::new(source),
            pool,
            writing.config(*grace),
        )
        .await;
        process.end().await;
        return result;
    }
    // clap has seen to it that the URL is there.
    let broker = broker(arguments.amqp_url.as_deref().unwrap_or_default())?;
    let listener = bind("--listen", front_end.listen).await?;
    let parts: &[_] = if arguments.spool.is_some() {
        &["broker", "database", "spool"]
    } else {
        &["broker", "database"]
    };
    let process = Process::start(arguments.admin, parts).await?;
    let pool = database.pool(INGEST_CONNECTIONS)?;
    let opened = match &arguments.spool {
        None => None,
        Some(folder) => {
            Some(Spooled::open(folder, &arguments.spool_limits, failover::WINDOW, &process).await?)
        }
    };
    let (spooled, spool) = opened.unzip();
    let queue = Queue::start(broker, spool, arguments.spool_limits.spool_after, &process);
    let histograms = process.metrics.histograms.clone();
    let result = ingest_api::run(
        config,
        listener,
        queue.sink.clone(),
        pool.clone(),
        process.health.clone(),
        histograms,
        process.stop.clone(),
    )
    .await;
    queue.stop().await;
    let failed = match spooled {
        None => Ok(()),
        Some(spooled) => spooled.close().await,
    };
    pool.close();
    process.end().await;
    result.and(failed)
}

/// `gridwatch worker`.
pub async fn worker(arguments: Worker) -> anyhow::Result<()> {
    let Worker { writing, grace, .. } = &arguments;
    let broker = arguments.amqp.parse()?;
    let database = arguments
        .database
        .parse("gridwatch worker", WORKER_STATEMENT)?;
    let process = Process::start(arguments.admin, &["broker", "database"]).await?;
    let pool = database.pool(writing.writers + worker::SPARE_CONNECTIONS)?;
    let source = AmqpSource::new(broker, writing.prefetch, process.health.part("broker"));
    let histograms = process.metrics.histograms.clone();
    let (health, stop) = (process.health.clone(), process.stop.clone());
    let result = worker::run(
        writing.config(*grace),
        Box::new(source),
        pool.clone(),
        health,
        histograms,
        stop,
    )
    .await;
    pool.close();
    process.end().await;
    result
}

/// `gridwatch standalone`.
pub async fn standalone(arguments: Standalone) -> anyhow::Result<()> {
    let Standalone {
        front_end,
        writing,
        grace,
        ..
    } = &arguments;
    let broker = arguments.amqp_url.as_deref().map(broker).transpose()?;
    let given = arguments
        .database_url
        .as_deref()
        .map(|url| database(url, "gridwatch standalone", WORKER_STATEMENT))
        .transpose()?;
    let listener = bind("--listen", front_end.listen).await?;
    let parts: &[_] = if broker.is_some() {
        &["broker", "database", "spool"]
    } else {
        &["database", "spool"]
    };
    let process = Process::start(arguments.admin, parts).await?;
    let prefetch = if broker.is_some() {
        failover::WINDOW
    } else {
        writing.prefetch.into()
    };
    // First, because its lock is what keeps a second process from the folder.
    let folder = arguments.data.join("queue");
    let (spooled, (spool, source)) =
        Spooled::open(&folder, &arguments.spool_limits, prefetch, &process).await?;
    let mut config = front_end.config(arguments.unknown_devices, *grace, false);
    config.coalesce.max_in_flight = front_end.max_in_flight.unwrap_or(IN_FLIGHT);
    let mut writing_config = writing.config(*grace);
    let (pool, embedded) = match given {
        Some(database) => {
            migrate::apply(&mut migrate::connect(&database).await?, &database).await?;
            (
                database.pool(INGEST_CONNECTIONS + writing.writers + worker::SPARE_CONNECTIONS)?,
                None,
            )
        }
        None => {
            let (embedded, pool) = Embedded::pool(&arguments.data.join("postgres"))?;
            let mut client = pool
                .get()
                .await
                .context("the embedded PostgreSQL cannot be used")?;
            migrate::apply(&mut client, &"the embedded PostgreSQL").await?;
            // It has one connection.
            writing_config.writers = 1;
            (pool, Some(embedded))
        }
    };
    let synced = spool.failed();
    let result = match broker {
        None => {
            let source: Box<dyn Source> = match &embedded {
                Some(_) => Box::new(SyncedSource::new(source, &arguments.data, synced)?),
                None => Box::new(source),
            };
            both(
                &process,
                config,
                listener,
                Arc::new(spool),
                source,
                pool,
                writing_config,
            )
            .await
        }
        Some(broker) => {
            let taken = AmqpSource::new(
                broker.clone(),
                writing.prefetch,
                process.health.part("broker"),
            );
            let taken: Box<dyn Source> = match &embedded {
                Some(_) => Box::new(SyncedSource::new(taken, &arguments.data, synced)?),
                None => Box::new(taken),
            };
            let queue = Queue::start(
                broker,
                Some((spool, source)),
                arguments.spool_limits.spool_after,
                &process,
            );
            let sink = queue.sink.clone();
            let result = both(
                &process,
                config,
                listener,
                sink,
                taken,
                pool,
                writing_config,
            )
            .await;
            queue.stop().await;
            result
        }
    };
    let failed = spooled.close().await;
    if let Some(embedded) = embedded {
        embedded.stop().await;
    }
    process.end().await;
    result.and(failed)
}

/// A front end and a worker in one process: the front end stops first, so that the worker can store what it has taken.
async fn both(
    process: &Process,
    config: ingest_api::Config,
    listener: TcpListener,
    sink: Arc<dyn Sink>,
    source: Box<dyn Source>,
    pool: Pool,
    writing: worker::Config,
) -> anyhow::Result<()> {
    let worker_stop = CancellationToken::new();
    let (health, histograms) = (process.health.clone(), process.metrics.histograms.clone());
    let working = {
        let (pool, stop, worker_stop) = (pool.clone(), process.stop.clone(), worker_stop.clone());
        tokio::spawn(async move {
            let result = worker::run(writing, source, pool, health, histograms, worker_stop).await;
            // Nothing is stored any more: nothing must be taken.
            stop.cancel();
            result
        })
    };
    let (health, histograms) = (process.health.clone(), process.metrics.histograms.clone());
    let result = ingest_api::run(
        config,
        listener,
        sink,
        pool.clone(),
        health,
        histograms,
        process.stop.clone(),
    )
    .await;
    worker_stop.cancel();
    let worked = working.await?;
    pool.close();
    result.and(worked)
}

/// The way to RabbitMQ, with a spool to stand in for it or without.
struct Queue {
    sink: Arc<dyn Sink>,
    tasks: Vec<JoinHandle<()>>,
    drain_stop: CancellationToken,
    sink_stop: CancellationToken,
}

impl Queue {
    fn start(
        broker: Broker,
        spool: Option<(Spool, SpoolSource)>,
        patience: Duration,
        process: &Process,
    ) -> Self {
        let (drain_stop, sink_stop) = (CancellationToken::new(), CancellationToken::new());
        let (primary, supervisor) =
            AmqpSink::start(broker, process.health.part("broker"), sink_stop.clone());
        let primary: Arc<dyn Sink> = Arc::new(primary);
        let mut tasks = vec![supervisor];
        let sink = match spool {
            None => primary,
            Some((spool, source)) => {
                process.health.replaced("broker");
                let (sink, drain) =
                    FailoverSink::start(primary, spool, source, patience, drain_stop.clone());
                tasks.insert(0, drain);
                Arc::new(sink)
            }
        };
        Self {
            sink,
            tasks,
            drain_stop,
            sink_stop,
        }
    }

    /// What is not delivered yet stays in the spool.
    async fn stop(self) {
        self.drain_stop.cancel();
        self.sink_stop.cancel();
        for task in self.tasks {
            let _ = task.await;
        }
    }
}

/// An open spool, and what keeps an eye on it.
struct Spooled {
    spool: Spool,
    guard: spool::Guard,
    watch: JoinHandle<()>,
    stop: CancellationToken,
}

impl Spooled {
    async fn open(
        folder: &Path,
        limits: &SpoolLimits,
        prefetch: usize,
        process: &Process,
    ) -> Result<(Self, (Spool, SpoolSource)), Usage> {
        let config = spool::Config {
            folder: folder.to_owned(),
            max_bytes: limits.spool_max_bytes,
            segment_bytes: SEGMENT,
        };
        // Reads all that is in it.
        let (spool, source, guard) =
            tokio::task::spawn_blocking(move || spool::open(config, prefetch))
                .await
                .map_err(|error| Usage(error.to_string()))?
                .map_err(|error| Usage(format!("cannot open the queue on disk: {error}")))?;
        let stop = CancellationToken::new();
        let watch = tokio::spawn(spool::watch(
            spool.clone(),
            process.health.part("spool"),
            stop.clone(),
        ));
        let (failed, all) = (spool.failed(), process.stop.clone());
        tokio::spawn(async move {
            failed.cancelled().await;
            all.cancel();
        });
        Ok((
            Self {
                spool: spool.clone(),
                guard,
                watch,
                stop,
            },
            (spool, source),
        ))
    }

    /// Waits until everything is on the disk.
    async fn close(self) -> anyhow::Result<()> {
        self.stop.cancel();
        let _ = self.watch.await;
        let _ = tokio::task::spawn_blocking(move || self.guard.close()).await;
        if self.spool.failed().is_cancelled() {
            bail!(
                "the disk of the queue has failed; what was answered 202 before is safe as far as the disk is"
            );
        }
        Ok(())
    }
}

/// What every long-running command has: metrics, health, an admin port and a stop signal.
struct Process {
    metrics: Metrics,
    health: Health,
    stop: CancellationToken,
    admin_stop: CancellationToken,
    tasks: [JoinHandle<()>; 2],
}

impl Process {
    /// `parts` is what it needs to be ready.
    async fn start(admin: SocketAddr, parts: &[&'static str]) -> anyhow::Result<Self> {
        let listener = bind("--admin", admin).await?;
        let metrics = Metrics::install()?;
        let health = Health::of(parts);
        let stop = service::shutdown::on_signal()?;
        // Ended last, so that the way down can be watched.
        let admin_stop = CancellationToken::new();
        let router = service::admin::router(metrics.clone(), health.clone());
        tracing::info!(address = ?listener.local_addr().ok(), "admin port");
        let tasks = [
            tokio::spawn(service::http::serve(
                listener,
                router,
                |_| (),
                ADMIN_CONNECTIONS,
                ADMIN_GRACE,
                admin_stop.clone(),
            )),
            tokio::spawn(metrics.clone().upkeep(admin_stop.clone())),
        ];
        Ok(Self {
            metrics,
            health,
            stop,
            admin_stop,
            tasks,
        })
    }

    async fn end(self) {
        self.admin_stop.cancel();
        for task in self.tasks {
            let _ = task.await;
        }
        tracing::info!("stopped");
    }
}

async fn bind(flag: &str, address: SocketAddr) -> Result<TcpListener, Usage> {
    TcpListener::bind(address)
        .await
        .map_err(|error| Usage(format!("{flag} {address}: cannot listen: {error}")))
}
