//! The servers of a run, and what is measured on them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::SinkExt as _;
use testbed::postgres::Postgres;
use testbed::process::Process;
use testbed::rabbitmq::RabbitMq;
use testbed::usage;
use tokio_postgres::{Client, NoTls};

use crate::common::{address, median, program};
use crate::generator::{self, METRICS};
use crate::{BATCH, Cpu, Overload};

/// Microseconds from 1970 to 2000, PostgreSQL's epoch.
const POSTGRES_EPOCH: u64 = 946_684_800_000_000;
/// Connections of the end-to-end run.
const CONNECTIONS: usize = 16;

/// The servers of a run.
pub struct Stage {
    postgres: Postgres,
    rabbitmq: RabbitMq,
    folder: tempfile::TempDir,
}

/// A front end and a worker on a database and a virtual host of their own.
struct Pipeline {
    ingest: Process,
    worker: Process,
    listen: String,
    database: Client,
}

impl Stage {
    pub async fn start() -> anyhow::Result<Self> {
        println!("starting PostgreSQL and RabbitMQ");
        let stage = Self {
            postgres: Postgres::start()?,
            rabbitmq: RabbitMq::start(16)?,
            folder: tempfile::tempdir()?,
        };
        stage
            .connect("postgres")
            .await?
            .batch_execute("CREATE DATABASE template")
            .await?;
        let migrate = ["migrate", "--database-url", &stage.postgres.url("template")];
        ensure!(
            std::process::Command::new(program())
                .args(migrate)
                .output()?
                .status
                .success(),
            "migrate"
        );
        let metrics: Vec<&str> = METRICS.to_vec();
        let template = stage.connect("template").await?;
        template
            .execute(
                "INSERT INTO device (external_id) SELECT 'device-' || to_char(n, 'FM00000') FROM generate_series(0, $1) n",
                &[&(generator::DEVICES as i32 - 1)],
            )
            .await?;
        template
            .execute(
                "INSERT INTO series (device_id, metric)
                 SELECT d.id, m FROM device d CROSS JOIN unnest($1::text[]) WITH ORDINALITY AS m (m, n) ORDER BY d.id, n",
                &[&metrics],
            )
            .await?;
        template
            .batch_execute("SELECT gridwatch_create_reading_day('2026-11-01')")
            .await?;
        Ok(stage)
    }

