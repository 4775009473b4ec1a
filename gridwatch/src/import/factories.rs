//! `gridwatch import --kind factories`: factories with their actual production and its goal.
//!
//! In: `{"factories": [{"factory": {"chart_data": {"sprocket_production_actual": […],
//! "sprocket_production_goal": […], "time": […]}}}, …]}`, times in seconds since 1970. Out, for
//! each factory: a component `factory-1`, a device of the same name, a series with the actual
//! production as readings, and its goal as targets. The position in the file is the identity of a
//! factory. What is stored stays: importing again changes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Attempt;
use super::model::{self, AllCounts, Counts, Document};
use super::send::FrontEnd;
use super::source::{BAD_VALUE, Place, Row, reading};
use super::summary::Summary;
use crate::UsageError;
use crate::config::Import;
use crate::output::note;
use crate::query_client::{QueryApi, segment};

/// The kind of the components, and what their names begin with.
const KIND: &str = "factory";
const METRIC: &str = "sprocket_production";
/// UCUM: a count of sprockets.
const UNIT: &str = "{sprocket}";
const ACTUAL: &str = "sprocket_production_actual";
const GOAL: &str = "sprocket_production_goal";
const TIME: &str = "time";
/// The code of a goal whose target is stored with another value.
const TARGET_DIFFERS: &str = "target_differs";
/// How long a front end may take to know a new series, and how often it is asked.
const REFRESH_LIMIT: Duration = Duration::from_secs(15);
const REFRESH_INTERVAL: Duration = Duration::from_millis(250);

/// The arrays of a factory, all of one length. Null is no value.
struct Factory {
    actual: Vec<Option<f64>>,
    goal: Vec<Option<f64>>,
    /// Seconds since 1970.
    time: Vec<i64>,
}

/// Imports the file. The attempt has what was created and left out, also after a failure.
pub(super) async fn import(arguments: &Import, attempt: &mut Attempt) -> anyhow::Result<()> {
    let api = QueryApi::new("--query-url", arguments.query_url())?;
    let front_end = FrontEnd::new(&arguments.url, "s")?;
    let document = Document::read(arguments.file())?;
    let factories = read(&document)?;
    attempt.begin(arguments).await;
    let Attempt {
        summary, counts, ..
    } = attempt;
    for (index, factory) in factories.iter().enumerate() {
        let name = format!("{KIND}-{}", index + 1);
        let is_new = register(&api, &document, &name, counts).await?;
        let rows = rows(&name, index + 1, factory, summary);
        for batch in rows.chunks(arguments.batch) {
            send(&front_end, batch, is_new, summary).await?;
        }
        let targets = Targets {
            api: &api,
            path: format!("devices/{}/series/{METRIC}/targets", segment(&name)),
            factory: index + 1,
        };
        targets
            .store(&document, factory, &mut counts.targets, summary)
            .await?;
    }
    Ok(())
}

/// The factories of the file. One that is wrong refuses the file before anything is imported.
fn read(document: &Document) -> Result<Vec<Factory>, UsageError> {
    let entries = document.json["factories"].as_array().ok_or_else(|| {
        document.wrong(
            "/factories",
            "expected an array with an object for each factory",
        )
    })?;
    let factory = |(index, entry): (usize, &Value)| {
        let pointer = format!("/factories/{index}/factory/chart_data");
        let data = &entry["factory"]["chart_data"];
        let list = |name: &str| {
            let pointer = format!("{pointer}/{name}");
            let list = data[name].as_array();
            list.ok_or_else(|| document.wrong(&pointer, "expected an array of numbers"))
        };
        let numbers = |name: &str| {
            let number = |(entry, value): (usize, &Value)| match value {
                Value::Null => Ok(None),
                Value::Number(number) => Ok(number.as_f64()),
                _ => {
                    let pointer = format!("{pointer}/{name}/{entry}");
                    Err(document.wrong(&pointer, "expected a number"))
                }
            };
            let numbers = list(name)?.iter().enumerate().map(number);
            numbers.collect::<Result<Vec<Option<f64>>, UsageError>>()
        };
        let second = |(entry, value): (usize, &Value)| {
            let pointer = format!("{pointer}/{TIME}/{entry}");
            let second = value
                .as_i64()
                .filter(|&time| Timestamp::from_second(time).is_ok());
            let reason = "expected a whole number of seconds since 1970";
            second.ok_or_else(|| document.wrong(&pointer, reason))
        };
        let time: Result<Vec<i64>, _> = list(TIME)?.iter().enumerate().map(second).collect();
        let factory = Factory {
            actual: numbers(ACTUAL)?,
            goal: numbers(GOAL)?,
            time: time?,
        };
        let lengths = [factory.actual.len(), factory.goal.len(), factory.time.len()];
        if lengths != [lengths[0]; 3] {
            let [actual, goal, time] = lengths;
            let reason = format!(
                "the arrays must have the same length, and {ACTUAL} has {actual} entries, \
                 {GOAL} {goal} and {TIME} {time}"
            );
            return Err(document.wrong(&pointer, &reason));
        }
        Ok(factory)
    };
    entries.iter().enumerate().map(factory).collect()
}

