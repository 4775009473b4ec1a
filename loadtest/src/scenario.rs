//! A scenario: what is sent, how fast, by whom, and with which faults.
//!
//! In: a TOML file, and what the command line overrides of it. Out: a scenario of which every value is usable, or one error
//! with the line, the key and what was expected.

mod field;

use std::path::Path;
use std::time::Duration;

use schema::reading::Micros;
use serde::{Deserialize, Serialize};

use crate::schedule::Schedule;

/// Scenarios that come with the program, by name.
const READY: [(&str, &str); 5] = [
    ("lv-grid", include_str!("../scenarios/lv-grid.toml")),
    ("firehose", include_str!("../scenarios/firehose.toml")),
    ("trickle", include_str!("../scenarios/trickle.toml")),
    ("outage", include_str!("../scenarios/outage.toml")),
    ("hostile", include_str!("../scenarios/hostile.toml")),
];
/// Most readings of a request: more than any front end takes.
pub const MAX_BATCH: u64 = 1_000_000;
/// Shortest time between two readings of a series. Times have a resolution of a millisecond; see [`crate::traffic`].
pub const SHORTEST_SWEEP: f64 = 0.004;
/// Readings a second at which the clock of a closed loop's readings runs, which no pipeline reaches: so they are never of
/// the future. It is also the highest rate of a schedule.
pub const CLOSED_RATE: f64 = 10_000_000.0;

/// What is wrong with a scenario.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ScenarioError(String);

/// What to send.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Scenario {
    /// What the report calls it.
    pub name: String,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// Everything that looks random is made from it.
    #[serde(default = "field::one")]
    pub seed: u64,
    /// Time of the first measurement; the start of the run where it is absent.
    #[serde(
        default,
        with = "field::rfc3339",
        skip_serializing_if = "Option::is_none"
    )]
    pub begin: Option<Micros>,
    /// Whether sends follow a schedule, or the answers.
    #[serde(default)]
    pub mode: Mode,
    /// Readings a second, at the beginning.
    #[serde(deserialize_with = "field::rate")]
    pub rate: f64,
    /// How the rate goes on.
    #[serde(default)]
    pub shape: Shape,
    /// How long readings are sent.
    #[serde(with = "field::duration")]
    pub duration: Duration,
    /// How much of the beginning is left out of the latencies.
    #[serde(default, with = "field::duration")]
    pub warm_up: Duration,
    /// Readings of a request.
    #[serde(deserialize_with = "field::batch")]
    pub batch: u64,
    /// Connections, each with one request under way.
    #[serde(deserialize_with = "field::count")]
    pub connections: u64,
    /// How long an answer may take.
    #[serde(default = "field::ten_seconds", with = "field::duration")]
    pub timeout: Duration,
    /// Who sends.
    #[serde(default)]
    pub fleet: Fleet,
    /// How readings are written.
    #[serde(default)]
    pub body: Body,
    /// What is wrong with some of them.
    #[serde(default)]
    pub faults: Faults,
    /// Devices that are away and send what they have measured later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outage: Option<Outage>,
    /// What is done about a request without a final answer.
    #[serde(default)]
    pub retry: Retry,
}

/// See [`Scenario::mode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// The schedule is fixed before the run; latency counts from the intended send.
    #[default]
    Open,
    /// Each connection sends as soon as it has an answer: finds a ceiling, and says little of latency.
    Closed,
}

/// How the rate goes on from [`Scenario::rate`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Shape {
    /// Which of the forms.
    #[serde(default)]
    pub kind: ShapeKind,
    /// Readings a second at the end of a ramp or of the steps, or in the spike.
    #[serde(
        default,
        deserialize_with = "field::some_rate",
        skip_serializing_if = "Option::is_none"
    )]
    pub to: Option<f64>,
    /// How many steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u32>,
    /// When the spike begins.
    #[serde(
        default,
        with = "field::duration_option",
        skip_serializing_if = "Option::is_none"
    )]
    pub at: Option<Duration>,
    /// How long the spike lasts.
    #[serde(
        default,
        with = "field::duration_option",
        skip_serializing_if = "Option::is_none"
    )]
    pub lasts: Option<Duration>,
}

