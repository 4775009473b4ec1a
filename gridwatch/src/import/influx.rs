//! The rows of a dump in the line protocol of InfluxDB: `measurement,tag=… field=…,field=… time`.
//!
//! In: lines. Out: a row for each field. The metric is `measurement_field`, or `measurement` if the
//! field is `value`, unless `--metric` names it; the device is that of `--device-tag` or
//! `--device`. Comments and the statements of `influx_inspect export` are skipped.
//!
//! Source: <https://docs.influxdata.com/influxdb/v1/write_protocols/line_protocol_reference/>

use std::collections::VecDeque;

use service::quote::quote;

use super::lines::Lines;
use super::ndjson::NO_TIME;
use super::source::{BAD_VALUE, Fault, InvalidRow, NO_NAME, Row, Source, read_value, reading};
use crate::UsageError;
use crate::config::Import;

/// The code of a line that is not one of the protocol.
const BAD_ROW: &str = "bad_row";
/// The code of a field that is text or a boolean.
const NOT_A_NUMBER: &str = "not_a_number";
/// The field whose metric is the measurement.
const VALUE: &str = "value";

/// The file, and how it is read.
pub(super) struct Rows {
    lines: Lines,
    device: Option<String>,
    device_tag: Option<String>,
    metric: Option<String>,
    /// Whether the lines are statements that create databases.
    in_definitions: bool,
    /// The other fields of the last line.
    pending: VecDeque<Result<Row, InvalidRow>>,
}

impl Rows {
    /// Opens the file.
    ///
    /// # Errors
    /// It cannot be read, or no flag names the device.
    pub(super) fn open(arguments: &Import) -> Result<Self, UsageError> {
        if arguments.device.is_some() == arguments.device_tag.is_some() {
            return Err(UsageError(
                "give either --device-tag TAG, the tag with the device, or --device DEVICE, if all \
                 readings are of one device"
                    .into(),
            ));
        }
        Ok(Self {
            lines: Lines::open(arguments.file())?,
            device: arguments.device.clone(),
            device_tag: arguments.device_tag.clone(),
            metric: arguments.metric.clone(),
            in_definitions: false,
            pending: VecDeque::new(),
        })
    }

    /// Adds a row for each field of a line.
    fn read(&mut self, line: &str) -> Result<(), Fault> {
        let bad = |reason: &str| (BAD_ROW, reason.to_owned());
        let (key, rest) = cut(line, ' ', false).ok_or_else(|| bad("the line has no fields"))?;
        let rest = rest.trim_start();
        let (fields, time) = cut(rest, ' ', true).unwrap_or((rest, ""));
        let mut parts = split(key, false).into_iter();
        let measurement = unescape(parts.next().unwrap_or_default());
        let device = match &self.device_tag {
            None => self.device.clone(),
            Some(wanted) => parts
                .filter_map(|tag| cut(tag, '=', false))
                .find(|(name, _)| unescape(name) == *wanted)
                .map(|(_, value)| unescape(value)),
        };
        let device = device.filter(|device| !device.is_empty()).ok_or_else(|| {
            let tag = self.device_tag.as_deref().unwrap_or_default();
            (
                NO_NAME,
                format!("the line has no tag {}, which names the device", quote(tag)),
            )
        })?;
        let time = time.trim();
        if time.is_empty() {
            let reason = "there is no time, so that importing the file again would store the \
                          reading again";
            return Err((NO_TIME, reason.into()));
        }
        if time.parse::<i64>().is_err() {
            return Err((
                super::time::BAD_TIME,
                format!("{} is not a time", quote(time)),
            ));
        }
        for field in split(fields, true) {
            let row = cut(field, '=', false).ok_or_else(|| {
                (
                    BAD_ROW,
                    format!("{} is not a field with a value", quote(field)),
                )
            });
            let row = row.and_then(|(name, value)| {
                let name = unescape(name);
                let metric = match &self.metric {
                    Some(metric) => metric.clone(),
                    None if name == VALUE => measurement.clone(),
                    None => format!("{measurement}_{name}"),
                };
                let value = number(value).map_err(|(code, reason)| {
                    (code, format!("field {}: {reason}", quote(&name)))
                })?;
                Ok(Row {
                    place: self.lines.place(),
                    json: reading(&device, &metric, &value, time),
                    has_numeric_time: true,
                })
            });
            let place = self.lines.place();
            let row = row.map_err(|(code, detail)| InvalidRow {
                place,
                code,
                detail,
            });
            self.pending.push_back(row);
        }
        Ok(())
    }
}

