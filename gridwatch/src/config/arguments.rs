//! The commands and their flags. The doc comments are the help texts.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use ingest_api::UnknownDevices;
use jiff::tz::TimeZone;
use service::telemetry::LogFormat;

use super::values::{self, Address};

/// The longest time of a limit.
const DAY: Duration = Duration::from_secs(86_400);
/// The longest time between `measured_at` and now.
const LONGEST_AGE: Duration = DAY.saturating_mul(365 * 1_000);
const MILLISECOND: Duration = Duration::from_millis(1);

/// The end of the help.
const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    failed while running: a server is unavailable, a disk failed, or another fatal error
  2    a flag, a setting or a file is wrong
  3    import has finished, and some readings were left out
  130  a second signal ended the process at once";

/// Gridwatch: readings from devices over HTTP into PostgreSQL, exactly once, every stage timed.
///
/// Every flag except those of demo can also be set in the environment as GRIDWATCH_ and its name,
/// or in a TOML file.
#[derive(Debug, Parser)]
#[command(name = "gridwatch", version, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Settings {
    /// TOML file with settings; keys are names of flags, sections are names of commands
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// What to log: a level, or a filter such as info,worker=debug
    #[arg(
        long,
        global = true,
        default_value = "info",
        value_name = "FILTER",
        value_parser = log_filter
    )]
    pub log: String,
    /// Format of log lines: text or json
    #[arg(long, global = true, default_value = "text", value_name = "FORMAT")]
    pub log_format: LogFormat,
    /// Number of worker threads [default: number of cores]
    #[arg(
        long,
        global = true,
        value_name = "COUNT",
        value_parser = |text: &str| values::count(text, 1..=1_024_u16)
    )]
    pub threads: Option<u16>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Accept readings over HTTP and publish them to RabbitMQ
    IngestApi(IngestApi),
    /// Consume batches from RabbitMQ and write them to PostgreSQL
    Worker(Worker),
    /// Respond to questions about the stored readings over HTTP
    QueryApi(QueryApi),
    /// Run everything in one process, with a queue on disk and an embedded PostgreSQL
    Standalone(Standalone),
    /// Try Gridwatch: standalone in a temporary directory, with a simulated fleet
    Demo(Demo),
    /// Create the tables or bring them up to date
    Migrate(Migrate),
    /// Register and list devices
    Devices(Devices),
    /// List the components of the model
    Components(Components),
    /// Show the readings of a device as a table, a plot or JSON
    Readings(Readings),
    /// Send the content of a file to a running front end. Exit code 3: something was left out
    Import(Import),
    /// Write readings to a file that import reads
    Export(Export),
}

/// Where PostgreSQL is.
#[derive(Debug, Args)]
pub(crate) struct DatabaseUrl {
    /// PostgreSQL, as postgres://user:password@host:5432/database; sslmode as in libpq
    #[arg(long, value_name = "URL")]
    pub database_url: String,
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
    /// RabbitMQ, as amqp://user:password@host:5672/vhost (%2f is the vhost /)
    // clap's `required_if_eq` ignores defaults, so that the command checks it.
    #[arg(long, value_name = "URL")]
    pub amqp_url: Option<String>,
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
    /// How long requests and transactions in flight may take after SIGTERM
    #[arg(
        long,
        default_value = "20s",
        value_name = "TIME",
        value_parser = |text: &str| values::time(text, Duration::ZERO..=DAY)
    )]
    pub grace: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Worker {
    /// Address of /metrics, /healthz and /readyz
    #[arg(long, default_value = "127.0.0.1:8082", value_name = "ADDR")]
    pub admin: Address,
    /// RabbitMQ, as amqp://user:password@host:5672/vhost (%2f is the vhost /)
    #[arg(long, value_name = "URL")]
    pub amqp_url: String,
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
    /// RabbitMQ to use as the queue; the queue on disk is then the fallback
    #[arg(long, value_name = "URL")]
    pub amqp_url: Option<String>,
    /// PostgreSQL to use instead of the embedded one; its tables are brought up to date at start
    #[arg(long, value_name = "URL")]
    pub database_url: Option<String>,
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
    /// How long requests and transactions in flight may take after SIGTERM
    #[arg(
        long,
        default_value = "20s",
        value_name = "TIME",
        value_parser = |text: &str| values::time(text, Duration::ZERO..=DAY)
    )]
    pub grace: Duration,
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
pub(crate) struct Migrate {
    #[command(flatten)]
    pub database: DatabaseUrl,
}

