//! Traffic: the contents of every request of a scenario, computed from the request's number.
//!
//! In: a scenario and the time of its first measurement. Out: readings and requests by number.
//! Nothing can fail.
//!
//! Readings are numbered in the order of their schedule: one reading of each series in turn, then
//! the next one of each. A request is a sequence of consecutive readings. A reading follows from
//! its number and the seed. Therefore a scenario always sends the same bytes, nothing has to be
//! stored, and a row of the table identifies the reading that it comes from.
//!
//! The time of a reading has milliseconds. Its microseconds are the mark of the run, an even
//! number, plus one if the reading is sent late. Therefore no two readings of a series have the
//! same time, even in runs whose times overlap.

#[cfg(feature = "harness")]
mod lookup;
mod random;
mod render;
#[cfg(all(test, feature = "harness"))]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use schema::reading::Micros;

use self::random::{Salt, hash, uniform};
use crate::scenario::{Format, Mode, Scenario};
use crate::schedule::Schedule;

/// 2200-01-01T00:00:00Z, a time whose readings have to be rejected.
pub(crate) const FUTURE: Micros = 7_258_118_400_000_000;

/// Why a reading has to be rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadingFault {
    /// The value is null.
    NullValue,
    /// The time is in the year 2200.
    FutureTime,
    /// The time is not a valid time.
    InvalidTime,
    /// The name of the device has more than 300 characters.
    LongName,
    /// The name of the device is empty.
    EmptyName,
    /// The reading has no field but the device.
    MissingFields,
}

/// Why no reading of a request may be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestFault {
    /// The JSON ends in the middle.
    Truncated,
    /// The body is not valid UTF-8.
    InvalidUtf8,
    /// The `content-encoding` does not exist.
    UnknownEncoding,
    /// The connection is closed in the middle of the body.
    Disconnect,
}

/// A reading.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// The number of the series: the number of the device times the number of metrics, plus the
    /// number of the metric.
    pub series: u64,
    /// When it was measured.
    pub measured_at: Micros,
    /// The value, times a hundred.
    cents: i64,
    /// Why it has to be rejected; none for a valid reading.
    pub(crate) fault: Option<ReadingFault>,
}

impl Reading {
    /// The value.
    pub fn value(&self) -> f64 {
        self.cents as f64 / 100.0
    }
}

/// A rendered request.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// The body, compressed as the scenario requires.
    pub(crate) body: Bytes,
    /// The `content-encoding`.
    pub(crate) encoding: Option<&'static str>,
    /// Why no reading may be stored; none for a valid request.
    pub(crate) fault: Option<RequestFault>,
    /// Number of readings that have to be accepted.
    pub(crate) good: u64,
    /// Number of readings that have to be rejected.
    pub(crate) bad: u64,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Traffic {
    scenario: Scenario,
    schedule: Schedule,
    begin: Micros,
    series: u64,
    /// The mark of the run.
    mark: Micros,
    /// Longest jitter, in milliseconds.
    jitter: u64,
    /// Requests of the schedule.
    requests: u64,
    /// The requests that were rendered in advance, by number.
    rendered: Arc<[Request]>,
}

impl Traffic {
    /// The traffic of a scenario whose first measurement is at `begin`, rounded down to the
    /// millisecond.
    pub fn new(scenario: &Scenario, begin: Micros) -> Self {
        let schedule = Schedule::new(scenario);
        let begin = begin - begin.rem_euclid(1_000);
        let half_interval = (scenario.min_interval() * 500.0) as u64;
        let due = schedule.count(scenario.duration.as_secs_f64());
        Self {
            schedule,
            begin,
            series: scenario.series(),
            mark: mark(scenario, begin),
            jitter: (scenario.fleet.jitter.as_millis() as u64).min(half_interval),
            // Half a reading makes up for rounding.
            requests: ((due + 0.5) / scenario.batch as f64) as u64,
            scenario: scenario.clone(),
            rendered: Arc::default(),
        }
    }

    /// Renders all requests of the schedule in advance, so that sending uses less CPU time. They
    /// stay in memory: about 90 bytes per reading without compression. The schedule of a closed
    /// loop is too long for that.
    #[must_use]
    pub fn render_all(mut self) -> Self {
        self.rendered = (0..self.requests)
            .map(|number| self.render(number))
            .collect();
        self
    }

    /// The scenario.
    pub(crate) fn scenario(&self) -> &Scenario {
        &self.scenario
    }

    /// When the first reading was measured.
    pub fn begin(&self) -> Micros {
        self.begin
    }

    /// When the last request of the schedule is due, in seconds since the start.
    #[cfg(feature = "harness")]
    pub(crate) fn schedule_end(&self) -> f64 {
        let duration = self.scenario.duration.as_secs_f64();
        self.scenario.outage.map_or(duration, |outage| {
            let (from, until) = (outage.from.as_secs_f64(), outage.until.as_secs_f64());
            duration.max(until + (until - from) / outage.catch_up)
        })
    }

