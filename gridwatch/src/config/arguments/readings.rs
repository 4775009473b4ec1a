//! The commands that show readings, and those that move them in and out.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use jiff::tz::TimeZone;

use super::model::WatchOption;
use super::options::QueryUrl;
use super::{LONGEST_AGE, MILLISECOND};
use crate::config::values;

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
    #[command(flatten)]
    pub query: QueryUrl,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Draw a line in the terminal
    #[arg(long, conflicts_with = "json")]
    pub plot: bool,
    #[command(flatten)]
    pub watch: WatchOption,
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
    #[arg(value_name = "FILE", required_unless_present = "list")]
    pub file: Option<PathBuf>,
    /// List what was imported, instead of importing a file
    #[arg(long, conflicts_with = "file")]
    pub list: bool,
    /// With --list: print JSON
    #[arg(long, requires = "list")]
    pub json: bool,
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
    /// The query API, for factories, sprockets and the list of imports [default: the same as --url]
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

impl Import {
    /// The file; empty with `--list`.
    pub(crate) fn file(&self) -> &Path {
        self.file.as_deref().unwrap_or(Path::new(""))
    }

    /// The query API.
    pub(crate) fn query_url(&self) -> &str {
        self.query_url.as_ref().unwrap_or(&self.url)
    }
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
    #[command(flatten)]
    pub query: QueryUrl,
}
