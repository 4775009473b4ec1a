//! The servers of a run, their databases, and the processes under test.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use testbed::postgres::{Postgres, connect};
use testbed::process::Process;
use testbed::rabbitmq::RabbitMq;
use testbed::usage;
use tokio_postgres::Client;

use crate::common::load::{DEVICES, METRICS, PREFIX};
use crate::common::{free_address, migrate};

/// PostgreSQL and RabbitMQ, with a template database that has all tables and all series.
pub(crate) struct Servers {
    pub program: PathBuf,
    postgres: Postgres,
    rabbitmq: RabbitMq,
    logs: tempfile::TempDir,
}

/// A front end and a worker with their own database and virtual host.
pub(crate) struct Pipeline {
    pub ingest: Process,
    pub worker: Process,
    /// The address of the front end.
    pub listen: String,
    pub database: Client,
}

impl Servers {
    /// Starts the servers. `program` is the program under test.
    pub(crate) async fn start(program: PathBuf) -> anyhow::Result<Self> {
        println!("starting PostgreSQL and RabbitMQ");
        let servers = Self {
            program,
            postgres: Postgres::start()?,
            rabbitmq: RabbitMq::start(16)?,
            logs: tempfile::tempdir()?,
        };
        servers.create_template().await?;
        Ok(servers)
    }

    async fn create_template(&self) -> anyhow::Result<()> {
        let server = self.connect("postgres").await?;
        server.batch_execute("CREATE DATABASE template").await?;
        migrate(&self.program, &self.url("template"))?;
        let template = self.connect("template").await?;
        template
            .execute(
                "INSERT INTO device (external_id)
                 SELECT $1 || to_char(n, 'FM000000') FROM generate_series(0, $2) n ORDER BY n",
                &[&PREFIX, &(DEVICES as i32 - 1)],
            )
            .await?;
        template
            .execute(
                "INSERT INTO series (device_id, metric)
                 SELECT d.id, m FROM device d
                 CROSS JOIN unnest($1::text[]) WITH ORDINALITY AS m (m, n) ORDER BY d.id, n",
                &[&METRICS.as_slice()],
            )
            .await?;
        template
            .batch_execute("SELECT gridwatch_create_reading_day('2026-11-01')")
            .await?;
        Ok(())
    }

    async fn connect(&self, database: &str) -> anyhow::Result<Client> {
        connect(&self.url(database)).await
    }

    /// The URL of a database.
    pub(crate) fn url(&self, database: &str) -> String {
        self.postgres.url(database)
    }

    /// The directory of the logs of the processes.
    pub(crate) fn logs(&self) -> &Path {
        self.logs.path()
    }

    /// Creates a database from the template, and connects to it.
    pub(crate) async fn create_database(&self, name: &str) -> anyhow::Result<Client> {
        let server = self.connect("postgres").await?;
        let create = format!("CREATE DATABASE {name} TEMPLATE template");
        server.batch_execute(&create).await?;
        server.batch_execute("CHECKPOINT").await?;
        self.connect(name).await
    }

    pub(crate) async fn drop_database(&self, name: &str) -> anyhow::Result<()> {
        let server = self.connect("postgres").await?;
        let drop = format!("DROP DATABASE {name} WITH (FORCE)");
        Ok(server.batch_execute(&drop).await?)
    }

    /// Starts a front end and a worker with a new database, and waits until they are ready.
    pub(crate) async fn start_pipeline(&self, name: &str) -> anyhow::Result<Pipeline> {
        let database = self.create_database(name).await?;
        let (listen, admin) = (free_address()?, free_address()?);
        let amqp_url = self.rabbitmq.url(&self.rabbitmq.vhost()?);
        let database_url = self.url(name);
        let servers = ["--amqp-url", &amqp_url, "--database-url", &database_url];
        let ingest = ["ingest-api", "--listen", &listen, "--admin", &admin];
        let ingest = [&ingest[..], &servers].concat();
        let mut ingest = Process::start(&self.program, &ingest, &admin, self.logs())?;
        let admin = free_address()?;
        let worker = [&["worker", "--admin", &admin][..], &servers].concat();
        let mut worker = Process::start(&self.program, &worker, &admin, self.logs())?;
        ingest.wait_ready();
        worker.wait_ready();
        Ok(Pipeline {
            ingest,
            worker,
            listen,
            database,
        })
    }

    /// CPU time of all processes until now.
    pub(crate) fn cpu(&self, pipeline: &Pipeline) -> Cpu {
        Cpu {
            front_end: usage::of_process(pipeline.ingest.pid()),
            worker: usage::of_process(pipeline.worker.pid()),
            broker: usage::of_server(self.rabbitmq.pid().unwrap_or_default()),
            postgresql: usage::of_server(self.postgres.pid().unwrap_or_default()),
        }
    }
}

impl Pipeline {
    /// Waits until the worker has committed this many readings.
    pub(crate) async fn wait_stored(&self, readings: u64) -> anyhow::Result<()> {
        let committed = self
            .database
            .prepare("SELECT coalesce(sum(readings), 0)::bigint FROM batch")
            .await?;
        loop {
            let row = self.database.query_one(&committed, &[]).await?;
            if row.get::<_, i64>(0) >= readings as i64 {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Stops the front end and the worker.
    pub(crate) fn stop(&mut self) -> anyhow::Result<()> {
        self.ingest.terminate()?;
        self.worker.terminate()?;
        Ok(())
    }
}

/// CPU time in seconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Cpu {
    pub front_end: f64,
    pub broker: f64,
    pub worker: f64,
    pub postgresql: f64,
}

impl Cpu {
    /// The CPU time since an earlier one, each times `factor`.
    pub(crate) fn since(self, earlier: Self, factor: f64) -> Self {
        let difference = |now: f64, earlier: f64| (now - earlier) * factor;
        Self {
            front_end: difference(self.front_end, earlier.front_end),
            broker: difference(self.broker, earlier.broker),
            worker: difference(self.worker, earlier.worker),
            postgresql: difference(self.postgresql, earlier.postgresql),
        }
    }
}

/// Number and model of the cores.
pub(crate) fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{} x {}", cores, model.trim_start_matches([' ', '\t', ':']))
}
