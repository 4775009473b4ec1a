//! `gridwatch devices`: the registry, from the command line.

use std::io::Write as _;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use schema::reading::check_names;
use service::postgres::words;

use crate::Usage;
use crate::config::{Devices, DevicesCommand};
use crate::migrate::connect;

/// Longest statement.
const STATEMENT: Duration = Duration::from_secs(60);

const ADD: &str = "
    WITH added AS (
        INSERT INTO device (external_id) SELECT DISTINCT unnest($1::text[])
        ON CONFLICT (external_id) DO UPDATE SET external_id = excluded.external_id
        RETURNING id)
    INSERT INTO series (device_id, metric, unit)
    SELECT id, metric, unit FROM added CROSS JOIN unnest($2::text[], $3::text[]) AS given (metric, unit)
    ON CONFLICT (device_id, metric) DO UPDATE SET unit = coalesce(excluded.unit, series.unit)";

const LIST: &str = "
    SELECT external_id, active,
           coalesce(string_agg(metric || coalesce(' [' || unit || ']', ''), ', ' ORDER BY metric), '-')
    FROM device LEFT JOIN series ON device_id = device.id
    GROUP BY device.id ORDER BY external_id";

/// Runs the command.
pub async fn run(arguments: Devices) -> anyhow::Result<()> {
    match arguments.command {
        DevicesCommand::Add {
            database,
            devices,
            metrics,
        } => {
            let database = database.parse("gridwatch devices", STATEMENT)?;
            let (names, units): (Vec<&str>, Vec<Option<&str>>) = metrics
                .iter()
                .map(|metric| {
                    metric
                        .split_once(':')
                        .map_or((metric.as_str(), None), |(name, unit)| (name, Some(unit)))
                })
                .unzip();
            for (device, metric) in devices
                .iter()
                .flat_map(|device| names.iter().map(move |metric| (device, metric)))
            {
                check_names(device, metric).map_err(|rejection| {
                    Usage(format!("device '{device}', metric '{metric}': {rejection}"))
                })?;
            }
            let client = connect(&database).await?;
            let series = client
                .execute(ADD, &[&devices, &names, &units])
                .await
                .map_err(|error| {
                    anyhow::anyhow!("the devices were not registered: {}", words(&error))
                })?;
            println!(
                "{} devices with {series} series are registered",
                devices.len()
            );
        }
        DevicesCommand::List { database } => {
            let database = database.parse("gridwatch devices", STATEMENT)?;
            let client = connect(&database).await?;
            let failed =
                |error: tokio_postgres::Error| anyhow::anyhow!("cannot list: {}", words(&error));
            let mut rows = std::pin::pin!(
                client
                    .query_raw(LIST, [] as [&str; 0])
                    .await
                    .map_err(failed)?
            );
            let mut out = std::io::stdout().lock();
            writeln!(out, "{:<40} {:<8} METRICS", "DEVICE", "ACTIVE")?;
            while let Some(row) = rows.try_next().await.map_err(failed)? {
                let (device, active, metrics): (String, bool, String) =
                    (row.get(0), row.get(1), row.get(2));
                writeln!(
                    out,
                    "{device:<40} {:<8} {metrics}",
                    if active { "yes" } else { "no" }
                )?;
            }
        }
    }
    Ok(())
}
