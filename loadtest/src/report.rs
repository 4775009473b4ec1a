//! The report: everything that a run has found, as JSON, with a published schema.
//!
//! Units are in the names: milliseconds `_ms`, seconds `_seconds`, readings a second `_per_second`.

use std::path::Path;

use anyhow::Context as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::meter::{Counts, Quantiles};
use crate::observe::{Books, StageTimes};

/// Version of the form of a report.
pub const VERSION: u32 = 2;
/// The name of the report in its folder, and of the ledger beside it.
pub const FILE: &str = "report.json";
/// See [`FILE`].
pub const LEDGER: &str = "ledger.bin";
/// See [`FILE`].
pub const PAGE: &str = "report.html";
/// See [`FILE`]; written by a verification.
pub const VERDICT: &str = "verdict.json";
/// See [`FILE`].
pub const LOG: &str = "latency.hlog";

/// What a run has found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// [`VERSION`].
    pub version: u32,
    /// The scenario in full, with what the command line changed of it, as TOML. With `begin`, it sends the same bytes again.
    pub scenario: String,
    /// The scenario's name.
    pub name: String,
    /// Everything that looks random was made from it.
    pub seed: u64,
    /// Time of the first measurement, in microseconds since 1970.
    pub begin: i64,
    /// Where the readings went.
    pub target: String,
    /// When it began, RFC 3339.
    pub started_at: String,
    /// From the first send to the last answer.
    pub seconds: f64,
    /// It was ended before its time.
    pub interrupted: bool,
    /// Where it ran.
    pub machine: Machine,
    /// What ran, as the processes tell, where their admin ports were given.
    pub versions: Vec<String>,
    /// What was counted.
    pub counts: Counts,
    /// Requests of the schedule that were not sent.
    pub unsent: u64,
    /// Readings that were accepted, a second.
    pub accepted_per_second: f64,
    /// From the intended send to the final answer, retries included, in milliseconds, after the warm-up. A request that got
    /// none counts as one that took the whole timeout at least.
    pub latency_ms: Quantiles,
    /// The same from the send itself.
    pub latency_from_send_ms: Quantiles,
    /// From the intended send to the send.
    pub lateness_ms: Quantiles,
    /// Latency at rising quantiles: the quantile, from the intended send, from the send itself.
    pub curve_ms: Vec<(f64, f64, f64)>,
    /// Each second.
    pub rows: Vec<Row>,
    /// What the processes counted, where their admin ports were given.
    pub books: Option<Books>,
    /// Time of each stage, likewise.
    pub stages: Vec<StageTimes>,
    /// By how many readings what was accepted and not stored grew each second, after the warm-up.
    pub backlog_growth_per_second: Option<f64>,
    /// From the last answer until everything accepted was through, in seconds.
    pub settle_seconds: Option<f64>,
    /// CPU time and memory by process.
    pub processes: Vec<ProcessUse>,
    /// Some answers that do not fit what was sent, or the first error.
    pub unlike: Vec<String>,
}

/// Where a run took place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Its processors.
    pub processor: String,
    /// How many of them.
    pub cores: u64,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// The kernel.
    pub kernel: String,
    /// This program.
    pub loadtest: String,
}

/// A second of the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Its end, in seconds since the begin.
    pub at: f64,
    /// Readings accepted in it, a second.
    pub accepted_per_second: f64,
    /// Requests without a final answer.
    pub errors: u64,
    /// Of the requests that ended in it, as [`Report::latency_ms`]; none in the warm-up, and where none ended.
    pub latency_ms: Option<Quantiles>,
    /// Readings accepted and not stored yet, where the processes tell.
    pub backlog: Option<f64>,
}

/// What a process used while the run went on, from the end of the warm-up until everything was stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProcessUse {
    /// What it is.
    pub process: String,
    /// CPU-seconds.
    pub cpu_seconds: f64,
    /// Cores that it kept busy while requests were sent; of a process elsewhere, until everything was stored.
    pub cores: f64,
    /// CPU-seconds for a million readings: accepted ones, or stored ones where the process stores. None where there are none.
    pub cpu_seconds_per_million: Option<f64>,
    /// Resident memory at the end in MiB.
    pub memory_mib: f64,
}

impl Report {
    /// Reads a report from its file, or from the folder that it is in.
    ///
    /// # Errors
    /// There is none, or it is of another version.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let path = if path.is_dir() {
            path.join(FILE)
        } else {
            path.to_owned()
        };
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        serde_json::from_str(&text).with_context(|| {
            format!(
                "{}: no report of 'loadtest run' of this version",
                path.display()
            )
        })
    }
}

impl Machine {
    /// This one.
    pub fn this() -> Self {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let of = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kib =
            of(&meminfo, "MemTotal").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            processor: of(&cpuinfo, "model name").unwrap_or_else(|| "unknown".into()),
            cores: std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64),
            memory_mib: kib.unwrap_or_default() / 1024,
            kernel: kernel.trim().to_owned(),
            loadtest: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// The JSON Schema of [`Report`].
pub fn schema() -> String {
    let schema = schemars::schema_for!(Report);
    serde_json::to_string_pretty(&schema).unwrap_or_default() + "\n"
}
