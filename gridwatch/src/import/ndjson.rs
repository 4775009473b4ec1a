//! The rows of an NDJSON file: a JSON object per line.
//!
//! In: `{"device", "metric", "value", "measured_at"}`, as the front end takes it. `time` is
//! another name of `measured_at`, so that a response of the query API can be imported. Its last
//! line, `{"end": true, …}`, is not a reading.

use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};
use service::quote::quote;

use super::lines::Lines;
use super::source::{BAD_VALUE, Fault, InvalidRow, NO_NAME, Row, Source, reading};
use super::time;
use crate::UsageError;
use crate::config::Import;

/// The code of a line that is not a JSON object with a reading.
const BAD_ROW: &str = "bad_row";
/// The code of a reading without a time. The front end would take the time of its arrival, and
/// importing again would store the reading again.
pub(super) const NO_TIME: &str = "no_time";
/// What a reading has.
const MEMBERS: [&str; 4] = ["device", "metric", "value", "measured_at"];

/// The file, and how it is read.
pub(super) struct Rows {
    lines: Lines,
    device: Option<String>,
    metric: Option<String>,
    zone: Option<TimeZone>,
}

impl Rows {
    /// Opens the file.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn open(arguments: &Import) -> Result<Self, UsageError> {
        Ok(Self {
            lines: Lines::open(arguments.file())?,
            device: arguments.device.clone(),
            metric: arguments.metric.clone(),
            zone: arguments.time_zone.clone(),
        })
    }

    /// A row of a line; `None` if it is the end of a response.
    fn row(&self, line: &str) -> Result<Option<Row>, Fault> {
        let bad = |reason: &str| (BAD_ROW, reason.to_owned());
        let object: Result<Map<String, Value>, _> = serde_json::from_str(line);
        let mut object = object.map_err(|_| bad("the line is not a JSON object"))?;
        match object.get("end") {
            Some(Value::Bool(true)) => return Ok(None),
            Some(_) => return Err(bad("the export that wrote this file was not completed")),
            None => {}
        }
        if let Some(time) = object.remove("time") {
            object.entry("measured_at").or_insert(time);
        }
        if let Some(name) = object.keys().find(|name| !MEMBERS.contains(&name.as_str())) {
            let name = quote(name);
            let reason = format!(
                "{name} is not a member; a reading has {}",
                MEMBERS.join(", ")
            );
            return Err((BAD_ROW, reason));
        }
        let name = |given: &Option<String>, what: &str| match (given, object.get(what)) {
            (Some(name), _) => Ok(name.clone()),
            (None, Some(Value::String(name))) => Ok(name.clone()),
            (None, _) => Err((NO_NAME, format!("there is no {what}; give --{what}"))),
        };
        let (device, metric) = (name(&self.device, "device")?, name(&self.metric, "metric")?);
        let time = match object.get("measured_at") {
            Some(Value::String(text)) => time::read(text, self.zone.as_ref())?,
            Some(number @ Value::Number(_)) => number.to_string(),
            _ => {
                let reason = "there is no measured_at, so that importing the file again would \
                              store the reading again";
                return Err((NO_TIME, reason.into()));
            }
        };
        let value = match object.get("value") {
            Some(number @ Value::Number(_)) => number.to_string(),
            other => {
                let other = json!(other).to_string();
                let reason = format!("the value {} is not a number", quote(&other));
                return Err((BAD_VALUE, reason));
            }
        };
        Ok(Some(Row {
            place: self.lines.place(),
            json: reading(&device, &metric, &value, &time),
            has_numeric_time: !time.starts_with('"'),
        }))
    }
}

impl Source for Rows {
    fn progress(&self) -> (u64, u64) {
        self.lines.progress()
    }

    fn layout(&self) -> String {
        "each line is a JSON object with a reading".into()
    }

    fn next(&mut self) -> anyhow::Result<Option<Result<Row, InvalidRow>>> {
        loop {
            let line = match self.lines.next()? {
                Some(line) => line.map(str::to_owned),
                None => return Ok(None),
            };
            let row = match line {
                Ok(line) => self.row(&line),
                Err(reason) => Err((BAD_ROW, reason)),
            };
            let place = self.lines.place();
            match row {
                Ok(None) => {}
                Ok(Some(row)) => return Ok(Some(Ok(row))),
                Err((code, detail)) => {
                    return Ok(Some(Err(InvalidRow {
                        place,
                        code,
                        detail,
                    })));
                }
            }
        }
    }
}