impl Source for Rows {
    fn progress(&self) -> (u64, u64) {
        self.lines.progress()
    }

    fn layout(&self) -> String {
        let device = match (&self.device_tag, &self.device) {
            (Some(tag), _) => format!("the tag {}", quote(tag)),
            (None, device) => quote(device.as_deref().unwrap_or_default()),
        };
        let metric = match &self.metric {
            Some(metric) => quote(metric),
            None => "the measurement and the field".into(),
        };
        format!("line protocol; the device is {device}, the metric is {metric}")
    }

    fn next(&mut self) -> anyhow::Result<Option<Result<Row, InvalidRow>>> {
        loop {
            if let Some(row) = self.pending.pop_front() {
                return Ok(Some(row));
            }
            let line = match self.lines.next()? {
                Some(line) => line.map(str::to_owned),
                None => return Ok(None),
            };
            let read = match line.as_deref() {
                Ok(comment) if comment.starts_with('#') => {
                    self.in_definitions = match comment {
                        "# DDL" => true,
                        "# DML" => false,
                        _ => self.in_definitions,
                    };
                    Ok(())
                }
                Ok(_) if self.in_definitions => Ok(()),
                Ok(line) => self.read(line),
                Err(reason) => Err((BAD_ROW, reason.clone())),
            };
            if let Err((code, detail)) = read {
                let place = self.lines.place();
                return Ok(Some(Err(InvalidRow {
                    place,
                    code,
                    detail,
                })));
            }
        }
    }
}

/// The text before and behind the first separator that is not escaped, and not in quotation marks
/// if `quotes` have a meaning.
fn cut(text: &str, separator: char, quotes: bool) -> Option<(&str, &str)> {
    let (mut escaped, mut quoted) = (false, false);
    for (index, char) in text.char_indices() {
        match char {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' if quotes => quoted = !quoted,
            _ if char == separator && !quoted => {
                return Some((&text[..index], &text[index + char.len_utf8()..]));
            }
            _ => {}
        }
    }
    None
}

/// The parts of a text between commas.
fn split(mut text: &str, quotes: bool) -> Vec<&str> {
    let mut parts = Vec::new();
    while let Some((part, rest)) = cut(text, ',', quotes) {
        parts.push(part);
        text = rest;
    }
    parts.push(text);
    parts
}

/// A name without the backslashes that escape commas, equals signs and spaces.
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        let is_escape = char == '\\' && chars.peek().is_some_and(|next| ",= ".contains(*next));
        if !is_escape {
            plain.push(char);
        }
    }
    plain
}

/// The JSON of a field that is a number: `1.5`, `15i` or `15u`.
fn number(text: &str) -> Result<String, Fault> {
    if text.starts_with('"') {
        return Err((NOT_A_NUMBER, "the value is text".into()));
    }
    if ["t", "true", "f", "false"].contains(&text.to_ascii_lowercase().as_str()) {
        return Err((NOT_A_NUMBER, "the value is a boolean".into()));
    }
    let integer = text.strip_suffix(['i', 'u']).filter(|digits| {
        let digits = digits.strip_prefix('-').unwrap_or(digits);
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    });
    read_value(integer.unwrap_or(text)).map_err(|reason| (BAD_VALUE, reason))
}