/// See [`Shape`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShapeKind {
    /// The same all the time.
    #[default]
    Constant,
    /// A straight line to `to`.
    Ramp,
    /// `steps` equal steps, the last one at `to`.
    Step,
    /// `to` from `at` on, for `lasts`.
    Spike,
}

/// Devices and what they measure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Fleet {
    /// How many.
    #[serde(deserialize_with = "field::count")]
    pub devices: u64,
    /// What each measures.
    #[serde(deserialize_with = "field::metrics")]
    pub metrics: Vec<String>,
    /// What their names begin with; a number of six digits follows.
    #[serde(deserialize_with = "field::prefix")]
    pub prefix: String,
    /// How much earlier than its turn a reading may be measured; cut to half the time between two of a series.
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

/// How readings are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Body {
    /// An array, or a line each.
    pub format: Format,
    /// Of the body.
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
    /// As it is.
    #[default]
    None,
    /// gzip, fast.
    Gzip,
    /// Zstandard, fast.
    Zstd,
}

/// Shares of what is wrong, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Faults {
    /// Readings that were measured long before they are sent.
    #[serde(deserialize_with = "field::share")]
    pub late: f64,
    /// How long before, at most.
    #[serde(with = "field::duration")]
    pub late_by: Duration,
    /// Requests whose readings stand in reverse order.
    #[serde(deserialize_with = "field::share")]
    pub out_of_order: f64,
    /// Readings that have to be rejected.
    #[serde(deserialize_with = "field::share")]
    pub bad: f64,
    /// Requests that cannot be read, or break off.
    #[serde(deserialize_with = "field::share")]
    pub hostile: f64,
    /// Requests that are sent again although they were answered, as by a device that missed the answer.
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

/// Devices that are away for a while, and send then what they have measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Outage {
    /// Which share of the requests is theirs.
    #[serde(deserialize_with = "field::share")]
    pub share: f64,
    /// When they go.
    #[serde(with = "field::duration")]
    pub from: Duration,
    /// When they are back.
    #[serde(with = "field::duration")]
    pub until: Duration,
    /// How many times faster than they measured it they send what they have kept.
    #[serde(deserialize_with = "field::rate")]
    pub catch_up: f64,
}

