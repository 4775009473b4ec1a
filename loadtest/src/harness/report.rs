//! The report: the results of a run as JSON, with a published schema.
//!
//! In: the results of [`crate::harness::run`]. Out: `report.json` and the files beside it. A report
//! of version 2 can be read, too; reading one of another version is an error. Units are in the
//! names: milliseconds `_ms`, seconds `_seconds`, readings per second `_per_second`.

use std::path::Path;

use anyhow::Context as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::harness::scrape::{Books, StageTimes};
use crate::plural::with_separators;
use crate::recorder::{Counts, Quantiles};
use crate::scenario::Scenario;

/// Version of the format of a report.
pub(crate) const VERSION: u32 = 3;
/// The rate is not reached below this share of the scheduled rate …
const MIN_SHARE: f64 = 0.95;
/// … if the last request was also sent this much later than scheduled, in seconds: in a short run,
/// a pause of the machine would be a large share.
const MAX_DELAY: f64 = 1.0;
/// The code of a reading whose device is not registered.
const UNKNOWN_DEVICE: &str = "unknown_device";
/// File name of the report in its directory.
pub const FILE: &str = "report.json";
/// File name of the ledger.
pub const LEDGER: &str = "ledger.bin";
/// File name of the HTML page.
pub const PAGE: &str = "report.html";
/// File name of the result of a verification.
pub const VERDICT: &str = "verdict.json";
/// File name of the log of latencies.
pub const LOG: &str = "latency.hlog";

/// The results of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Version of the format.
    pub version: u32,
    /// The scenario as TOML, with the overrides of the command line. It has `begin`, so it sends
    /// the same bytes again.
    pub scenario: String,
    /// The scenario's name.
    pub name: String,
    /// The seed of all pseudo-random values.
    pub seed: u64,
    /// Time of the first measurement, in microseconds since 1970.
    pub begin: i64,
    /// The URL that readings were sent to.
    pub target: String,
    /// When the run began, RFC 3339.
    pub started_at: String,
    /// From the first send to the last response.
    pub seconds: f64,
    /// Whether the run was ended early.
    pub interrupted: bool,
    /// The machine that the load test ran on.
    pub machine: Machine,
    /// Programs and versions of the processes, if their admin ports were given.
    pub versions: Vec<String>,
    /// Counts of requests and readings.
    pub counts: Counts,
    /// Requests of the schedule that were not sent.
    pub unsent: u64,
    /// Readings that were accepted per second.
    pub accepted_per_second: f64,
    /// Whether requests were sent at the scheduled rate; none for a closed loop and for a run that
    /// was ended early.
    #[serde(default)]
    pub send_rate: Option<SendRate>,
    /// From the scheduled send to the final response, including retries, in milliseconds, after the
    /// warm-up. A request without a final response counts with the timeout at least.
    pub latency_ms: Quantiles,
    /// The same from the actual send.
    pub latency_from_send_ms: Quantiles,
    /// From the scheduled send to the actual send.
    pub lateness_ms: Quantiles,
    /// Latency by quantile: the quantile, the latency from the scheduled send, and from the actual
    /// send.
    pub curve_ms: Vec<(f64, f64, f64)>,
    /// One row per second.
    pub rows: Vec<Row>,
    /// The counters of the processes, if their admin ports were given.
    pub books: Option<Books>,
    /// The time of each stage, if the admin ports were given.
    pub stages: Vec<StageTimes>,
    /// Growth of the accepted and not yet stored readings per second, after the warm-up.
    pub backlog_growth_per_second: Option<f64>,
    /// From the last response until everything accepted was processed, in seconds.
    #[serde(rename = "settle_seconds")]
    pub drain_seconds: Option<f64>,
    /// CPU time and memory by process.
    pub processes: Vec<ProcessUse>,
    /// Examples of responses that do not match the request, or the first error.
    #[serde(rename = "unlike")]
    pub examples: Vec<String>,
}

/// The machine that a run took place on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Model of the processors.
    pub processor: String,
    /// Number of cores.
    pub cores: u64,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Version of the kernel.
    pub kernel: String,
    /// Version of the load test.
    pub loadtest: String,
}

/// Whether requests were sent at the scheduled rate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SendRate {
    /// Readings per second that the schedule has, on average.
    pub scheduled_per_second: f64,
    /// Readings per second that were sent, on average.
    pub sent_per_second: f64,
    /// Whether these are about the same.
    pub is_reached: bool,
}

