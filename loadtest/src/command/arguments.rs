//! The arguments of the command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use clap::{Args, Parser, Subcommand, value_parser};
use loadtest::harness::plot::format_number;
use loadtest::harness::scrape::parse_address;
use loadtest::scenario::{CLOSED_RATE, MAX_BATCH};

/// Limit of repeated runs.
pub(super) const MAX_REPEAT: u32 = 100;
/// The largest integer that the TOML of a scenario can hold.
const MAX_SEED: u64 = i64::MAX as u64;
/// Limit of connections. Each requires a port of the local address.
const MAX_CONNECTIONS: u64 = 60_000;

/// The end of the help text.
const EXAMPLES: &str = "\
Example, with gridwatch ingest-api and gridwatch worker on this machine:

  loadtest devices lv-grid | xargs gridwatch devices add --database-url URL \\
      --metric current --metric voltage
  loadtest run lv-grid --duration 30s --target http://127.0.0.1:8080 --report out \\
      --admin front-end=127.0.0.1:8081 --admin worker=127.0.0.1:8082
  loadtest verify --report out --database-url URL

The front end rejects readings of devices that it does not know. Register them as above, or start it
with --unknown-devices register. docs/LOAD_TESTS.md describes the commands, the reports and the
scenario files.";
/// The end of the help text of `run`.
const RUN_EXAMPLES: &str = "\
The front end has to know the devices of the scenario. Register them before the run:

  loadtest devices lv-grid | xargs gridwatch devices add --database-url URL \\
      --metric current --metric voltage

or start the front end with --unknown-devices register.";

/// Load tests of Gridwatch, and verification of what it stored.
///
/// Exit codes: 0 success; 1 error; 2 wrong argument or file; 3 a finding: a broken promise, failed
/// requests, a rate that was not reached, or a regression.
#[derive(Debug, Parser)]
#[command(name = "loadtest", version, max_term_width = 110, after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Send a scenario to a running Gridwatch and write a report
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArguments),
    /// Verify that the database holds every reading that a run had accepted, and no other
    Verify(VerifyArguments),
    /// Load every deployment mode of Gridwatch on private servers of this machine, and answer five
    /// questions
    Matrix(MatrixArguments),
    /// Compare two sets of runs; exit code 3 if the new one is worse beyond the noise
    Compare {
        /// The base: a report or matrix, a directory of one, or a directory of such directories
        /// (repeated runs)
        base: PathBuf,
        /// The set that is compared with the base
        new: PathBuf,
    },
    /// Print the JSON Schema of report.json
    Schema {
        /// Print the JSON Schema of matrix.json instead
        #[arg(long)]
        matrix: bool,
    },
    /// Print the device names of a scenario, one per line, to register them before a run
    Devices {
        /// A scenario file, or the name of a built-in scenario
        scenario: PathBuf,
    },
    /// Run a server that responds with 202 to every request, to measure the generator itself
    #[command(name = "nothing")]
    IdleServer {
        /// Address to listen on
        #[arg(long, default_value = "127.0.0.1:8083")]
        listen: SocketAddr,
    },
}

#[derive(Debug, Args)]
pub(super) struct RunArguments {
    /// A scenario file, or the name of a built-in scenario: lv-grid, firehose, trickle, outage,
    /// hostile
    pub(super) scenario: PathBuf,
    /// The front end, or the load balancer of several front ends
    #[arg(long, value_name = "URL")]
    pub(super) target: String,
    /// Directory for report.json, report.html, the ledger and the log of latencies; created if it
    /// does not exist
    #[arg(long, value_name = "DIR")]
    pub(super) report: PathBuf,
    /// Readings per second [default: the scenario's]; not for a closed loop
    #[arg(long, value_name = "READINGS", value_parser = parse_rate)]
    pub(super) rate: Option<f64>,
    /// Duration, such as 30s [default: the scenario's]
    #[arg(long, value_parser = parse_duration)]
    pub(super) duration: Option<Duration>,
    /// Readings per request [default: the scenario's]
    #[arg(long, value_parser = up_to(MAX_BATCH))]
    pub(super) batch: Option<u64>,
    /// Number of connections [default: the scenario's]
    #[arg(long, value_parser = up_to(MAX_CONNECTIONS))]
    pub(super) connections: Option<u64>,
    /// Seed of the values and faults [default: the scenario's]
    #[arg(long, value_parser = value_parser!(u64).range(..=MAX_SEED))]
    pub(super) seed: Option<u64>,
    /// Time of the first measurement, to send the same bytes again; RFC 3339 [default: now]
    #[arg(long)]
    pub(super) begin: Option<jiff::Timestamp>,
    /// Number of threads that send [default: half of the cores]
    #[arg(long)]
    pub(super) threads: Option<u64>,
    /// Admin port of a process, for stages, backlog and CPU time, optionally with a name; can be
    /// repeated
    #[arg(long, value_name = "[NAME=]HOST:PORT", value_parser = parse_admin)]
    pub(super) admin: Vec<(String, String)>,
    /// Time limit until everything accepted is stored; applies if admin ports are given
    #[arg(
        long = "settle",
        value_name = "DURATION",
        value_parser = humantime::parse_duration,
        default_value = "60s"
    )]
    pub(super) drain_timeout: Duration,
    /// Do not compare the counts in the responses with the requests, for a server without such
    /// counts
    #[arg(long)]
    pub(super) unchecked: bool,
    /// Number of runs, with reports in DIR/1, DIR/2, …, from which 'loadtest compare' computes
    /// the noise
    #[arg(
        long,
        default_value_t = 1,
        value_parser = value_parser!(u32).range(1..=MAX_REPEAT.into())
    )]
    pub(super) repeat: u32,
}

