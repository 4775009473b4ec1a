//! `gridwatch readings`: the readings of a device, as a table, a plot or JSON.
//!
//! In: a device, a range of time and optionally a resolution. Out: what the query API responds
//! with. A result that is cut off says so. If the range has no readings, the command reports when
//! the latest one was measured.

mod plot;
mod table;

use std::io::Write;

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::UsageError;
use crate::config::Readings;
use crate::model::watch;
use crate::output::{ended, note};
use crate::query_client::QueryApi;

/// Upper bound on the readings of a table. A longer result ends with a note.
const MAX_ROWS: &str = "5000";
/// What is shown if the range is not given.
const DEFAULT_RANGE: SignedDuration = SignedDuration::from_hours(24);
/// Width of a plot if stdout is not a terminal.
const DEFAULT_COLUMNS: u16 = 80;
/// Rows of a plot.
const PLOT_ROWS: usize = 16;

/// What is printed: as JSON as it is, or as a table or a plot.
#[derive(Debug, Serialize, Deserialize)]
struct Output {
    series: Vec<Series>,
    /// Where the rest begins, if the result is cut off.
    next: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Series {
    device: String,
    metric: String,
    unit: Option<String>,
    /// `time` and `value`, or `start`, `end`, `count` and the aggregates.
    points: Vec<Map<String, Value>>,
}

/// Runs the command.
pub(crate) async fn run(arguments: Readings) -> anyhow::Result<()> {
    let api = QueryApi::new("--url", &arguments.query.url)?;
    let print = async || print(&api, &arguments, &mut std::io::stdout()).await;
    ended(watch(arguments.watch.watch, print).await)
}

async fn print(api: &QueryApi, arguments: &Readings, out: &mut impl Write) -> anyhow::Result<()> {
    let terminal = terminal_size::terminal_size();
    let columns = usize::from(terminal.map_or(DEFAULT_COLUMNS, |(width, _)| width.0));
    let parameters = parameters(arguments, columns)?;
    let borrowed: Vec<(&str, &str)> = parameters
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let response = api.get("/readings", &borrowed).await;
    let response = response.map_err(|error| {
        let is_unknown = error.has_code("unknown_device");
        let error = error.of_command();
        match is_unknown {
            true => error.context("'gridwatch devices list' lists the devices"),
            false => error,
        }
    })?;
    let output: Output = serde_json::from_slice(&response.body)
        .with_context(|| format!("{} did not respond with readings", arguments.query.url))?;
    if arguments.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&output)?)?;
    } else {
        for series in output
            .series
            .iter()
            .filter(|series| !series.points.is_empty())
        {
            let lines = match arguments.plot {
                true => plot::lines(series, arguments, columns, PLOT_ROWS),
                false => table::lines(series, arguments),
            };
            writeln!(out, "{}", lines.join("\n"))?;
        }
    }
    if output.next.is_some() {
        note(format_args!(
            "only the first {MAX_ROWS} readings are shown; choose a shorter range or a \
             --resolution such as 15m, or write all of them with 'gridwatch export'"
        ));
    }
    if output.series.iter().all(|series| series.points.is_empty()) {
        note(nothing_found(api, arguments).await);
    }
    Ok(())
}

