//! `gridwatch seed lv-grid`: a low-voltage grid to try Gridwatch with.
//!
//! In: a number of stations. Out: each station with a transformer, a distributor and 8 feeders, and
//! on these 10 devices that measure current and voltage. Names and ids are computed from numbers,
//! and the devices are those of `loadtest run lv-grid`. What exists is left as it is, so that a
//! command that was interrupted is repeated. A request has few stations: the embedded database has
//! one connection, and readings wait for it.

use std::time::Instant;

use anyhow::Context as _;
use serde_json::{Value, json};
use service::client::Method;
use uuid::Builder;

use crate::config::{Seed, SeedCommand};
use crate::output::summary;
use crate::progress::Progress;
use crate::query_client::{QueryApi, QueryError};

/// Stations of a request.
const STATIONS: u32 = 50;
const FEEDERS: u32 = 8;
/// Devices of a station: one at the transformer, one at the distributor, and one at each feeder.
const DEVICES: u32 = 2 + FEEDERS;
/// Seconds between two readings of a series.
const INTERVAL: u32 = 60;
/// 2026-01-01T00:00:00Z in milliseconds: the time in the ids of the components.
const EPOCH: u64 = 1_767_225_600_000;
const HEADERS: [(&str, &str); 1] = [("x-actor", "gridwatch seed")];

/// How many stations are stored, and of the documents how many were created and how many existed.
#[derive(Debug, Default)]
struct Counts {
    stations: u32,
    components: [u64; 2],
    devices: [u64; 2],
    series: u64,
}

/// Runs the command.
pub(crate) async fn run(arguments: Seed) -> anyhow::Result<()> {
    let SeedCommand::LvGrid { stations, query } = arguments.command;
    let api = QueryApi::new("--url", &query.url)?;
    let progress = Progress::new("lv-grid", stations.into());
    let begin = Instant::now();
    let mut counts = Counts::default();
    let outcome = tokio::select! {
        outcome = seed(&api, stations, &mut counts, &progress) => outcome,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    progress.finish();
    let done = counts.stations;
    outcome.with_context(|| {
        format!("{done} of {stations} stations are stored; the same command continues from there")
    })?;
    let seconds = begin.elapsed().as_secs_f64();
    let mut lines = vec![format!("lv-grid: {stations} stations in {seconds:.1} s")];
    for (what, [new, existing]) in [
        ("components", counts.components),
        ("devices", counts.devices),
    ] {
        lines.push(format!("  {what}: {new} new, {existing} already stored"));
    }
    lines.push(format!("  series: {} new", counts.series));
    if counts.components[0] + counts.devices[0] == 0 {
        lines.push("nothing was changed".into());
    }
    Ok(summary(lines.join("\n"))?)
}

async fn seed(
    api: &QueryApi,
    stations: u32,
    counts: &mut Counts,
    progress: &Progress,
) -> anyhow::Result<()> {
    for first in (0..stations).step_by(STATIONS as usize) {
        let part = first..(first + STATIONS).min(stations);
        let components: Value = part.clone().flat_map(components).collect();
        let stored = create(api, "components", &components).await?;
        for (own, member) in counts.components.iter_mut().zip(["created", "existing"]) {
            *own += stored[member]["components"].as_u64().unwrap_or_default();
        }
        let devices: Value = part.clone().flat_map(devices).collect();
        let stored = create(api, "devices", &devices).await?;
        for (own, member) in counts.devices.iter_mut().zip(["created", "existing"]) {
            *own += stored[member]["devices"].as_u64().unwrap_or_default();
        }
        counts.series += stored["created"]["series"].as_u64().unwrap_or_default();
        counts.stations = part.end;
        let done = format!("{} of {stations} stations", part.end);
        progress.set(part.end.into(), &done);
    }
    Ok(())
}

async fn create(api: &QueryApi, list: &str, body: &Value) -> anyhow::Result<Value> {
    let path = format!("/{list}:bulk?existing=skip");
    let response = api.write(Method::POST, &path, &HEADERS, body).await;
    Ok(response.map_err(QueryError::of_command)?.json())
}

/// The places of a station: 0 is the station, 1 the transformer, 2 the distributor, and the rest
/// are feeders.
fn id(station: u32, place: u32) -> String {
    let mut bytes = [0; 10];
    bytes[2..6].copy_from_slice(&station.to_be_bytes());
    bytes[6..].copy_from_slice(&place.to_be_bytes());
    let id = Builder::from_unix_timestamp_millis(EPOCH + u64::from(station), &bytes);
    id.into_uuid().to_string()
}

/// A station and what is below it, each after its parent.
fn components(station: u32) -> impl Iterator<Item = Value> {
    let name = format!("Station {:05}", station + 1);
    (0..3 + FEEDERS).map(move |place| {
        let (kind, name) = match place {
            0 => ("station", name.clone()),
            1 => ("transformer", format!("{name}, transformer 1")),
            2 => ("distributor", format!("{name}, distributor 1")),
            feeder => ("feeder", format!("{name}, feeder {}", feeder - 2)),
        };
        let mut component = json!({ "id": id(station, place), "kind": kind, "name": name });
        match place {
            0 => {
                // A grid of 100 by 100 points, about 7 km apart.
                component["latitude"] = json!(47.5 + f64::from(station / 100) * 0.0625);
                component["longitude"] = json!(6.5 + f64::from(station % 100) * 0.0625);
                component["time_zone"] = json!("Europe/Berlin");
                component["attributes"] = json!({ "address": format!("Road {}", station + 1) });
            }
            1 | 2 => component["parent"] = json!(id(station, place - 1)),
            _ => component["parent"] = json!(id(station, 2)),
        }
        component
    })
}

/// The devices of a station, in the order of their places.
fn devices(station: u32) -> impl Iterator<Item = Value> {
    (0..DEVICES).map(move |number| {
        json!({
            "device": format!("lt-{:06}", station * DEVICES + number),
            "component": id(station, number + 1),
            "expected_interval": INTERVAL,
            "series": [{ "metric": "current", "unit": "A" }, { "metric": "voltage", "unit": "V" }],
        })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_different_and_in_the_order_of_the_stations() {
        let ids: Vec<String> = (0..3)
            .flat_map(|station| (0..11).map(move |place| id(station, place)))
            .collect();
        assert!(ids.is_sorted());
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 33);
        assert_eq!(ids[0], "019b76da-a800-7000-8000-000000000000");
    }

    #[test]
    fn each_device_is_at_a_component_of_its_station() {
        let parents: Vec<Value> = components(7).map(|mut it| it["parent"].take()).collect();
        let ids: Vec<Value> = components(7).map(|mut it| it["id"].take()).collect();
        assert_eq!(parents[0], Value::Null);
        assert_eq!(
            parents[1..4],
            [ids[0].clone(), ids[1].clone(), ids[2].clone()]
        );
        assert!(parents[3..].iter().all(|parent| *parent == ids[2]));
        let devices: Vec<Value> = devices(7).collect();
        assert_eq!((ids.len(), devices.len()), (11, 10));
        assert_eq!(devices[0]["device"], "lt-000070");
        for (device, id) in devices.iter().zip(&ids[1..]) {
            assert_eq!(device["component"], *id);
        }
    }
}
