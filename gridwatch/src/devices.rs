//! `gridwatch devices`: adds devices to the registry. [`crate::model`] lists and shows them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use schema::reading::check_names;
use service::quote::quote;
use store::registry::{self, AddError, NewSeries, UnitConflict};

use crate::UsageError;
use crate::config::{DatabaseUrl, Devices, DevicesCommand};
use crate::migrate::connect;
use crate::model;
use crate::output::summary;

/// The name in `pg_stat_activity`.
const NAME: &str = "gridwatch devices";
/// Upper bound on the time of a statement.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);
/// Upper bound on the series that an error lists.
const MAX_LISTED: usize = 20;

/// Runs the command.
pub(crate) async fn run(arguments: Devices) -> anyhow::Result<()> {
    match arguments.command {
        DevicesCommand::Add {
            database,
            devices,
            metrics,
        } => add(&database, &devices, &metrics).await,
        DevicesCommand::List(arguments) => model::devices::list(arguments).await,
        DevicesCommand::Show(arguments) => model::devices::show(arguments).await,
    }
}

/// Registers every metric for every device, or nothing.
async fn add(database: &DatabaseUrl, devices: &[String], metrics: &[String]) -> anyhow::Result<()> {
    let database = database.parse(NAME, STATEMENT_TIMEOUT)?;
    let metrics = parse_metrics(metrics)?;
    let devices: BTreeSet<&str> = devices.iter().map(String::as_str).collect();
    let mut series = Vec::new();
    for &device in &devices {
        for (&metric, &unit) in &metrics {
            check_names(device, metric).map_err(|error| {
                let (device, metric) = (quote(device), quote(metric));
                UsageError(format!("device {device}, metric {metric}: {error}"))
            })?;
            series.push(NewSeries {
                device,
                metric,
                unit,
            });
        }
    }
    let mut client = connect(&database).await?;
    let added = match registry::add(&mut client, &series).await {
        Ok(added) => added,
        Err(AddError::Failed(cause)) => {
            anyhow::bail!("nothing was registered in {database}: {cause}");
        }
        Err(AddError::Units(conflicts)) => anyhow::bail!(different_units(&conflicts)),
    };
    for (what, all, new) in [
        ("devices", devices.len(), added.devices),
        ("series", series.len(), added.series),
    ] {
        let existing = all as u64 - new;
        summary(format_args!(
            "{what}: {new} new, {existing} already registered"
        ))?;
    }
    if added.units > 0 {
        summary(format_args!(
            "units: {} set on series that had none",
            added.units
        ))?;
    }
    Ok(())
}

/// The metrics, each with its unit, if it has one. The unit is after the last colon.
fn parse_metrics(metrics: &[String]) -> Result<BTreeMap<&str, Option<&str>>, UsageError> {
    let mut parsed: BTreeMap<&str, Option<&str>> = BTreeMap::new();
    for text in metrics {
        let (metric, unit) = match text.rsplit_once(':') {
            Some((metric, "")) => (metric, None),
            Some((metric, unit)) => (metric, Some(unit)),
            None => (text.as_str(), None),
        };
        if unit.is_some_and(|unit| unit.chars().any(char::is_control)) {
            let sentence = format!("--metric {}: a unit has no control characters", quote(text));
            return Err(UsageError(sentence));
        }
        let other = parsed.insert(metric, unit);
        if let Some(other) = other.filter(|other| *other != unit) {
            let named = |unit: Option<&str>| unit.map_or("without a unit".into(), quote);
            return Err(UsageError(format!(
                "metric {} is given with different units: {} and {}",
                quote(metric),
                named(other),
                named(unit)
            )));
        }
    }
    Ok(parsed)
}

fn different_units(conflicts: &[UnitConflict]) -> String {
    let mut lines = vec![format!(
        "nothing was registered, because the stored unit of {} series is not the given one; \
         leave the unit out to keep the stored one",
        conflicts.len()
    )];
    for conflict in conflicts.iter().take(MAX_LISTED) {
        let (stored, given) = (quote(&conflict.stored), quote(&conflict.given));
        let (device, metric) = (quote(&conflict.device), quote(&conflict.metric));
        lines.push(format!(
            "  device {device}, metric {metric}: stored {stored}, given {given}"
        ));
    }
    if conflicts.len() > MAX_LISTED {
        lines.push(format!("  … and {} more", conflicts.len() - MAX_LISTED));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(metrics: &[&str]) -> Result<Vec<(String, Option<String>)>, String> {
        let metrics: Vec<String> = metrics.iter().map(ToString::to_string).collect();
        let parsed = parse_metrics(&metrics).map_err(|error| error.to_string())?;
        let owned = |(metric, unit): (&str, Option<&str>)| (metric.into(), unit.map(String::from));
        Ok(parsed.into_iter().map(owned).collect())
    }

    #[test]
    fn the_last_colon_separates_the_unit() {
        for (text, metric, unit) in [
            ("power", "power", None),
            ("power:W", "power", Some("W")),
            ("a:b:W", "a:b", Some("W")),
            ("a:b:", "a:b", None),
            ("power:", "power", None),
        ] {
            let expected = vec![(metric.to_owned(), unit.map(String::from))];
            assert_eq!(parse(&[text]), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_repeated_metric_is_one_and_two_units_are_an_error() {
        assert_eq!(parse(&["p:W", "p:W"]), parse(&["p:W"]));
        for (metrics, expected) in [
            (
                ["p:W", "p:kW"],
                "metric 'p' is given with different units: 'W' and 'kW'",
            ),
            (["p", "p:kW"], "different units: without a unit and 'kW'"),
            (["p:W", "q:\u{7}"], "a unit has no control characters"),
        ] {
            let error = parse(&metrics).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn different_units_are_listed_up_to_the_limit() {
        let conflict = UnitConflict {
            device: "meter-1".into(),
            metric: "power".into(),
            stored: "W".into(),
            given: "kW".into(),
        };
        let text = different_units(&vec![conflict; MAX_LISTED + 2]);
        assert!(text.contains("unit of 22 series"), "{text}");
        assert!(
            text.contains("'meter-1', metric 'power': stored 'W', given 'kW'"),
            "{text}"
        );
        assert!(text.ends_with("… and 2 more"), "{text}");
    }
}