#[derive(Debug, Args)]
pub(super) struct VerifyArguments {
    /// Directory of the run's report and ledger
    #[arg(long, value_name = "DIR")]
    pub(super) report: PathBuf,
    /// The database that Gridwatch writes to
    #[arg(
        long,
        value_name = "URL",
        env = "GRIDWATCH_DATABASE_URL",
        hide_env_values = true,
        required_unless_present = "database_url_file"
    )]
    pub(super) database_url: Option<String>,
    /// File with the URL of the database, instead of --database-url
    #[arg(
        long,
        value_name = "FILE",
        env = "GRIDWATCH_DATABASE_URL_FILE",
        conflicts_with = "database_url",
        value_parser = read_url
    )]
    pub(super) database_url_file: Option<String>,
    /// Admin port of every process, to compare their counters; can be repeated. Counters start at 0
    /// with the process, so do not give them if a process was restarted since the run began
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_address)]
    pub(super) admin: Vec<String>,
    /// Time limit until everything accepted is stored
    #[arg(
        long = "settle",
        value_name = "DURATION",
        value_parser = humantime::parse_duration,
        default_value = "60s"
    )]
    pub(super) drain_timeout: Duration,
}

#[derive(Debug, Args)]
pub(super) struct MatrixArguments {
    /// Directory for matrix.json, matrix.html and matrix.svg; created if it does not exist
    #[arg(long, value_name = "DIR")]
    pub(super) report: PathBuf,
    /// The program gridwatch [default: in the directory of this program]
    #[arg(long, value_name = "FILE")]
    pub(super) gridwatch: Option<PathBuf>,
    /// Highest number of front ends behind the load balancer
    #[arg(long, default_value_t = 4, value_parser = value_parser!(u16).range(1..=16))]
    pub(super) instances: u16,
    /// Readings per request
    #[arg(long, default_value_t = 100, value_parser = up_to(10_000))]
    pub(super) batch: u64,
    /// Number of connections
    #[arg(long, default_value_t = 64, value_parser = up_to(10_000))]
    pub(super) connections: u64,
    /// Length of a trial of the search
    #[arg(long, value_parser = parse_duration, default_value = "8s")]
    pub(super) trial: Duration,
    /// Number of trials of the search
    #[arg(long, default_value_t = 6, value_parser = value_parser!(u32).range(1..=100))]
    pub(super) trials: u32,
    /// Length of the measurements at 50 % and 80 % of the highest rate
    #[arg(long, value_parser = parse_duration, default_value = "20s")]
    pub(super) measure: Duration,
    /// Seed of all pseudo-random values
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u64).range(..=MAX_SEED))]
    pub(super) seed: u64,
}

/// The URL in a file.
fn read_url(path: &str) -> Result<String, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("cannot read the file: {error}; check the path and its rights"))?;
    match text.trim() {
        "" => Err("the file is empty; it must hold the URL".into()),
        url => Ok(url.to_owned()),
    }
}

fn up_to(max: u64) -> RangedU64ValueParser {
    value_parser!(u64).range(1..=max)
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let rate = text
        .parse()
        .ok()
        .filter(|rate| *rate > 0.0 && *rate <= CLOSED_RATE);
    rate.ok_or_else(|| {
        format!(
            "expected a number above 0 and up to {}",
            format_number(CLOSED_RATE)
        )
    })
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .ok()
        .filter(|duration| *duration >= Duration::from_secs(1));
    duration.ok_or_else(|| "expected a duration of at least 1s, such as '30s' or '2m'".into())
}

fn parse_admin(text: &str) -> Result<(String, String), String> {
    let (name, address) = text.split_once('=').unwrap_or((text, text));
    Ok((name.to_owned(), parse_address(address)?))
}
