//! Configuration: flags, then `GRIDWATCH_…` in the environment, then a TOML file, then defaults.
//!
//! There is one definition of every setting, its flag. The name in the environment is made from it, and what a file says
//! becomes the flag's default before the command line is read, so that every value goes through the same check whatever
//! it came from. A key of the file that is no flag is an error that names it. A setting is at the top of the file, for
//! every command that has it, or in the section of one command:
//!
//! ```toml
//! database-url = "postgres://gridwatch@db/gridwatch"
//! [worker]
//! writers = 4
//! ```

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use ingest_api::UnknownDevices;
use service::telemetry::LogFormat;

/// Gridwatch: readings from devices over HTTP into PostgreSQL, exactly once, with every step timed.
///
/// Every flag can also be set in the environment, as GRIDWATCH_ and its name, or in a TOML file.
#[derive(Debug, Parser)]
#[command(name = "gridwatch", version, max_term_width = 110)]
pub struct Settings {
    /// TOML file with settings; keys are the names of flags, sections those of commands
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What to log: a level, or a filter such as info,worker=debug
    #[arg(long, global = true, default_value = "info", value_name = "FILTER")]
    pub log: String,
    /// How log lines look: text or json
    #[arg(long, global = true, default_value = "text", value_name = "FORMAT")]
    pub log_format: LogFormat,
    /// Threads that the work is spread over; as many as the machine has cores unless told
    #[arg(long, global = true, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1_024))]
    pub threads: Option<u16>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Take readings over HTTP and put them on the queue
    IngestApi(IngestApi),
    /// Take batches off the queue and write them into PostgreSQL
    Worker(Worker),
    /// Everything in one process, with a queue on disk and PostgreSQL embedded: nothing to install
    Standalone(Standalone),
    /// Create the tables or bring them up to date
    Migrate(Migrate),
    /// Register devices and list them
    Devices(Devices),
    /// Send a CSV file of readings through a running front end
    Replay(Replay),
}

/// Where PostgreSQL is.
#[derive(Debug, Args)]
pub struct DatabaseUrl {
    /// PostgreSQL, as postgres://user:password@host:5432/database
    #[arg(long, value_name = "URL")]
    pub database_url: String,
}

/// Where RabbitMQ is.
#[derive(Debug, Args)]
pub struct AmqpUrl {
    /// RabbitMQ, as amqp://user:password@host:5672/vhost (%2f is the vhost named /)
    #[arg(long, value_name = "URL")]
    pub amqp_url: String,
}

/// How readings are taken.
#[derive(Debug, Args)]
pub struct FrontEnd {
    /// Address to take readings on
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDR")]
    pub listen: SocketAddr,
    /// Most series that registering may make
    #[arg(long, default_value_t = 1_000_000, value_name = "N")]
    pub max_series: usize,
    /// Longest body in bytes, before and after decompression
    #[arg(long, default_value_t = 16 * 1024 * 1024, value_name = "BYTES")]
    pub max_body_bytes: usize,
    /// Most readings that wait to become durable; past that requests get 503
    #[arg(long, default_value_t = 1_000_000, value_name = "N")]
    pub max_pending: usize,
    /// Most batches under way to the sink; while they are, readings gather for the next. 4, and 64 to PostgreSQL directly
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub max_in_flight: Option<usize>,
    /// Most connections at a time
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = at_least_one)]
    pub max_connections: usize,
    /// How long a batch may take to become durable before its requests get 503
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub deliver_timeout: Duration,
    /// How far ahead of this machine's clock a reading may be
    #[arg(long, default_value = "5m", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub future_tolerance: Duration,
    /// How old a reading may be, for example 90d; any age is welcome unless set
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub horizon: Option<Duration>,
}

/// How readings are written.
#[derive(Debug, Args)]
pub struct Writing {
    /// Transactions at a time, each on a connection of its own
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = at_least_one)]
    pub writers: usize,
    /// Messages taken and not yet acknowledged; bounds the memory and the size of a transaction
    #[arg(long, default_value_t = 512, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=2000))]
    pub prefetch: u16,
    /// Most readings of one transaction
    #[arg(long, default_value_t = 200_000, value_name = "N", value_parser = at_least_one)]
    pub max_rows: usize,
}