impl SendRate {
    /// The rates of a run whose schedule has `scheduled` readings until `schedule_end`, and which
    /// sent `sent` readings until `last_send`; both are in seconds since the start.
    pub(crate) fn new(scheduled: u64, schedule_end: f64, sent: u64, last_send: f64) -> Self {
        let sent_end = last_send.max(schedule_end);
        let scheduled_per_second = scheduled as f64 / schedule_end;
        let sent_per_second = sent as f64 / sent_end;
        // Without a delay, what is missing was dropped.
        let is_delayed = sent_end - schedule_end > MAX_DELAY || sent < scheduled;
        Self {
            scheduled_per_second,
            sent_per_second,
            is_reached: !is_delayed || sent_per_second >= scheduled_per_second * MIN_SHARE,
        }
    }
}

/// A second of the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// End of the interval, in seconds since the start.
    pub at: f64,
    /// Readings accepted per second.
    pub accepted_per_second: f64,
    /// Requests without a final response.
    pub errors: u64,
    /// Latency of the requests that ended in the interval, as [`Report::latency_ms`]; none in the
    /// warm-up.
    pub latency_ms: Option<Quantiles>,
    /// Readings accepted and not stored yet, if the admin ports were given.
    pub backlog: Option<f64>,
}

/// CPU time and memory of a process, from the end of the warm-up until everything was stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProcessUse {
    /// Name of the process.
    pub process: String,
    /// CPU-seconds.
    pub cpu_seconds: f64,
    /// Cores in use while requests were sent; of a process on another machine, until everything was
    /// stored.
    pub cores: f64,
    /// CPU-seconds per million readings: stored ones if the process stores, otherwise accepted
    /// ones. None without readings.
    pub cpu_seconds_per_million: Option<f64>,
    /// Resident memory at the end in MiB.
    pub memory_mib: f64,
}

impl Report {
    /// Reads a report from its file, or from the directory of the file.
    ///
    /// # Errors
    /// The file cannot be read, or is not a report of this version.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let path = if path.is_dir() {
            path.join(FILE)
        } else {
            path.to_owned()
        };
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        serde_json::from_str(&text).with_context(|| {
            format!(
                "{}: not a report of 'loadtest run' of this version",
                path.display()
            )
        })
    }
}

impl Report {
    /// That the rate was not reached, in a sentence; none if it was.
    pub fn missed_rate(&self) -> Option<String> {
        let rate = self.send_rate.filter(|rate| !rate.is_reached)?;
        Some(format!(
            "rate not reached: {} of {} readings/s",
            with_separators(rate.sent_per_second.round() as u64),
            with_separators(rate.scheduled_per_second.round() as u64)
        ))
    }

    /// What to do about the errors; none if that is not known.
    pub fn advice(&self) -> Option<String> {
        let unknown = *self.counts.error_codes.get(UNKNOWN_DEVICE)?;
        if unknown * 2 <= self.counts.error_codes.values().sum() {
            return None;
        }
        let scenario = Scenario::parse(&self.scenario).ok()?;
        let metrics: String = scenario
            .fleet
            .metrics
            .iter()
            .map(|metric| format!(" --metric {metric}"))
            .collect();
        Some(format!(
            "The front end does not know these devices. Register them before the run:\n  \
             loadtest devices SCENARIO | xargs gridwatch devices add --database-url URL{metrics}\n\
             or start the front end with --unknown-devices register."
        ))
    }

    /// The times of a stage by its label; none without metrics.
    pub(crate) fn stage(&self, stage: &str) -> Option<&StageTimes> {
        self.stages.iter().find(|own| own.stage == stage)
    }
}

impl Machine {
    /// The machine that this program runs on.
    pub(crate) fn this() -> Self {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kib = field(&meminfo, "MemTotal")
            .and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            processor: field(&cpuinfo, "model name").unwrap_or_else(|| "unknown".into()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_reached_unless_sends_are_missing_or_much_later_than_scheduled() {
        let is_reached = |scheduled, schedule_end, sent, last_send| {
            SendRate::new(scheduled, schedule_end, sent, last_send).is_reached
        };
        // 20,000 readings per second for 30 s.
        assert!(is_reached(600_000, 30.0, 600_000, 29.99));
        assert!(is_reached(600_000, 30.0, 600_000, 31.2));
        assert!(!is_reached(600_000, 30.0, 600_000, 46.0));
        assert!(!is_reached(600_000, 30.0, 500_000, 30.0));
        // A short run, with a pause of half a second.
        assert!(is_reached(100, 1.0, 100, 1.5));
        assert!(!is_reached(100, 1.0, 100, 2.5));
        let rate = SendRate::new(600_000, 30.0, 600_000, 46.0);
        assert_eq!(rate.scheduled_per_second, 20_000.0);
        assert!((rate.sent_per_second - 13_043.0).abs() < 1.0, "{rate:?}");
    }
}
