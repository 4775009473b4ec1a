//! The commands that run servers or prepare their tables.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use ingest_api::UnknownDevices;

use super::DAY;
use super::options::{
    AmqpUrl, DatabaseUrl, FrontEndOptions, GraceOption, SpoolOptions, WriterOptions,
};
use crate::config::values::{self, Address};

/// Where accepted readings are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum SinkChoice {
    /// RabbitMQ; a worker writes them to PostgreSQL
    Queue,
    /// PostgreSQL; the response is 201 after the commit
    Direct,
}

#[derive(Debug, Args)]
pub(crate) struct IngestApi {
    #[command(flatten)]
    pub front_end: FrontEndOptions,
    /// Address of /metrics, /healthz and /readyz
    #[arg(long, default_value = "127.0.0.1:8081", value_name = "ADDR")]
    pub admin: Address,
    /// Where accepted readings are sent
    #[arg(long, default_value = "queue", value_name = "SINK")]
    pub sink: SinkChoice,
    #[command(flatten)]
    pub amqp: AmqpUrl,
    #[command(flatten)]
    pub database: DatabaseUrl,
    /// What to do with readings of devices that are not registered: reject or register
    #[arg(long, default_value = "reject", value_name = "POLICY")]
    pub unknown_devices: UnknownDevices,
    /// Directory of a queue on disk, the fallback while RabbitMQ is unavailable
    #[arg(long, value_name = "DIR")]
    pub spool: Option<PathBuf>,
    #[command(flatten)]
    pub spool_options: SpoolOptions,
    #[command(flatten)]
    pub writer: WriterOptions,
    #[command(flatten)]
    pub grace: GraceOption,
}

#[derive(Debug, Args)]
pub(crate) struct Worker {
    /// Address of /metrics, /healthz and /readyz
    #[arg(long, default_value = "127.0.0.1:8082", value_name = "ADDR")]
    pub admin: Address,
    #[command(flatten)]
    pub amqp: AmqpUrl,
    #[command(flatten)]
    pub database: DatabaseUrl,
    #[command(flatten)]
    pub writer: WriterOptions,
    /// How long open transactions may take after SIGTERM
    #[arg(
        long,
        default_value = "20s",
        value_name = "TIME",
        value_parser = |text: &str| values::time(text, Duration::ZERO..=DAY)
    )]
    pub grace: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct QueryApi {
    /// Address on which queries are served: an IP address or a name, with a port
    #[arg(long, default_value = "127.0.0.1:8090", value_name = "ADDR")]
    pub listen: Address,
    /// Address of /metrics, /healthz and /readyz
    #[arg(long, default_value = "127.0.0.1:8091", value_name = "ADDR")]
    pub admin: Address,
    #[command(flatten)]
    pub database: DatabaseUrl,
    /// Serve queries without authentication on an address that other machines can reach
    #[arg(long)]
    pub insecure_no_auth: bool,
    /// Upper bound on concurrent queries, each on its own connection to PostgreSQL
    #[arg(
        long,
        default_value = "8",
        value_name = "N",
        value_parser = |text: &str| values::count(text, 1..=1_000_usize)
    )]
    pub connections: usize,
    /// Upper bound on open connections
    #[arg(
        long,
        default_value = "1000",
        value_name = "N",
        value_parser = |text: &str| values::count(text, 1..=1_000_000_usize)
    )]
    pub max_connections: usize,
    /// How long requests in flight may take after SIGTERM
    #[arg(
        long,
        default_value = "20s",
        value_name = "TIME",
        value_parser = |text: &str| values::time(text, Duration::ZERO..=DAY)
    )]
    pub grace: Duration,
}

/// `--amqp-url` is RabbitMQ to use as the queue; the queue on disk is then the fallback.
/// `--database-url` is PostgreSQL to use instead of the embedded one; its tables are brought up to
/// date at the start.
#[derive(Debug, Args)]
pub(crate) struct Standalone {
    /// Directory for all data: the queue on disk and the embedded PostgreSQL
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    #[command(flatten)]
    pub front_end: FrontEndOptions,
    /// Address of /metrics, /healthz and /readyz
    #[arg(long, default_value = "127.0.0.1:8081", value_name = "ADDR")]
    pub admin: Address,
    #[command(flatten)]
    pub amqp: AmqpUrl,
    #[command(flatten)]
    pub database: DatabaseUrl,
    /// What to do with readings of devices that are not registered: reject or register
    #[arg(long, default_value = "register", value_name = "POLICY")]
    pub unknown_devices: UnknownDevices,
    /// Serve queries without authentication when other machines can reach --listen
    #[arg(long)]
    pub insecure_no_auth: bool,
    #[command(flatten)]
    pub spool_options: SpoolOptions,
    #[command(flatten)]
    pub writer: WriterOptions,
    #[command(flatten)]
    pub grace: GraceOption,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Address on which readings are accepted; another port if it is in use
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDR")]
    pub listen: Address,
    /// Address of /metrics, /healthz and /readyz; another port if it is in use
    #[arg(long, default_value = "127.0.0.1:8081", value_name = "ADDR")]
    pub admin: Address,
    /// Number of simulated devices; each sends 30 seconds of current and voltage at the start
    #[arg(
        long,
        default_value_t = 5_000,
        value_name = "N",
        value_parser = |text: &str| values::count(text, 1..=100_000_u32)
    )]
    pub fleet: u32,
    /// CSV file of a meter to send instead of the day of a real meter that is part of the program
    #[arg(long, value_name = "FILE")]
    pub meter: Option<PathBuf>,
    /// RabbitMQ to use as the queue
    #[arg(long, value_name = "URL")]
    pub amqp_url: Option<String>,
    /// PostgreSQL to use instead of the embedded one
    #[arg(long, value_name = "URL")]
    pub database_url: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Health {
    /// Admin address of a process, as http://HOST:PORT
    #[arg(default_value = "http://127.0.0.1:8081", value_name = "URL")]
    pub url: String,
}

#[derive(Debug, Args)]
pub(crate) struct Migrate {
    #[command(flatten)]
    pub database: DatabaseUrl,
}
