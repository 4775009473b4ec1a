//! The long-running commands: which sink, which source, which pool.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ingest_api::amqp_sink::AmqpSink;
use ingest_api::coalesce;
use service::amqp::Broker;
use service::health::Health;
use service::metrics::Metrics;
use service::postgres::Database;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use worker::amqp_source::AmqpSource;

use crate::Usage;
use crate::config::{AmqpUrl, DatabaseUrl, IngestApi, Worker};

/// Budget of all bodies under way in one process, in bytes.
const BODY_BUDGET: usize = 96 * 1024 * 1024;
/// Connections of the front end: one follows the registry, one registers.
const INGEST_CONNECTIONS: usize = 2;
/// Longest statement of the front end.
const INGEST_STATEMENT: Duration = Duration::from_secs(10);
/// Longest statement of the worker: a COPY of a full transaction on a slow disk.
const WORKER_STATEMENT: Duration = Duration::from_secs(300);
/// Connections at a time on the admin port.
const ADMIN_CONNECTIONS: usize = 64;
/// What a process needs to be ready.
const PARTS: [&str; 2] = ["broker", "database"];
/// How long a scrape under way may take at the end.
const ADMIN_GRACE: Duration = Duration::from_secs(1);

impl DatabaseUrl {
    /// The database, for a process of this name.
    ///
    /// # Errors
    /// [`Usage`]: not a URL.
    pub fn parse(&self, name: &str, statement_timeout: Duration) -> Result<Database, Usage> {
        let database: Database =
            self.database_url.parse().map_err(|error| Usage(format!("--database-url: {error}")))?;
        Ok(database.named(name, statement_timeout))
    }
}

impl AmqpUrl {
    fn parse(&self) -> Result<Broker, Usage> {
        self.amqp_url.parse().map_err(|error| Usage(format!("--amqp-url: {error}")))
    }
}

/// `gridwatch ingest-api`.
pub async fn ingest_api(arguments: IngestApi) -> anyhow::Result<()> {
    let broker = arguments.amqp.parse()?;
    let database = arguments.database.parse("gridwatch ingest-api", INGEST_STATEMENT)?;
    let listener = bind("--listen", arguments.listen).await?;
    let process = Process::start(arguments.admin).await?;
    let pool = database.pool(INGEST_CONNECTIONS)?;
    let sink_stop = CancellationToken::new();
    let (sink, supervisor) = AmqpSink::start(broker, process.health.part("broker"), sink_stop.clone());
    let config = ingest_api::Config {
        unknown_devices: arguments.unknown_devices,
        max_series: arguments.max_series,
        max_body_bytes: arguments.max_body_bytes,
        body_budget_bytes: BODY_BUDGET,
        max_connections: arguments.max_connections,
        coalesce: coalesce::Config {
            max_in_flight: arguments.max_in_flight,
            max_pending: arguments.max_pending,
            deliver_timeout: arguments.deliver_timeout,
        },
        future_tolerance: arguments.future_tolerance,
        horizon: arguments.horizon,
        grace: arguments.grace,
    };
    let histograms = process.metrics.histograms.clone();
    let result = ingest_api::run(
        config,
        listener,
        Arc::new(sink),
        pool.clone(),
        process.health.clone(),
        histograms,
        process.stop.clone(),
    )
    .await;
    sink_stop.cancel();
    let _ = supervisor.await;
    pool.close();
    process.end().await;
    result
}

/// `gridwatch worker`.
pub async fn worker(arguments: Worker) -> anyhow::Result<()> {
    let broker = arguments.amqp.parse()?;
    let database = arguments.database.parse("gridwatch worker", WORKER_STATEMENT)?;
    let process = Process::start(arguments.admin).await?;
    let pool = database.pool(arguments.writers + worker::SPARE_CONNECTIONS)?;
    let source = AmqpSource::new(broker, arguments.prefetch, process.health.part("broker"));
    let config = worker::Config { writers: arguments.writers, max_rows: arguments.max_rows, grace: arguments.grace };
    let histograms = process.metrics.histograms.clone();
    let result =
        worker::run(config, Box::new(source), pool.clone(), process.health.clone(), histograms, process.stop.clone())
            .await;
    pool.close();
    process.end().await;
    result
}

/// What every long-running command has: metrics, health, an admin port and a stop signal.
struct Process {
    metrics: Metrics,
    health: Health,
    stop: CancellationToken,
    admin_stop: CancellationToken,
    tasks: [tokio::task::JoinHandle<()>; 2],
}

impl Process {
    async fn start(admin: SocketAddr) -> anyhow::Result<Self> {
        let listener = bind("--admin", admin).await?;
        let metrics = Metrics::install()?;
        let health = Health::of(&PARTS);
        let stop = service::shutdown::on_signal()?;
        // Ended last, so that the way down can be watched.
        let admin_stop = CancellationToken::new();
        let router = service::admin::router(metrics.clone(), health.clone());
        tracing::info!(address = ?listener.local_addr().ok(), "admin port");
        let tasks = [
            tokio::spawn(service::http::serve(listener, router, ADMIN_CONNECTIONS, ADMIN_GRACE, admin_stop.clone())),
            tokio::spawn(metrics.clone().upkeep(admin_stop.clone())),
        ];
        Ok(Self { metrics, health, stop, admin_stop, tasks })
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
    TcpListener::bind(address).await.map_err(|error| Usage(format!("{flag} {address}: cannot listen: {error}")))
}