/// How large the queue on disk may become, and when it stands in for RabbitMQ.
#[derive(Debug, Args)]
pub struct SpoolLimits {
    /// Most bytes of the queue on disk; past that requests get 503
    #[arg(long, default_value_t = 4 * 1024 * 1024 * 1024, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1_048_576..))]
    pub spool_max_bytes: u64,
    /// How long RabbitMQ may take to confirm before a batch goes to disk
    #[arg(long, default_value = "1s", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub spool_after: Duration,
}

/// Where accepted readings go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum SinkChoice {
    /// RabbitMQ; a worker writes them into PostgreSQL.
    Queue,
    /// PostgreSQL: the answer is 201, once they are committed.
    Direct,
}

#[derive(Debug, Args)]
pub struct IngestApi {
    #[command(flatten)]
    pub front_end: FrontEnd,
    /// Address of /metrics, /healthz and /readyz
    #[arg(long, default_value = "127.0.0.1:9090", value_name = "ADDR")]
    pub admin: SocketAddr,
    /// Where readings go: to the queue, or directly into PostgreSQL
    #[arg(long, default_value = "queue", value_name = "SINK")]
    pub sink: SinkChoice,
    /// RabbitMQ, as amqp://user:password@host:5672/vhost (%2f is the vhost named /)
    #[arg(long, value_name = "URL", required_if_eq("sink", "queue"))]
    pub amqp_url: Option<String>,
    #[command(flatten)]
    pub database: DatabaseUrl,
    /// Readings of devices that are not registered: reject, or register
    #[arg(long, default_value = "reject", value_name = "POLICY")]
    pub unknown_devices: UnknownDevices,
    /// Folder of a queue on disk that takes readings while RabbitMQ does not
    #[arg(long, value_name = "DIR")]
    pub spool: Option<PathBuf>,
    #[command(flatten)]
    pub spool_limits: SpoolLimits,
    #[command(flatten)]
    pub writing: Writing,
    /// How long what is under way may take to finish after SIGTERM
    #[arg(long, default_value = "20s", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub grace: Duration,
}

#[derive(Debug, Args)]
pub struct Worker {
    /// Address of /metrics, /healthz and /readyz
    #[arg(long, default_value = "127.0.0.1:9091", value_name = "ADDR")]
    pub admin: SocketAddr,
    #[command(flatten)]
    pub amqp: AmqpUrl,
    #[command(flatten)]
    pub database: DatabaseUrl,
    #[command(flatten)]
    pub writing: Writing,
    /// How long what is under way may take to finish after SIGTERM
    #[arg(long, default_value = "20s", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub grace: Duration,
}

#[derive(Debug, Args)]
pub struct Standalone {
    /// Folder for everything that is kept: the queue on disk, and the embedded PostgreSQL
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    #[command(flatten)]
    pub front_end: FrontEnd,
    /// Address of /metrics, /healthz and /readyz
    #[arg(long, default_value = "127.0.0.1:9090", value_name = "ADDR")]
    pub admin: SocketAddr,
    /// RabbitMQ to use as the queue, with the one on disk to stand in for it
    #[arg(long, value_name = "URL")]
    pub amqp_url: Option<String>,
    /// PostgreSQL to use instead of the embedded one; its tables are brought up to date at the start
    #[arg(long, value_name = "URL")]
    pub database_url: Option<String>,
    /// Readings of devices that are not registered: reject, or register
    #[arg(long, default_value = "register", value_name = "POLICY")]
    pub unknown_devices: UnknownDevices,
    #[command(flatten)]
    pub spool_limits: SpoolLimits,
    #[command(flatten)]
    pub writing: Writing,
    /// How long what is under way may take to finish after SIGTERM
    #[arg(long, default_value = "20s", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub grace: Duration,
}