/// Registers a factory with its device and its series. Returns whether the series is new.
async fn register(
    api: &QueryApi,
    document: &Document,
    name: &str,
    counts: &mut AllCounts,
) -> anyhow::Result<bool> {
    let create = async |list: &str, part: &str, body: Value| {
        let key = document.key(&format!("{name}:{part}"));
        anyhow::Ok((model::create(api, list, &key, &body).await?, true))
    };
    let filters = [("kind", KIND), ("text", name)];
    let is_it = |found: &Value| found["kind"] == KIND && found["name"] == name;
    let component = match model::find_in_list(api, "components", &filters, is_it).await? {
        Some(found) => (found, false),
        None => {
            let body = json!({ "kind": KIND, "name": name });
            create("/components", "component", body).await?
        }
    };
    let component = counts.components.add(component);
    let path = format!("/devices/{}", segment(name));
    let device = match model::find(api, &path).await? {
        Some(found) => (found, false),
        None => {
            let body = json!({ "device": name, "component": component["id"] });
            create("/devices", "device", body).await?
        }
    };
    let device = counts.devices.add(device);
    if device["component"].is_null() {
        let body = json!({ "component": component["id"] });
        model::patch(api, &path, &body).await?;
    }
    let list = format!("{path}/series");
    let series = match model::find(api, &format!("{list}/{METRIC}")).await? {
        Some(found) => (found, false),
        None => {
            let body = json!({ "metric": METRIC, "unit": UNIT, "kind": "interval" });
            create(&list, "series", body).await?
        }
    };
    let is_new = series.1;
    counts.series.add(series);
    Ok(is_new)
}

/// The readings of the actual production.
fn rows(name: &str, number: usize, factory: &Factory, summary: &mut Summary) -> Vec<Row> {
    let mut rows = Vec::new();
    for (entry, (time, actual)) in factory.time.iter().zip(&factory.actual).enumerate() {
        let place = Place::Entry(number, entry + 1);
        match actual {
            Some(value) => rows.push(Row {
                place,
                json: reading(name, METRIC, &json!(value).to_string(), &time.to_string()),
                has_numeric_time: true,
            }),
            None => summary.reject(Some(place), BAD_VALUE, "the actual production is null"),
        }
    }
    rows
}

/// Sends readings. A front end that does not know a new series yet is asked again.
async fn send(
    front_end: &FrontEnd,
    rows: &[Row],
    is_new: bool,
    summary: &mut Summary,
) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let body = super::body(rows);
        let response = front_end.post(body, |problem| note(problem)).await?;
        let code = response["errors"][0]["code"].as_str();
        let is_unknown = matches!(code, Some("unknown_device" | "unknown_metric"));
        if is_new && is_unknown && start.elapsed() < REFRESH_LIMIT {
            tokio::time::sleep(REFRESH_INTERVAL).await;
            continue;
        }
        return summary.add(&response, rows);
    }
}

/// The targets of a series.
struct Targets<'a> {
    api: &'a QueryApi,
    /// The path of the list, without the leading slash.
    path: String,
    /// The position of the factory in the file, from 1.
    factory: usize,
}

impl Targets<'_> {
    /// Stores the goals that are not stored yet.
    async fn store(
        &self,
        document: &Document,
        factory: &Factory,
        counts: &mut Counts,
        summary: &mut Summary,
    ) -> anyhow::Result<()> {
        let stored = self.stored(factory).await?;
        let list = format!("/{}", self.path);
        for (entry, (time, goal)) in factory.time.iter().zip(&factory.goal).enumerate() {
            match stored.get(time) {
                Some(value) if value == goal => counts.existing += 1,
                Some(value) => {
                    let shown = |goal: &Option<f64>| json!(goal).to_string();
                    let reason = format!(
                        "the goal is {}, and the stored target of this time is {}, which stays",
                        shown(goal),
                        shown(value)
                    );
                    let place = Place::Entry(self.factory, entry + 1);
                    summary.reject(Some(place), TARGET_DIFFERS, &reason);
                }
                None => {
                    let starts_at = Timestamp::from_second(*time)?.to_string();
                    let body = json!({ "starts_at": starts_at, "value": goal });
                    let key = document.key(&format!("{}:goal:{entry}", self.factory));
                    model::create(self.api, &list, &key, &body).await?;
                    counts.created += 1;
                }
            }
        }
        Ok(())
    }

    /// The targets within the times of a factory, by second.
    async fn stored(&self, factory: &Factory) -> anyhow::Result<BTreeMap<i64, Option<f64>>> {
        let mut stored = BTreeMap::new();
        let (Some(first), Some(last)) = (factory.time.iter().min(), factory.time.iter().max())
        else {
            return Ok(stored);
        };
        let from = Timestamp::from_second(*first)?.to_string();
        let to = Timestamp::from_second(last.saturating_add(1))?.to_string();
        let filters = [
            ("from", from.as_str()),
            ("to", to.as_str()),
            ("limit", "5000"),
        ];
        let mut next = None;
        loop {
            let next_page = next.as_deref();
            let (entries, position) =
                model::page(self.api, &self.path, "targets", &filters, next_page).await?;
            for entry in entries {
                let time = entry["starts_at"].as_str().unwrap_or_default();
                // Goals start at whole seconds.
                let time = time.parse::<Timestamp>();
                if let Some(time) = time.ok().filter(|time| time.subsec_nanosecond() == 0) {
                    stored.insert(time.as_second(), entry["value"].as_f64());
                }
            }
            match position {
                Some(position) => next = Some(position),
                None => return Ok(stored),
            }
        }
    }
}