/// The parameters of the request.
fn parameters(
    arguments: &Readings,
    columns: usize,
) -> Result<Vec<(&'static str, String)>, UsageError> {
    let now = Timestamp::now();
    let earlier = |length: SignedDuration| {
        let from = now.checked_sub(length);
        from.map(|from| from.to_string())
            .map_err(|_| UsageError("--last is before the earliest time".into()))
    };
    let last = arguments.last.map(SignedDuration::try_from).transpose();
    let last = last.map_err(|_| UsageError("--last is too long".into()))?;
    let from = match (&arguments.from, last) {
        (Some(from), _) => from.clone(),
        (None, last) => earlier(last.unwrap_or(DEFAULT_RANGE))?,
    };
    let to = arguments.to.clone().unwrap_or_else(|| now.to_string());
    let mut parameters = vec![
        ("device", arguments.device.clone()),
        ("from", from),
        ("to", to),
        ("format", "json".to_owned()),
    ];
    let mut add = |name, value: &Option<String>| {
        parameters.extend(value.clone().map(|value| (name, value)));
    };
    add("metric", &arguments.metric);
    add("resolution", &arguments.resolution);
    add("aggregates", &arguments.aggregates);
    add("time_zone", &arguments.time_zone);
    match (&arguments.resolution, arguments.plot) {
        // Each column of a plot has two dots.
        (None, true) => add("max_points", &Some((columns * 2).to_string())),
        (None, false) => add("limit", &Some(MAX_ROWS.to_owned())),
        (Some(_), _) => {}
    }
    if arguments.plot {
        add("fill", &Some("null".to_owned()));
    }
    Ok(parameters)
}

/// What to report instead of an empty table.
async fn nothing_found(api: &QueryApi, arguments: &Readings) -> String {
    let mut parameters = vec![("device", arguments.device.as_str())];
    let metric = arguments.metric.as_deref();
    parameters.extend(metric.map(|metric| ("metric", metric)));
    let latest = match api.get("/latest", &parameters).await {
        Ok(response) => response.json(),
        Err(_) => Value::Null,
    };
    let latest = latest["latest"].as_array().into_iter().flatten();
    match latest.filter_map(|point| point["time"].as_str()).max() {
        Some(time) => format!(
            "there are no readings in this range; the latest one was measured at {time}; \
             choose the range with --from and --to, or with --last"
        ),
        None => "there are no readings in this range".to_owned(),
    }
}

/// The name of a series, with its unit.
fn title(series: &Series) -> String {
    let Series { device, metric, .. } = series;
    match &series.unit {
        Some(unit) => format!("{device}  {metric} [{unit}]"),
        None => format!("{device}  {metric}"),
    }
}

/// The columns with values: the value of a reading, or the aggregates in the order of the request.
fn columns(series: &Series, arguments: &Readings) -> Vec<String> {
    let is_raw = |point: &Map<String, Value>| point.contains_key("time");
    if series.points.first().is_some_and(is_raw) {
        return vec!["value".to_owned()];
    }
    let aggregates = arguments.aggregates.as_deref().unwrap_or("mean");
    let names = aggregates.split(',').map(|name| name.trim().to_owned());
    names.filter(|name| name != "count").collect()
}

/// The time of a point, or the start of a bucket.
fn time(point: &Map<String, Value>) -> &str {
    let time = point.get("time").or_else(|| point.get("start"));
    time.and_then(Value::as_str).unwrap_or_default()
}

/// A time in the time zone of the request.
fn local(time: &str, arguments: &Readings) -> String {
    let zone = arguments.time_zone.as_deref().unwrap_or("UTC");
    let parsed = time.parse::<Timestamp>().ok();
    match parsed.and_then(|time| time.in_tz(zone).ok()) {
        Some(time) => time.strftime("%Y-%m-%d %H:%M:%S%.f%:z").to_string(),
        None => time.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use axum::Router;
    use axum::routing::get;

    use super::plot::tests::arguments;
    use super::*;
    use crate::query_client::tests::serve;

    /// An output that `head` has closed.
    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> Result<usize, Error> {
            Err(ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> Result<(), Error> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_closed_output_ends_the_command_without_an_error() {
        let body = r#"{"series": [{"device": "m", "metric": "p", "unit": null,
            "points": [{"time": "2026-01-01T00:00:00Z", "value": 1}]}], "next": null}"#;
        let api = serve(Router::new().route("/v1/readings", get(body))).await;
        for flags in [&[][..], &["--json"], &["--plot"]] {
            let printed = print(&api, &arguments(flags), &mut Closed).await;
            assert!(printed.is_err());
            ended(printed).unwrap();
        }
    }
}
