//! Options that several commands have: where the servers are, and the limits of each part.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{DAY, LONGEST_AGE, MILLISECOND};
use crate::config::values::{self, Address};

/// Where PostgreSQL is. [`crate::config::load`] reads the file, so that the URL is given unless the
/// command does without it.
#[derive(Debug, Args)]
pub(crate) struct DatabaseUrl {
    /// PostgreSQL, as postgres://user:password@host:5432/database; sslmode as in libpq
    #[arg(long, value_name = "URL")]
    pub database_url: Option<String>,
    /// File with the URL of PostgreSQL, instead of --database-url
    #[arg(long, value_name = "FILE")]
    pub database_url_file: Option<PathBuf>,
}

/// Where RabbitMQ is, as [`DatabaseUrl`].
#[derive(Debug, Args)]
pub(crate) struct AmqpUrl {
    /// RabbitMQ, as amqp://user:password@host:5672/vhost (%2f is the vhost /)
    #[arg(long, value_name = "URL")]
    pub amqp_url: Option<String>,
    /// File with the URL of RabbitMQ, instead of --amqp-url
    #[arg(long, value_name = "FILE")]
    pub amqp_url_file: Option<PathBuf>,
}

/// Where the query API is.
#[derive(Debug, Clone, Args)]
pub(crate) struct QueryUrl {
    /// The query API, or the port of standalone
    #[arg(long, default_value = "http://127.0.0.1:8090", value_name = "URL")]
    pub url: String,
}

/// How readings are accepted.
#[derive(Debug, Args)]
pub(crate) struct FrontEndOptions {
    /// Address on which readings are accepted: an IP address or a name, with a port
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDR")]
    pub listen: Address,
    /// Upper bound on registered series; no more are registered beyond it
    #[arg(
        long,
        default_value_t = 1_000_000,
        value_name = "N",
        value_parser = |text: &str| values::count(text, 1..=2_000_000_000_usize)
    )]
    pub max_series: usize,
    /// Upper bound on the length of a body, before and after decompression
    #[arg(
        long,
        default_value = "16MiB",
        value_name = "SIZE",
        value_parser = |text: &str| values::size::<usize>(text, 1..=1 << 30)
    )]
    pub max_body_bytes: usize,
    /// Upper bound on readings that are not yet durable; beyond it requests get 503
    #[arg(
        long,
        default_value_t = 1_000_000,
        value_name = "N",
        value_parser = |text: &str| values::count(text, 1..=1_000_000_000_usize)
    )]
    pub max_pending: usize,
    /// Upper bound on batches in flight to the sink; at the limit, readings gather for the next
    /// batch [default: 4, or 64 with --sink direct]
    #[arg(
        long,
        value_name = "N",
        value_parser = |text: &str| values::count(text, 1..=10_000_usize)
    )]
    pub max_in_flight: Option<usize>,
    /// Upper bound on open connections
    #[arg(
        long,
        default_value_t = 10_000,
        value_name = "N",
        value_parser = |text: &str| values::count(text, 1..=1_000_000_usize)
    )]
    pub max_connections: usize,
    /// How long a batch may take to become durable before its requests get 503
    #[arg(
        long,
        default_value = "10s",
        value_name = "TIME",
        value_parser = |text: &str| values::time(text, MILLISECOND..=DAY)
    )]
    pub deliver_timeout: Duration,
    /// How far in the future a reading may be measured
    #[arg(
        long,
        default_value = "5m",
        value_name = "TIME",
        value_parser = |text: &str| values::time(text, Duration::ZERO..=LONGEST_AGE)
    )]
    pub future_tolerance: Duration,
    /// How old a reading may be, for example 90d [default: no age limit]
    #[arg(
        long,
        value_name = "TIME",
        value_parser = |text: &str| values::time(text, MILLISECOND..=LONGEST_AGE)
    )]
    pub horizon: Option<Duration>,
}

/// How readings are written.
#[derive(Debug, Args)]
pub(crate) struct WriterOptions {
    /// Number of concurrent transactions, each on its own connection
    #[arg(
        long,
        default_value_t = 2,
        value_name = "N",
        value_parser = |text: &str| values::count(text, 1..=1_000_usize)
    )]
    pub writers: usize,
    /// Upper bound on unacknowledged messages; limits memory and the size of a transaction
    #[arg(
        long,
        default_value_t = 512,
        value_name = "N",
        value_parser = |text: &str| values::count(text, 1..=2_000_u16)
    )]
    pub prefetch: u16,
    /// Upper bound on the readings of one transaction
    #[arg(
        long,
        default_value_t = 200_000,
        value_name = "N",
        value_parser = |text: &str| values::count(text, 1..=10_000_000_usize)
    )]
    pub max_rows: usize,
}

/// How large the queue on disk may become, and when it is the fallback for RabbitMQ.
#[derive(Debug, Args)]
pub(crate) struct SpoolOptions {
    /// Upper bound on the size of the queue on disk; beyond it requests get 503
    #[arg(
        long,
        default_value = "4GiB",
        value_name = "SIZE",
        value_parser = |text: &str| values::size::<u64>(text, 1 << 20..=1 << 50)
    )]
    pub spool_max_bytes: u64,
    /// How long RabbitMQ may take to confirm a batch before it is written to disk
    #[arg(
        long,
        default_value = "1s",
        value_name = "TIME",
        value_parser = |text: &str| values::time(text, MILLISECOND..=DAY)
    )]
    pub spool_after: Duration,
}

/// How long a front end with a writer may take to stop.
#[derive(Debug, Args)]
pub(crate) struct GraceOption {
    /// How long requests and transactions in flight may take after SIGTERM
    #[arg(
        long,
        default_value = "20s",
        value_name = "TIME",
        value_parser = |text: &str| values::time(text, Duration::ZERO..=DAY)
    )]
    pub grace: Duration,
}