/// What is done about a request that got 503 or no answer: it is sent again, with the same readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Retry {
    /// How often at most.
    pub attempts: u32,
    /// After which pause, where the answer does not say.
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
    /// Reads a scenario from a file, or one of the ready ones by its name.
    ///
    /// # Errors
    /// There is no such file or name, or the file is wrong.
    pub fn load(path: &Path) -> Result<Self, ScenarioError> {
        let ready = READY.iter().find(|(name, _)| Path::new(name) == path);
        let text = match (std::fs::read_to_string(path), ready) {
            (Ok(text), _) => text,
            (Err(_), Some((_, text))) => (*text).to_owned(),
            (Err(error), None) => {
                let names = READY.map(|(name, _)| name).join(", ");
                let text = format!("{}: {error}; ready scenarios are {names}", path.display());
                return Err(ScenarioError(text));
            }
        };
        Self::parse(&text).map_err(|error| ScenarioError(format!("{}: {error}", path.display())))
    }

    /// Reads a scenario from text.
    ///
    /// # Errors
    /// The line, the key, and what was expected.
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let scenario: Self = toml::from_str(text)
            .map_err(|error| ScenarioError(error.to_string().trim_end().into()))?;
        scenario.check().map_err(|(key, reason)| {
            let line = line_of(text, key).map_or_else(String::new, |line| format!("line {line}: "));
            ScenarioError(format!("{line}{key}: {reason}"))
        })?;
        Ok(scenario)
    }

    /// Looks at what no value can show alone; to be called again after an override.
    ///
    /// # Errors
    /// The key, and what was expected.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let positive = |key, value: Duration| match value {
            Duration::ZERO => Err((key, "expected a time above 0".to_owned())),
            _ => Ok(()),
        };
        positive("duration", self.duration)?;
        positive("timeout", self.timeout)?;
        if self.warm_up >= self.duration {
            return Err((
                "warm-up",
                format!("expected less than the duration of {:?}", self.duration),
            ));
        }
        let (shape, kind) = (&self.shape, self.shape.kind);
        let is_spike = kind == ShapeKind::Spike;
        for (key, is_there, is_needed) in [
            ("shape.to", shape.to.is_some(), kind != ShapeKind::Constant),
            (
                "shape.steps",
                shape.steps.is_some(),
                kind == ShapeKind::Step,
            ),
            ("shape.at", shape.at.is_some(), is_spike),
            ("shape.lasts", shape.lasts.is_some(), is_spike),
        ] {
            if is_there != is_needed {
                let wrong = if is_needed {
                    "is missing"
                } else {
                    "says nothing"
                };
                return Err((
                    key,
                    format!("{wrong} where shape.kind is '{kind:?}'").to_lowercase(),
                ));
            }
        }
        if shape.at.is_some_and(|at| at >= self.duration) {
            return Err((
                "shape.at",
                format!("expected less than the duration of {:?}", self.duration),
            ));
        }
        if self
            .shape
            .steps
            .is_some_and(|steps| !(2..=1_000).contains(&steps))
        {
            return Err(("shape.steps", "expected 2 to 1000".into()));
        }
        if let Some(outage) = self.outage
            && (outage.from >= outage.until || outage.until > self.duration)
        {
            return Err((
                "outage.until",
                "expected a time after outage.from and within the duration".into(),
            ));
        }
        let sweep = self.sweep();
        if sweep < SHORTEST_SWEEP {
            let least = (self.peak() * SHORTEST_SWEEP / self.fleet.metrics.len() as f64).ceil();
            let reason = format!(
                "too few for {} readings/s: a series would be measured every {:.1} ms; expected at least {least} devices",
                self.peak(),
                sweep * 1e3
            );
            return Err(("fleet.devices", reason));
        }
        let readings = Schedule::new(self).count(self.duration.as_secs_f64());
        if readings + 0.5 < self.batch as f64 {
            return Err((
                "batch",
                format!("expected at most the {readings:.0} readings of the whole run"),
            ));
        }
        Ok(())
    }

    /// Makes it last so long, with everything that happens in it at its part of the time.
    pub fn stretch(&mut self, duration: Duration) {
        let factor = duration.as_secs_f64() / self.duration.as_secs_f64();
        let of = |time: Duration| Duration::from_millis((time.as_millis() as f64 * factor) as u64);
        self.duration = duration;
        self.warm_up = of(self.warm_up);
        self.shape.at = self.shape.at.map(of);
        self.shape.lasts = self.shape.lasts.map(of);
        if let Some(outage) = &mut self.outage {
            (outage.from, outage.until) = (of(outage.from), of(outage.until));
        }
    }

    /// How many series there are.
    pub fn series(&self) -> u64 {
        self.fleet.devices * self.fleet.metrics.len() as u64
    }

    /// The highest rate, in readings a second.
    pub fn peak(&self) -> f64 {
        match self.mode {
            Mode::Open => self.rate.max(self.shape.to.unwrap_or_default()),
            Mode::Closed => CLOSED_RATE,
        }
    }

    /// The least time between two readings of a series, in seconds.
    pub fn sweep(&self) -> f64 {
        self.series() as f64 / self.peak()
    }
}