#[derive(Debug, Args)]
pub struct Migrate {
    #[command(flatten)]
    pub database: DatabaseUrl,
}

#[derive(Debug, Args)]
pub struct Devices {
    #[command(subcommand)]
    pub command: DevicesCommand,
}

#[derive(Debug, Subcommand)]
pub enum DevicesCommand {
    /// Register devices with their metrics; what is registered already stays as it is
    Add {
        #[command(flatten)]
        database: DatabaseUrl,
        /// External ids of the devices
        #[arg(required = true, value_name = "DEVICE")]
        devices: Vec<String>,
        /// A metric, with its unit after a colon: active_power:W. Repeat for several
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
pub struct Replay {
    /// CSV file with a header line
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// External id of the device that the readings are sent as
    #[arg(long, value_name = "DEVICE")]
    pub device: String,
    /// Metric that the readings are sent as
    #[arg(long, value_name = "METRIC")]
    pub metric: String,
    /// The front end
    #[arg(long, default_value = "http://127.0.0.1:8080", value_name = "URL")]
    pub url: String,
    /// Column with the time; the first unless told
    #[arg(long, value_name = "NAME")]
    pub time_column: Option<String>,
    /// Column with the value; the second unless told
    #[arg(long, value_name = "NAME")]
    pub value_column: Option<String>,
    /// Readings a request
    #[arg(long, default_value_t = 1_000, value_name = "N", value_parser = at_least_one)]
    pub batch: usize,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".into()),
        Ok(number) => Ok(number),
        Err(_) => Err("expected a whole number".into()),
    }
}

/// Reads the settings of this process. Ends it with exit code 2 and a sentence where they are wrong, and with 0 where help
/// was asked for.
pub fn load() -> Settings {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let file =
        file_of(&arguments).or_else(|| std::env::var_os("GRIDWATCH_CONFIG").map(PathBuf::from));
    let command = with_environment(Settings::command());
    let command = match file.map(|file| with_file(command.clone(), &file)) {
        None => command,
        Some(Ok(command)) => command,
        Some(Err(sentence)) => {
            eprintln!("gridwatch: {sentence}");
            std::process::exit(2);
        }
    };
    Settings::from_arg_matches(&command.get_matches_from(arguments))
        .unwrap_or_else(|error| error.exit())
}

/// The value of `--config`, which must be known before the command line is read.
fn file_of(arguments: &[OsString]) -> Option<PathBuf> {
    let mut arguments = arguments.iter().map(|argument| argument.to_string_lossy());
    while let Some(argument) = arguments.next() {
        if argument == "--config" {
            return arguments.next().map(|file| PathBuf::from(file.as_ref()));
        }
        if let Some(file) = argument.strip_prefix("--config=") {
            return Some(PathBuf::from(file));
        }
    }
    None
}

fn with_environment(command: clap::Command) -> clap::Command {
    let named = |argument: clap::Arg| match argument.get_long() {
        Some(long) => {
            let name = format!("GRIDWATCH_{}", long.replace('-', "_").to_uppercase());
            argument.env(name).hide_env_values(true)
        }
        None => argument,
    };
    command.mut_args(named).mut_subcommands(with_environment)
}

/// Makes the values of a file the defaults of the flags of the same name.
fn with_file(command: clap::Command, path: &Path) -> Result<clap::Command, String> {
    let name = path.display();
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("cannot read {name}: {error}"))?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| {
            text[..span.start.min(text.len())].lines().count().max(1)
        });
        format!("{name}, line {line}: {}", error.message())
    })?;
    let (sections, settings): (Vec<_>, Vec<_>) =
        table.into_iter().partition(|(_, value)| value.is_table());
    let mut command = command;
    for (key, value) in settings {
        let value = text_of(&value)
            .ok_or_else(|| format!("{name}: '{key}' must be a string, a number or a boolean"))?;
        let mut known = false;
        command = set(command, &key, &value, &mut known);
        if !known {
            return Err(format!(
                "{name}: unknown key '{key}'; keys are the names of flags, without the dashes"
            ));
        }
    }
    for (section, values) in sections {
        if command.find_subcommand(&section).is_none() {
            return Err(format!(
                "{name}: unknown section '[{section}]'; sections are the names of commands"
            ));
        }
        for (key, value) in values.as_table().into_iter().flatten() {
            let value = text_of(value).ok_or_else(|| {
                format!("{name}: '{key}' in [{section}] must be a string, a number or a boolean")
            })?;
            let mut known = false;
            command = command.mut_subcommand(&section, |subcommand| {
                set(subcommand, key, &value, &mut known)
            });
            if !known {
                return Err(format!(
                    "{name}: unknown key '{key}' in [{section}]; 'gridwatch {section} --help' lists them"
                ));
            }
        }
    }
    Ok(command)
}

