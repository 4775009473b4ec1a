//! A scenario: what is sent, at which rate, by which devices, and with which faults.
//!
//! In: a TOML file, and the overrides of the command line. Out: a [`Scenario`] with valid values
//! only, or one error with the line, the key and what was expected.

mod check;
mod field;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::Duration;

use schema::reading::Micros;
use serde::{Deserialize, Serialize};

pub use check::ScenarioError;

/// The built-in scenarios by name.
const BUILT_IN: [(&str, &str); 5] = [
    ("lv-grid", include_str!("../scenarios/lv-grid.toml")),
    ("firehose", include_str!("../scenarios/firehose.toml")),
    ("trickle", include_str!("../scenarios/trickle.toml")),
    ("outage", include_str!("../scenarios/outage.toml")),
    ("hostile", include_str!("../scenarios/hostile.toml")),
];
/// Limit of readings per request, above the limit of any front end.
pub const MAX_BATCH: u64 = 1_000_000;
/// Shortest time between two readings of a series, in seconds. Times have a resolution of a
/// millisecond; see [`crate::traffic`].
const MIN_INTERVAL: f64 = 0.004;
/// The rate by which the times of a closed loop's readings advance, in readings per second. No
/// pipeline reaches it, so the times are never in the future. It is also the highest rate of a
/// schedule.
pub const CLOSED_RATE: f64 = 10_000_000.0;

/// What to send.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Scenario {
    /// The name in the report.
    pub name: String,
    /// The purpose.
    #[serde(default)]
    pub description: String,
    /// The seed of all pseudo-random values.
    #[serde(default = "field::one", deserialize_with = "field::seed")]
    pub seed: u64,
    /// Time of the first measurement; default: the start of the run.
    #[serde(
        default,
        with = "field::rfc3339",
        skip_serializing_if = "Option::is_none"
    )]
    pub begin: Option<Micros>,
    /// Whether sends follow a schedule or the responses.
    #[serde(default)]
    pub mode: Mode,
    /// Readings per second, at the beginning. Required for [`Mode::Open`]; without effect for
    /// [`Mode::Closed`], which sends as fast as its connections allow.
    #[serde(
        default,
        deserialize_with = "field::some_rate",
        skip_serializing_if = "Option::is_none"
    )]
    pub rate: Option<f64>,
    /// How the rate changes.
    #[serde(default, rename = "shape")]
    pub profile: LoadProfile,
    /// How long readings are sent.
    #[serde(with = "field::duration")]
    pub duration: Duration,
    /// The time at the beginning that is excluded from the latencies.
    #[serde(default, with = "field::duration")]
    pub warm_up: Duration,
    /// Readings per request.
    #[serde(deserialize_with = "field::batch")]
    pub batch: u64,
    /// Connections, each with one request in flight.
    #[serde(deserialize_with = "field::count")]
    pub connections: u64,
    /// Time limit of a response.
    #[serde(default = "field::ten_seconds", with = "field::duration")]
    pub timeout: Duration,
    /// The devices.
    #[serde(default)]
    pub fleet: Fleet,
    /// The format of the request bodies.
    #[serde(default)]
    pub body: Body,
    /// The shares of faulty readings and requests.
    #[serde(default)]
    pub faults: Faults,
    /// Devices that are offline for a while and send their readings afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outage: Option<Outage>,
    /// Retries of requests without a final response.
    #[serde(default)]
    pub retry: Retry,
}

/// See [`Scenario::mode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// The schedule is fixed before the run; latency is measured from the scheduled send.
    #[default]
    Open,
    /// Each connection sends its next request on the response to the previous one. It finds the
    /// highest rate; its latencies exclude the time that requests wait for a connection.
    Closed,
}

/// How the rate changes from [`Scenario::rate`] on.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", expecting = "a table")]
pub struct LoadProfile {
    /// The kind of profile.
    #[serde(default)]
    pub kind: ProfileKind,
    /// Readings per second at the end of a ramp or of the steps, or in the spike.
    #[serde(
        default,
        deserialize_with = "field::some_rate",
        skip_serializing_if = "Option::is_none"
    )]
    pub to: Option<f64>,
    /// Number of steps.
    #[serde(
        default,
        deserialize_with = "field::some_steps",
        skip_serializing_if = "Option::is_none"
    )]
    pub steps: Option<u32>,
    /// When the spike begins.
    #[serde(
        default,
        with = "field::duration_option",
        skip_serializing_if = "Option::is_none"
    )]
    pub at: Option<Duration>,
    /// Length of the spike.
    #[serde(
        default,
        with = "field::duration_option",
        skip_serializing_if = "Option::is_none"
    )]
    pub lasts: Option<Duration>,
}

/// See [`LoadProfile`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProfileKind {
    /// The rate does not change.
    #[default]
    Constant,
    /// The rate changes linearly to `to`.
    Ramp,
    /// The rate changes in `steps` equal steps, the last one at `to`.
    Step,
    /// The rate is `to` from `at` on, for `lasts`.
    Spike,
}

/// The devices and their metrics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "kebab-case",
    default,
    expecting = "a table"
)]
pub struct Fleet {
    /// Number of devices.
    #[serde(deserialize_with = "field::count")]
    pub devices: u64,
    /// The metrics of each device.
    #[serde(deserialize_with = "field::metrics")]
    pub metrics: Vec<String>,
    /// Prefix of the device names; the number of the device follows, with six digits.
    #[serde(deserialize_with = "field::prefix")]
    pub prefix: String,
    /// How much earlier than scheduled a reading may be measured; limited to half the interval of a
    /// series.
    #[serde(with = "field::duration")]
    pub jitter: Duration,
}

