//! Documents of the model as the commands print them: as JSON as they are, or as a row of a table.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

/// What a table has for a value that is null.
const NOTHING: &str = "-";

/// A document of a list.
pub(crate) trait Document: Serialize + DeserializeOwned {
    /// The member of a page with the documents.
    const LIST: &'static str;
    /// The header of a table.
    const HEADER: &'static [&'static str];
    /// The row of a table.
    fn cells(&self) -> Vec<String>;
}

fn or_nothing(text: Option<&String>) -> String {
    text.map_or_else(|| NOTHING.into(), Clone::clone)
}

fn yes_or_no(value: bool) -> String {
    if value { "yes" } else { "no" }.into()
}

/// A component.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Component {
    id: String,
    kind: String,
    name: String,
    parent: Option<String>,
    time_zone: Option<String>,
    effective_time_zone: Option<String>,
    latitude: Option<Number>,
    longitude: Option<Number>,
    attributes: Value,
    customer: Option<String>,
    /// Kinds of which it has too few children. Lists do not have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<Value>,
    #[serde(flatten)]
    meta: Meta,
}

/// What every document ends with.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Meta {
    version: u64,
    created_at: String,
    updated_at: String,
    updated_by: String,
}

impl Document for Component {
    const LIST: &'static str = "components";
    const HEADER: &'static [&'static str] = &["ID", "KIND", "PARENT", "NAME"];

    fn cells(&self) -> Vec<String> {
        let parent = or_nothing(self.parent.as_ref());
        vec![
            self.id.clone(),
            self.kind.clone(),
            parent,
            self.name.clone(),
        ]
    }
}

/// A device.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Device {
    device: String,
    name: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    component: Option<String>,
    health: String,
    active: bool,
    expected_interval: Option<Number>,
    latitude: Option<Number>,
    longitude: Option<Number>,
    specs: Value,
    configuration: Value,
    activation_date: Option<String>,
    series: Vec<Metric>,
    #[serde(flatten)]
    meta: Meta,
}

/// A series in the document of its device.
#[derive(Debug, Serialize, Deserialize)]
struct Metric {
    metric: String,
    unit: Option<String>,
    kind: String,
}

impl Document for Device {
    const LIST: &'static str = "devices";
    const HEADER: &'static [&'static str] = &["DEVICE", "HEALTH", "ACTIVE", "METRICS"];

    fn cells(&self) -> Vec<String> {
        let metric = |own: &Metric| match &own.unit {
            Some(unit) => format!("{} [{unit}]", own.metric),
            None => own.metric.clone(),
        };
        let metrics: Vec<String> = self.series.iter().map(metric).collect();
        vec![
            self.device.clone(),
            self.health.clone(),
            yes_or_no(self.active),
            metrics.join(", "),
        ]
    }
}

/// A series.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Series {
    device: String,
    metric: String,
    unit: Option<String>,
    kind: String,
    rollover: Option<Number>,
    #[serde(flatten)]
    meta: Meta,
}

impl Document for Series {
    const LIST: &'static str = "series";
    const HEADER: &'static [&'static str] = &["METRIC", "UNIT", "KIND", "ROLLOVER"];

    fn cells(&self) -> Vec<String> {
        let rollover = self.rollover.as_ref().map(Number::to_string);
        vec![
            self.metric.clone(),
            or_nothing(self.unit.as_ref()),
            self.kind.clone(),
            or_nothing(rollover.as_ref()),
        ]
    }
}

/// A target.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Target {
    starts_at: String,
    value: Option<Number>,
    #[serde(flatten)]
    meta: Meta,
}

impl Document for Target {
    const LIST: &'static str = "targets";
    const HEADER: &'static [&'static str] = &["STARTS AT", "VALUE"];

    fn cells(&self) -> Vec<String> {
        let value = self.value.as_ref().map(Number::to_string);
        vec![self.starts_at.clone(), or_nothing(value.as_ref())]
    }
}

/// An import.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Import {
    id: String,
    name: String,
    digest: Option<String>,
    kind: String,
    accepted: u64,
    left_out: u64,
    complete: bool,
    created_at: String,
    updated_at: String,
    updated_by: String,
}

impl Document for Import {
    const LIST: &'static str = "imports";
    const HEADER: &'static [&'static str] = &[
        "STARTED", "KIND", "ACCEPTED", "LEFT OUT", "COMPLETE", "SHA-256", "FILE",
    ];

    fn cells(&self) -> Vec<String> {
        let start = |digest: &String| digest.chars().take(12).collect::<String>();
        let digest = self.digest.as_ref().map(start);
        vec![
            self.created_at.clone(),
            self.kind.clone(),
            self.accepted.to_string(),
            self.left_out.to_string(),
            yes_or_no(self.complete),
            or_nothing(digest.as_ref()),
            self.name.clone(),
        ]
    }
}