#[derive(Debug, Args)]
pub(crate) struct Devices {
    #[command(subcommand)]
    pub command: DevicesCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DevicesCommand {
    /// Register devices with their metrics. Registering again is safe: a stored unit is kept, and
    /// nothing is registered if one differs from the given unit
    Add {
        #[command(flatten)]
        database: DatabaseUrl,
        /// External ids of the devices
        #[arg(required = true, value_name = "DEVICE")]
        devices: Vec<String>,
        /// A metric, with its unit after the last colon: active_power:W. A metric that has a colon
        /// in its name and no unit ends with a colon. Repeat for several metrics
        #[arg(long = "metric", required = true, value_name = "METRIC[:UNIT]")]
        metrics: Vec<String>,
    },
    /// List the registered devices and their metrics
    List {
        #[command(flatten)]
        database: DatabaseUrl,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Components {
    #[command(subcommand)]
    pub command: ComponentsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ComponentsCommand {
    /// List the components
    List(ListComponents),
}

#[derive(Debug, Args)]
pub(crate) struct ListComponents {
    /// Only components of this kind, such as station
    #[arg(long, value_name = "KIND")]
    pub kind: Option<String>,
    /// Only components whose name has this text
    #[arg(long, value_name = "TEXT")]
    pub text: Option<String>,
    /// The query API, or the port of standalone
    #[arg(long, default_value = "http://127.0.0.1:8090", value_name = "URL")]
    pub url: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Readings {
    /// External id of the device
    #[arg(value_name = "DEVICE")]
    pub device: String,
    /// Metric [default: all metrics of the device]
    #[arg(long, value_name = "METRIC")]
    pub metric: Option<String>,
    /// The time until now, such as 90m, 1d or 4w [default: 1d]
    #[arg(
        long,
        value_name = "TIME",
        conflicts_with_all = ["from", "to"],
        value_parser = |text: &str| values::time(text, MILLISECOND..=LONGEST_AGE)
    )]
    pub last: Option<Duration>,
    /// Start of the range: a date, RFC 3339, or milliseconds since 1970
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// End of the range, which is not part of it [default: now]
    #[arg(long, value_name = "TIME", requires = "from")]
    pub to: Option<String>,
    /// Length of buckets, such as 15m, 1h, 1d or 1mo [default: every reading; a plot chooses one]
    #[arg(long, value_name = "LENGTH")]
    pub resolution: Option<String>,
    /// Aggregates of each bucket, with commas in between, such as min,median,max [default: mean]
    #[arg(long, value_name = "NAMES")]
    pub aggregates: Option<String>,
    /// Time zone of the output, of dates and of local days, such as Europe/Berlin [default: UTC]
    #[arg(long, value_name = "ZONE")]
    pub time_zone: Option<String>,
    /// The query API, or the port of standalone
    #[arg(long, default_value = "http://127.0.0.1:8090", value_name = "URL")]
    pub url: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Draw a line in the terminal
    #[arg(long, conflicts_with = "json")]
    pub plot: bool,
}

/// What a file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ImportKind {
    /// Readings
    Readings,
    /// Factories with their actual production and its goal
    Factories,
    /// Types of sprockets
    Sprockets,
}

/// The format of a file with readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ImportFormat {
    /// Comma-separated values
    Csv,
    /// A JSON object per line
    Ndjson,
    /// Line protocol of InfluxDB
    Influx,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Import {
    /// The file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// What the file has: readings, factories or sprockets
    #[arg(long, default_value = "readings", value_name = "KIND")]
    pub kind: ImportKind,
    /// Format of readings: csv, ndjson or influx [default: by the extension of the file: .ndjson
    /// and .jsonl, .lp and .influx, otherwise csv]
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<ImportFormat>,
    /// External id of the device of the readings [default: the file names the device]
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
    /// Metric of the readings [default: the file names the metric]
    #[arg(long, value_name = "METRIC")]
    pub metric: Option<String>,
    /// The front end, or the port of standalone
    #[arg(long, default_value = "http://127.0.0.1:8080", value_name = "URL")]
    pub url: String,
    /// The query API, for factories and sprockets [default: the same as --url]
    #[arg(long, value_name = "URL")]
    pub query_url: Option<String>,
    /// CSV: column with the time [default: the first, or 'time' if the file names the device]
    #[arg(long, value_name = "NAME")]
    pub time_column: Option<String>,
    /// CSV: column with the value [default: the second, or 'value' if the file names the device]
    #[arg(long, value_name = "NAME")]
    pub value_column: Option<String>,
    /// Line protocol: tag with the device
    #[arg(long, value_name = "TAG")]
    pub device_tag: Option<String>,
    /// Zone of times without one, such as UTC or Europe/Berlin; otherwise a file with such times
    /// is refused
    #[arg(long, value_name = "ZONE", value_parser = values::time_zone)]
    pub time_zone: Option<TimeZone>,
    /// Unit of times that are numbers since 1970: s, ms, us or ns [default: s; ns for line
    /// protocol]
    #[arg(
        long,
        value_name = "UNIT",
        hide_possible_values = true,
        value_parser = ["s", "ms", "us", "ns"]
    )]
    pub precision: Option<String>,
    /// Readings per request
    #[arg(
        long,
        default_value_t = 1_000,
        value_name = "N",
        value_parser = |text: &str| values::count(text, 1..=100_000_usize)
    )]
    pub batch: usize,
}

/// The format of a file that export writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ExportFormat {
    /// A JSON object per line
    Ndjson,
    /// Comma-separated values
    Csv,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// External id of a device. Repeat for several devices
    #[arg(long, required = true, value_name = "DEVICE")]
    pub device: Vec<String>,
    /// Metric [default: all metrics of the devices]
    #[arg(long, value_name = "METRIC")]
    pub metric: Option<String>,
    /// Start of the range: a date, RFC 3339, or milliseconds since 1970
    #[arg(long, value_name = "TIME")]
    pub from: String,
    /// End of the range, which is not part of it
    #[arg(long, value_name = "TIME")]
    pub to: String,
    /// Time zone of dates in --from and --to, such as Europe/Berlin [default: UTC]
    #[arg(long, value_name = "ZONE")]
    pub time_zone: Option<String>,
    /// Format: ndjson or csv
    #[arg(long, default_value = "ndjson", value_name = "FORMAT")]
    pub format: ExportFormat,
    /// File to write; it appears when it is complete [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The query API, or the port of standalone
    #[arg(long, default_value = "http://127.0.0.1:8090", value_name = "URL")]
    pub url: String,
}

fn log_filter(text: &str) -> Result<String, String> {
    service::telemetry::check_filter(text)?;
    Ok(text.to_owned())
}
