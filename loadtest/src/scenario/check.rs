//! Parsing a scenario, and the checks that involve more than one value.

use std::time::Duration;

use super::{MIN_INTERVAL, Mode, ProfileKind, Scenario};
use crate::schedule::Schedule;

/// Why a scenario is not valid.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ScenarioError(pub(super) String);

/// Terms of the TOML parser, and the terms of the documentation for them.
const TERMS: [(&str, &str); 3] = [
    ("unknown field", "unknown key"),
    ("missing field", "missing key"),
    ("unknown variant", "unknown value"),
];

type CheckResult = Result<(), (&'static str, String)>;

impl Scenario {
    /// Parses a scenario.
    ///
    /// # Errors
    /// The scenario is not valid; the error has the line, the key and what was expected.
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let scenario: Self = toml::from_str(text)
            .map_err(|error| ScenarioError(with_documented_terms(error.to_string().trim_end())))?;
        scenario.check().map_err(|(key, reason)| {
            let line = line_of(text, key).map_or_else(String::new, |line| format!("line {line}: "));
            ScenarioError(format!("{line}{key}: {reason}"))
        })?;
        Ok(scenario)
    }

    /// Checks the values against each other. Call it again after an override.
    ///
    /// # Errors
    /// A value is not valid; the error has the key and what was expected.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        self.check_times()?;
        if self.mode == Mode::Open && self.rate.is_none() {
            let reason = "the key is missing; it is the number of readings per second. To send as \
                          fast as the connections allow, write mode = \"closed\" instead";
            return Err(("rate", reason.to_owned()));
        }
        self.check_profile()?;
        self.check_amounts()
    }

    fn check_times(&self) -> CheckResult {
        for (key, time) in [("duration", self.duration), ("timeout", self.timeout)] {
            if time == Duration::ZERO {
                return Err((key, "expected a time above 0".to_owned()));
            }
        }
        if self.warm_up >= self.duration {
            return Err(("warm-up", self.expected_less_than_duration()));
        }
        if let Some(outage) = self.outage
            && (outage.from >= outage.until || outage.until > self.duration)
        {
            return Err((
                "outage.until",
                "expected a time after outage.from and within the duration".into(),
            ));
        }
        Ok(())
    }

    fn check_profile(&self) -> CheckResult {
        let (profile, kind) = (&self.profile, self.profile.kind);
        let is_spike = kind == ProfileKind::Spike;
        let has_target = kind != ProfileKind::Constant;
        for (key, is_present, is_needed) in [
            ("shape.to", profile.to.is_some(), has_target),
            (
                "shape.steps",
                profile.steps.is_some(),
                kind == ProfileKind::Step,
            ),
            ("shape.at", profile.at.is_some(), is_spike),
            ("shape.lasts", profile.lasts.is_some(), is_spike),
        ] {
            if is_present != is_needed {
                let kind = format!("{kind:?}").to_lowercase();
                let reason = if is_needed {
                    format!("the key is missing; shape.kind '{kind}' requires it")
                } else {
                    format!("the key has no effect with shape.kind '{kind}'; remove it")
                };
                return Err((key, reason));
            }
        }
        if profile.at.is_some_and(|at| at >= self.duration) {
            return Err(("shape.at", self.expected_less_than_duration()));
        }
        Ok(())
    }

    fn check_amounts(&self) -> CheckResult {
        let interval = self.min_interval();
        if interval < MIN_INTERVAL {
            let least = (self.peak() * MIN_INTERVAL / self.fleet.metrics.len() as f64).ceil();
            let devices = self.fleet.devices;
            let reason = match self.mode {
                Mode::Open => format!(
                    "{devices} devices are too few for {} readings/s: each series would be \
                     measured every {:.1} ms; expected at least {least} devices",
                    self.peak(),
                    interval * 1e3
                ),
                Mode::Closed => format!(
                    "{devices} devices are too few for a closed loop, which sends as fast as its \
                     connections allow; expected at least {least} devices"
                ),
            };
            return Err(("fleet.devices", reason));
        }
        let readings = Schedule::new(self).count(self.duration.as_secs_f64());
        if readings + 0.5 < self.batch as f64 {
            return Err((
                "batch",
                format!("expected at most {readings:.0}, the number of readings of the whole run"),
            ));
        }
        Ok(())
    }

    fn expected_less_than_duration(&self) -> String {
        format!("expected less than the duration of {:?}", self.duration)
    }
}

fn with_documented_terms(message: &str) -> String {
    let replace = |text: String, (from, to): (&str, &str)| text.replace(from, to);
    TERMS.into_iter().fold(message.to_owned(), replace)
}

/// The line of a key such as `fleet.devices`, counted from 1; the line of its table if the key is
/// absent.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let (table, name) = key.rsplit_once('.').unwrap_or(("", key));
    let (mut current, mut table_line) = ("", None);
    for (line, number) in text.lines().map(str::trim).zip(1..) {
        if let Some(header) = line
            .strip_prefix('[')
            .and_then(|rest| rest.split(']').next())
        {
            current = header.trim();
            if current == table {
                table_line = Some(number);
            }
        } else if current == table && line.split('=').next().is_some_and(|own| own.trim() == name) {
            return Some(number);
        }
    }
    table_line
}