    /// Number of requests of the schedule. A closed loop sends as many as its responses permit.
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// When the last reading of a request is measured, in seconds since the start.
    fn measured(&self, request: u64) -> f64 {
        let readings = (request + 1) * self.scenario.batch;
        self.schedule.time(readings as f64)
    }

    /// When a request is due, in seconds since the start. It is not defined for a closed loop.
    pub(crate) fn due(&self, request: u64) -> f64 {
        let measured = self.measured(request);
        match self.scenario.outage {
            Some(outage) if self.is_offline(request) => {
                let (from, until) = (outage.from.as_secs_f64(), outage.until.as_secs_f64());
                until + (measured - from) / outage.catch_up
            }
            _ => measured,
        }
    }

    /// Whether the device of a request is offline when it measures, and sends the request later.
    pub(crate) fn is_offline(&self, request: u64) -> bool {
        let (Some(outage), Mode::Open) = (self.scenario.outage, self.scenario.mode) else {
            return false;
        };
        let measured = self.measured(request);
        let sender = (request * self.scenario.batch) % self.series;
        measured >= outage.from.as_secs_f64()
            && measured < outage.until.as_secs_f64()
            && self.chance(Salt::Offline, sender) < outage.share
    }

    /// The range of the requests that may be of an offline device.
    pub(crate) fn outage_requests(&self) -> std::ops::Range<u64> {
        let Some(outage) = self.scenario.outage else {
            return 0..0;
        };
        let at = |time: f64| (self.schedule.count(time) / self.scenario.batch as f64) as u64;
        let end = at(outage.until.as_secs_f64()) + 1;
        at(outage.from.as_secs_f64()).saturating_sub(1)..end.min(self.requests)
    }

    /// Whether a request is sent a second time after it was accepted.
    pub(crate) fn is_repeated(&self, request: u64) -> bool {
        self.chance(Salt::Repeated, request) < self.scenario.faults.repeated
    }

    /// Why no reading of a request may be stored; none for a valid request.
    pub(crate) fn request_fault(&self, request: u64) -> Option<RequestFault> {
        let is_json = self.scenario.body.format == Format::Json;
        (self.chance(Salt::Hostile, request) < self.scenario.faults.hostile).then(|| {
            match hash(self.scenario.seed, Salt::HostileKind, request) % 4 {
                // NDJSON with these faults would have valid lines.
                0 if is_json => RequestFault::Truncated,
                1 if is_json => RequestFault::InvalidUtf8,
                0..=2 => RequestFault::UnknownEncoding,
                _ => RequestFault::Disconnect,
            }
        })
    }

    /// The reading with this number.
    pub fn reading(&self, number: u64) -> Reading {
        let series = number % self.series;
        let faults = &self.scenario.faults;
        let mut millis = (self.schedule.time(number as f64) * 1e3) as i64;
        if self.jitter > 0 {
            millis -= (hash(self.scenario.seed, Salt::Jitter, number) % (self.jitter + 1)) as i64;
        }
        let is_late = faults.late > 0.0 && self.chance(Salt::Late, number) < faults.late;
        if is_late {
            millis -= self.late_by(series);
        }
        let fault = (faults.bad > 0.0 && self.chance(Salt::Bad, number) < faults.bad).then(|| {
            match hash(self.scenario.seed, Salt::BadKind, number) % 6 {
                0 => ReadingFault::NullValue,
                1 => ReadingFault::FutureTime,
                2 => ReadingFault::InvalidTime,
                3 => ReadingFault::LongName,
                4 => ReadingFault::EmptyName,
                _ => ReadingFault::MissingFields,
            }
        });
        let measured_at = self.begin + millis * 1_000 + self.mark + Micros::from(is_late);
        let cents = 22_000 + (hash(self.scenario.seed, Salt::Value, number) % 2_000) as i64;
        Reading {
            series,
            measured_at,
            cents,
            fault,
        }
    }

    /// How much earlier the late readings of a series are measured, in milliseconds: from a half of
    /// `late-by` to all of it.
    fn late_by(&self, series: u64) -> i64 {
        let limit = self.scenario.faults.late_by.as_millis() as f64;
        (limit * (0.5 + 0.5 * self.chance(Salt::LateBy, series))) as i64
    }

    fn chance(&self, salt: Salt, number: u64) -> f64 {
        uniform(self.scenario.seed, salt, number)
    }
}

/// The mark of a run. Another scenario, or the same one at another time, has another mark with high
/// probability.
fn mark(scenario: &Scenario, begin: Micros) -> Micros {
    let text = toml::to_string(&Scenario {
        begin: None,
        ..scenario.clone()
    })
    .unwrap_or_default();
    let seed = text.bytes().fold(scenario.seed, |seed, byte| {
        hash(seed, Salt::Run, u64::from(byte))
    });
    (hash(seed, Salt::Run, begin.cast_unsigned()) % 500 * 2) as Micros
}
