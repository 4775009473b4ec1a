//! `gridwatch devices`: the registry, from the command line.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::time::Duration;

use schema::reading::check_names;
use service::error_chain;
use store::registry::{self, NewSeries};

use crate::UsageError;
use crate::config::{DatabaseUrl, Devices, DevicesCommand};
use crate::migrate::connect;

/// The name in `pg_stat_activity`.
const NAME: &str = "gridwatch devices";
/// Upper bound on the time of a statement.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs the command.
pub(crate) async fn run(arguments: Devices) -> anyhow::Result<()> {
    match arguments.command {
        DevicesCommand::Add {
            database,
            devices,
            metrics,
        } => add(&database, &devices, &metrics).await,
        DevicesCommand::List { database } => list(&database).await,
    }
}

/// Registers every metric for every device. A metric is a name, or a name and a unit with a colon
/// in between.
async fn add(database: &DatabaseUrl, devices: &[String], metrics: &[String]) -> anyhow::Result<()> {
    let database = database.parse(NAME, STATEMENT_TIMEOUT)?;
    let mut series: BTreeMap<(&str, &str), Option<&str>> = BTreeMap::new();
    for device in devices {
        for metric in metrics {
            let (metric, unit) = match metric.split_once(':') {
                Some((metric, unit)) => (metric, Some(unit)),
                None => (metric.as_str(), None),
            };
            check_names(device, metric).map_err(|rejection| {
                UsageError(format!("device '{device}', metric '{metric}': {rejection}"))
            })?;
            let other = series.insert((device, metric), unit);
            if other.is_some_and(|other| other != unit) {
                let sentence = format!("metric '{metric}' is given with different units");
                return Err(UsageError(sentence).into());
            }
        }
    }
    let new_series = |(&(device, metric), &unit)| NewSeries {
        device,
        metric,
        unit,
    };
    let series: Vec<NewSeries<'_>> = series.iter().map(new_series).collect();
    let client = connect(&database).await?;
    registry::register(&client, &series)
        .await
        .map_err(|error| {
            let cause = error_chain(&error);
            anyhow::anyhow!("cannot register every device; retrying is safe: {cause}")
        })?;
    let devices: BTreeSet<&str> = series.iter().map(|series| series.device).collect();
    let (devices, series) = (devices.len(), series.len());
    println!("{devices} devices with {series} series are registered");
    Ok(())
}

async fn list(database: &DatabaseUrl) -> anyhow::Result<()> {
    let database = database.parse(NAME, STATEMENT_TIMEOUT)?;
    let client = connect(&database).await?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{:<40} {:<8} METRICS", "DEVICE", "ACTIVE")?;
    registry::list(&client, |device| {
        let active = if device.active { "yes" } else { "no" };
        writeln!(out, "{:<40} {active:<8} {}", device.name, device.metrics)
    })
    .await
    .map_err(|error| anyhow::anyhow!("cannot list: {}", error_chain(&error)))??;
    Ok(())
}