/// Sets the default of a flag, here and in every subcommand.
fn set(command: clap::Command, key: &str, value: &str, known: &mut bool) -> clap::Command {
    let mut found = false;
    let command = command.mut_args(|argument| {
        if argument.get_long() == Some(key) && key != "config" {
            found = true;
            argument
                .required(false)
                .default_value(value.to_owned())
                .hide_default_value(true)
        } else {
            argument
        }
    });
    *known |= found;
    command.mut_subcommands(|subcommand| set(subcommand, key, value, known))
}

fn text_of(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(flag) => Some(flag.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn parse(toml: &str, arguments: &[&str]) -> Result<Settings, String> {
        let command = with_file(with_environment(Settings::command()), file(toml).path())?;
        let matches = command
            .try_get_matches_from(arguments)
            .map_err(|error| error.to_string())?;
        Settings::from_arg_matches(&matches).map_err(|error| error.to_string())
    }

    #[test]
    fn every_flag_has_its_name_in_the_environment() {
        fn check(command: &clap::Command) {
            for argument in command
                .get_arguments()
                .filter(|argument| argument.get_long().is_some())
            {
                let name = argument
                    .get_env()
                    .expect("no name in the environment")
                    .to_string_lossy();
                assert_eq!(
                    name,
                    format!("GRIDWATCH_{}", argument.get_id().as_str().to_uppercase())
                        .replace("METRICS", "METRIC")
                );
                assert!(
                    argument.is_hide_env_values_set(),
                    "{name} may hold a secret"
                );
            }
            command.get_subcommands().for_each(check);
        }
        let command = with_environment(Settings::command());
        command.clone().debug_assert();
        check(&command);
    }

    #[test]
    fn a_flag_goes_before_the_file_and_the_file_before_the_default() {
        let toml = "amqp-url = 'amqp://file'\ndatabase-url = 'postgres://file'\n[worker]\nwriters = 7\nprefetch = 9\n";
        let settings = parse(toml, &["gridwatch", "worker", "--prefetch", "11"]).unwrap();
        let Command::Worker(worker) = settings.command else {
            panic!("another command")
        };
        assert_eq!(
            (
                worker.writing.writers,
                worker.writing.prefetch,
                worker.writing.max_rows
            ),
            (7, 11, 200_000)
        );
        assert_eq!(worker.amqp.amqp_url, "amqp://file");
    }

    #[test]
    fn what_is_wrong_with_a_file_is_named() {
        for (toml, expected) in [
            ("databse-url = 'x'", "unknown key 'databse-url'"),
            (
                "[worker]\nwritters = 2",
                "unknown key 'writters' in [worker]",
            ),
            ("[wroker]\nwriters = 2", "unknown section '[wroker]'"),
            ("log = ['a']", "'log' must be a string"),
            ("log = 'info'\nlog-format text", "line 2"),
            (
                "[worker]\nwriters = 0\namqp-url='a'\ndatabase-url='b'",
                "--writers",
            ),
        ] {
            let error = parse(toml, &["gridwatch", "worker"]).unwrap_err();
            assert!(
                error.contains(expected),
                "expected {expected:?}, got {error:?}"
            );
        }
    }
}