impl Default for Fleet {
    fn default() -> Self {
        let metrics = vec!["current".to_owned(), "voltage".to_owned()];
        Self {
            devices: 5_000,
            metrics,
            prefix: "lt-".into(),
            jitter: Duration::ZERO,
        }
    }
}

/// The format of the request bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "kebab-case",
    default,
    expecting = "a table"
)]
pub struct Body {
    /// JSON or NDJSON.
    pub format: Format,
    /// The `content-encoding`.
    pub compression: Compression,
}

/// See [`Body`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// `application/json`, an array.
    #[default]
    Json,
    /// `application/x-ndjson`.
    Ndjson,
}

/// See [`Body`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// No compression.
    #[default]
    None,
    /// gzip at its fastest level.
    Gzip,
    /// Zstandard at its fastest level.
    Zstd,
}

/// Shares of faults, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "kebab-case",
    default,
    expecting = "a table"
)]
pub struct Faults {
    /// Readings that are sent long after they were measured.
    #[serde(deserialize_with = "field::share")]
    pub late: f64,
    /// How long after, at most.
    #[serde(with = "field::duration")]
    pub late_by: Duration,
    /// Requests with their readings in reverse order.
    #[serde(deserialize_with = "field::share")]
    pub out_of_order: f64,
    /// Readings that have to be rejected.
    #[serde(deserialize_with = "field::share")]
    pub bad: f64,
    /// Requests that are malformed or incomplete.
    #[serde(deserialize_with = "field::share")]
    pub hostile: f64,
    /// Requests that are sent again after they were accepted, as by a device that missed the
    /// response.
    #[serde(deserialize_with = "field::share")]
    pub repeated: f64,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            late: 0.0,
            late_by: Duration::from_secs(3_600),
            out_of_order: 0.0,
            bad: 0.0,
            hostile: 0.0,
            repeated: 0.0,
        }
    }
}

/// Devices that are offline for a while and send their readings afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", expecting = "a table")]
pub struct Outage {
    /// The share of the requests that they send.
    #[serde(deserialize_with = "field::share")]
    pub share: f64,
    /// When they go offline.
    #[serde(with = "field::duration")]
    pub from: Duration,
    /// When they are online again.
    #[serde(with = "field::duration")]
    pub until: Duration,
    /// The rate at which they send their stored readings, as a multiple of the rate of measuring.
    #[serde(deserialize_with = "field::rate")]
    pub catch_up: f64,
}

/// Retries of requests with a 5xx status or without a response, with the same readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "kebab-case",
    default,
    expecting = "a table"
)]
pub struct Retry {
    /// Limit of retries per request.
    #[serde(deserialize_with = "field::attempts")]
    pub attempts: u32,
    /// The time before a retry, unless the response has a `Retry-After` header.
    #[serde(with = "field::duration")]
    pub after: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 0,
            after: Duration::from_secs(1),
        }
    }
}

impl Scenario {
    /// Reads a scenario from a file, or a built-in one by its name.
    ///
    /// # Errors
    /// There is no such file or name, or the scenario is not valid.
    pub fn load(path: &Path) -> Result<Self, ScenarioError> {
        let built_in = BUILT_IN.iter().find(|(name, _)| Path::new(name) == path);
        let text = match (std::fs::read_to_string(path), built_in) {
            (Ok(text), _) => text,
            (Err(_), Some((_, text))) => (*text).to_owned(),
            (Err(error), None) => {
                let names = BUILT_IN.map(|(name, _)| name).join(", ");
                return Err(ScenarioError(format!(
                    "{}: {error}; the built-in scenarios are {names}",
                    path.display()
                )));
            }
        };
        Self::parse(&text).map_err(|error| ScenarioError(format!("{}: {error}", path.display())))
    }

    /// Changes the duration. All other times of the run change by the same factor.
    pub fn stretch(&mut self, duration: Duration) {
        let factor = duration.as_secs_f64() / self.duration.as_secs_f64();
        let scale =
            |time: Duration| Duration::from_millis((time.as_millis() as f64 * factor) as u64);
        self.duration = duration;
        self.warm_up = scale(self.warm_up);
        self.profile.at = self.profile.at.map(scale);
        self.profile.lasts = self.profile.lasts.map(scale);
        if let Some(outage) = &mut self.outage {
            (outage.from, outage.until) = (scale(outage.from), scale(outage.until));
        }
    }

    /// Number of series.
    pub(crate) fn series(&self) -> u64 {
        self.fleet.devices * self.fleet.metrics.len() as u64
    }

    /// The highest rate, in readings per second.
    pub(crate) fn peak(&self) -> f64 {
        match self.mode {
            Mode::Open => self.first_rate().max(self.profile.to.unwrap_or_default()),
            Mode::Closed => CLOSED_RATE,
        }
    }

    /// The rate at the beginning, in readings per second. In a closed loop it is the rate by which
    /// the times of the readings advance.
    pub(crate) fn first_rate(&self) -> f64 {
        match self.mode {
            Mode::Open => self.rate.unwrap_or_default(),
            Mode::Closed => CLOSED_RATE,
        }
    }

    /// The shortest time between two readings of a series, in seconds.
    pub(crate) fn min_interval(&self) -> f64 {
        self.series() as f64 / self.peak()
    }
}