    async fn connect(&self, database: &str) -> anyhow::Result<Client> {
        let (client, connection) =
            tokio_postgres::connect(&self.postgres.url(database), NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    async fn database(&self, name: &str) -> anyhow::Result<Client> {
        let create = format!("CREATE DATABASE {name} TEMPLATE template");
        let server = self.connect("postgres").await?;
        server.batch_execute(&create).await?;
        server.batch_execute("CHECKPOINT").await?;
        self.connect(name).await
    }

    async fn drop_database(&self, name: &str) -> anyhow::Result<()> {
        Ok(self
            .connect("postgres")
            .await?
            .batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)"))
            .await?)
    }

    /// Rows a second of one COPY in order of arrival. The rows are encoded beforehand: it is the limit of PostgreSQL.
    pub async fn copy(&self, round: usize, readings: usize) -> anyhow::Result<f64> {
        let name = format!("copy{round}");
        let database = self.database(&name).await?;
        let mut chunks = Vec::new();
        let mut buffer = BytesMut::new();
        buffer.put_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
        for number in 0..readings {
            let (device, metric, millis, value) = generator::reading(number);
            buffer.put_i16(3);
            buffer.put_i32(4);
            buffer.put_i32((device * METRICS.len() + metric + 1) as i32);
            buffer.put_i32(8);
            buffer.put_u64(millis * 1_000 - POSTGRES_EPOCH);
            buffer.put_i32(8);
            buffer.put_f64(value);
            if buffer.len() > 128 * 1024 {
                chunks.push(buffer.split().freeze());
            }
        }
        buffer.put_i16(-1);
        chunks.push(buffer.freeze());
        let begun = Instant::now();
        let statement = "COPY reading (series_id, measured_at, value) FROM STDIN (FORMAT binary)";
        let mut sink = std::pin::pin!(database.copy_in::<_, Bytes>(statement).await?);
        for chunk in chunks {
            sink.feed(chunk).await?;
        }
        let rows = sink.finish().await?;
        let seconds = begun.elapsed().as_secs_f64();
        ensure!(rows == readings as u64, "{rows} rows copied");
        self.drop_database(&name).await?;
        Ok(readings as f64 / seconds)
    }

    async fn pipeline(&self, name: &str) -> anyhow::Result<Pipeline> {
        let database = self.database(name).await?;
        let (listen, admin) = (address()?, address()?);
        let (amqp, url) = (
            self.rabbitmq.url(&self.rabbitmq.vhost()?),
            self.postgres.url(name),
        );
        let common = ["--amqp-url", &amqp, "--database-url", &url];
        let ingest = [
            &["ingest-api", "--listen", &listen, "--admin", &admin],
            &common[..],
        ]
        .concat();
        let mut ingest = Process::start(program(), &ingest, &admin, self.folder.path())?;
        let admin = address()?;
        let worker = [&["worker", "--admin", &admin], &common[..]].concat();
        let mut worker = Process::start(program(), &worker, &admin, self.folder.path())?;
        ingest.wait_ready();
        worker.wait_ready();
        Ok(Pipeline {
            ingest,
            worker,
            listen,
            database,
        })
    }

    /// Readings a second from the first send to the last row committed, and CPU-seconds per million readings.
    pub async fn end_to_end(
        &self,
        round: usize,
        readings: usize,
        requests: Arc<Vec<Vec<u8>>>,
    ) -> anyhow::Result<(f64, Cpu)> {
        let name = format!("pipeline{round}");
        let mut pipeline = self.pipeline(&name).await?;
        let before = self.cpu(&pipeline);
        let begun = Instant::now();
        generator::send_all(&pipeline.listen, requests, CONNECTIONS).await?;
        let accepted = begun.elapsed();
        pipeline.wait_settled(readings).await?;
        let seconds = begun.elapsed().as_secs_f64();
        let after = self.cpu(&pipeline);
        let rows: i64 = pipeline
            .database
            .query_one("SELECT count(*) FROM reading", &[])
            .await?
            .get(0);
        ensure!(
            rows == readings as i64,
            "{rows} rows of {readings} are stored"
        );
        println!(
            "  accepted in {:.1} s, stored in {seconds:.1} s",
            accepted.as_secs_f64()
        );
        pipeline.stop()?;
        self.drop_database(&name).await?;
        let per_million = |after: f64, before: f64| (after - before) * 1e6 / readings as f64;
        let cpu = Cpu {
            front_end: per_million(after.front_end, before.front_end),
            broker: per_million(after.broker, before.broker),
            worker: per_million(after.worker, before.worker),
            postgresql: per_million(after.postgresql, before.postgresql),
        };
        Ok((readings as f64 / seconds, cpu))
    }

    fn cpu(&self, pipeline: &Pipeline) -> Cpu {
        Cpu {
            front_end: usage::of_process(pipeline.ingest.pid()),
            worker: usage::of_process(pipeline.worker.pid()),
            broker: usage::of_server(self.rabbitmq.pid().unwrap_or_default()),
            postgresql: usage::of_server(self.postgres.pid().unwrap_or_default()),
        }
    }

    pub async fn bare(
        &self,
        connections: usize,
        duration: Duration,
    ) -> anyhow::Result<generator::Singles> {
        let address = address()?;
        let own = std::env::current_exe()?;
        let mut server = Process::start(&own, &["--bare", &address], &address, self.folder.path())?;
        server.wait_ready();
        generator::singles(&address, connections, duration).await
    }

    /// With or without a worker that empties the queue meanwhile.
    pub async fn singles(
        &self,
        name: &str,
        connections: usize,
        duration: Duration,
        working: bool,
    ) -> anyhow::Result<generator::Singles> {
        let mut pipeline = self.pipeline(name).await?;
        if !working {
            pipeline.worker.signal("STOP")?;
        }
        let (before, own) = (self.cpu(&pipeline), usage::of_process(std::process::id()));
        let result = generator::singles(&pipeline.listen, connections, duration).await?;
        let (after, own) = (
            self.cpu(&pipeline),
            usage::of_process(std::process::id()) - own,
        );
        let cores = |after: f64, before: f64| (after - before) / duration.as_secs_f64();
        println!(
            "  cores: generator {:.2}, front end {:.2}, broker {:.2}, worker {:.2}, PostgreSQL {:.2}",
            own / duration.as_secs_f64(),
            cores(after.front_end, before.front_end),
            cores(after.broker, before.broker),
            cores(after.worker, before.worker),
            cores(after.postgresql, before.postgresql)
        );
        pipeline.worker.signal("CONT")?;
        let accepted = pipeline.ingest.metric("gridwatch_readings_accepted_total") as usize;
        let [batches, confirming] = [
            "gridwatch_sink_batches_total",
            "gridwatch_sink_confirm_seconds_sum",
        ]
        .map(|name| pipeline.ingest.metric(name));
        println!(
            "  {} the worker: {:.0} requests/s, p50 {:.1} ms; {:.0} readings a message, confirmed in {:.2} ms on average",
            if working { "with" } else { "without" },
            result.per_second,
            result.p50_ms,
            accepted as f64 / batches,
            confirming / batches * 1e3
        );
        pipeline.wait_settled(accepted).await?;
        pipeline.stop()?;
        self.drop_database(name).await?;
        Ok(result)
    }

    pub async fn overload(&self, rate: f64, duration: Duration) -> anyhow::Result<Overload> {
        let mut pipeline = self.pipeline("overload").await?;
        let (ingest, worker) = (pipeline.ingest.pid(), pipeline.worker.pid());
        let watch = tokio::spawn(async move {
            let (mut front_end, mut own) = (Vec::new(), Vec::new());
            let begun = Instant::now();
            while begun.elapsed() < duration {
                front_end.push(usage::memory_mib(ingest));
                own.push(usage::memory_mib(worker));
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            (front_end, own)
        });
        let offered = generator::offer(&pipeline.listen, BATCH, rate, duration).await?;
        let (front_end, worker) = watch.await?;
        pipeline.stop()?;
        use std::sync::atomic::Ordering::Relaxed;
        let peak = |samples: &[f64]| samples.iter().copied().fold(0.0, f64::max);
        let growth = |samples: &[f64]| {
            let third = samples.len() / 3;
            median(samples[2 * third..].to_vec()) - median(samples[third..2 * third].to_vec())
        };
        Ok(Overload {
            seconds: duration.as_secs(),
            offered_per_second: rate,
            accepted: offered.accepted.load(Relaxed),
            refused: offered.refused.load(Relaxed),
            front_end_peak_mib: peak(&front_end),
            worker_peak_mib: peak(&worker),
            front_end_growth_mib: growth(&front_end),
            worker_growth_mib: growth(&worker),
        })
    }
}

impl Pipeline {
    async fn wait_settled(&self, readings: usize) -> anyhow::Result<()> {
        let settled = self
            .database
            .prepare("SELECT coalesce(sum(readings), 0)::bigint FROM batch")
            .await?;
        while self
            .database
            .query_one(&settled, &[])
            .await?
            .get::<_, i64>(0)
            < readings as i64
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        self.ingest.terminate()?;
        self.worker.terminate()?;
        Ok(())
    }
}