/// The line of a key such as `fleet.devices`, from 1; that of its table where it is not there.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let (table, name) = key.rsplit_once('.').unwrap_or(("", key));
    let (mut current, mut at_table) = ("", None);
    for (line, number) in text.lines().map(str::trim).zip(1..) {
        if let Some(header) = line
            .strip_prefix('[')
            .and_then(|rest| rest.split(']').next())
        {
            current = header.trim();
            if current == table {
                at_table = Some(number);
            }
        } else if current == table && line.split('=').next().is_some_and(|own| own.trim() == name) {
            return Some(number);
        }
    }
    at_table
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "name = 'x'\nrate = 100\nduration = '1s'\nbatch = 1\nconnections = 1\n";

    #[test]
    fn every_ready_scenario_is_good_and_survives_being_written() {
        for (name, _) in READY {
            let scenario = Scenario::load(Path::new(name)).unwrap();
            assert_eq!(scenario.name, name);
            assert_eq!(
                Scenario::parse(&toml::to_string(&scenario).unwrap()).unwrap(),
                scenario
            );
        }
    }

    #[test]
    fn a_wrong_file_gives_line_key_and_what_was_expected() {
        Scenario::parse(LEAST).unwrap();
        for (wrong, words) in [
            (
                "conections = 5",
                &["line 6", "conections", "connections"][..],
            ),
            (
                "[fleet]\ndevices = 0",
                &["line 7", "devices", "expected a whole number from 1"],
            ),
            (
                "warm-up = '3 parsecs'",
                &["line 6", "warm-up", "expected a time such as"],
            ),
            (
                "warm-up = '2s'",
                &["line 6", "warm-up", "less than the duration"],
            ),
            (
                "begin = 'soon'",
                &["line 6", "begin", "expected a time such as \"2026"],
            ),
            (
                "[faults]\nbad = 2.0",
                &["line 7", "bad", "share from 0 to 1"],
            ),
            (
                "[body]\nformat = 'xml'",
                &["line 7", "format", "expected", "ndjson"],
            ),
            (
                "[shape]\nkind = 'ramp'",
                &["line 6", "shape.to", "is missing", "ramp"],
            ),
            (
                "[retry]\nattempts = 5\n[shape]\nkind = 'spike'\nto = 5\nlasts = '1s'",
                &["line 8", "shape.at", "is missing"],
            ),
            (
                "[shape]\nto = 500",
                &["line 7", "shape.to", "says nothing", "constant"],
            ),
            (
                "[shape]\nkind = 'spike'\nto = 5\nat = '2s'\nlasts = '1s'",
                &["line 9", "shape.at", "less than the duration"],
            ),
            (
                "[fleet]\nprefix = 'a\"b'",
                &["line 7", "prefix", "letters, digits"],
            ),
            (
                "mode = 'closed'",
                &["fleet.devices", "at least 20000 devices"],
            ),
            (
                "[fleet]\ndevices = 1\nmetrics = ['a', 'a']",
                &["line 8", "metrics", "different names"],
            ),
            (
                "[outage]\nshare = 0.1\nfrom = '1s'\nuntil = '500ms'\ncatch-up = 2",
                &["line 9", "outage.until"],
            ),
            ("mode = 'half-open'", &["line 6", "mode", "closed"]),
        ] {
            let error = Scenario::parse(&format!("{LEAST}{wrong}\n"))
                .unwrap_err()
                .to_string();
            assert!(
                words.iter().all(|word| error.contains(word)),
                "{wrong:?} gave: {error}"
            );
        }
        let none = LEAST.replace("batch = 1", "batch = 200");
        let error = Scenario::parse(&none).unwrap_err().to_string();
        assert_eq!(
            error,
            "line 4: batch: expected at most the 100 readings of the whole run"
        );
        let few = LEAST.replace("100", "9000000");
        let error = Scenario::parse(&few).unwrap_err().to_string();
        assert!(error.contains("expected at least 18000 devices"), "{error}");
    }
}
