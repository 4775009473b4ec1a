//! Rows that are devices. A row may have `series`: a list of `{"metric", "unit", "kind",
//! "rollover"}`, or in CSV `metric:unit;metric:unit`.

use std::collections::HashSet;

use serde_json::{Map, Value, json};
use service::{ApiError, FieldError};

use super::super::definition::{DEVICE, SERIES};
use super::super::fields::{self, error};
use super::Row;

/// Upper bound on the series of a device.
const MAX_SERIES: usize = 1_000;

pub(super) const SERIES_FIELD: &str = "series";
pub(super) const MORE_FIELDS: &[&str] = &[SERIES_FIELD];

/// A device with every field, and its series.
pub(super) fn read(_line: usize, row: Value) -> Row {
    let mut map = fields::object(row).map_err(ApiError::InvalidBody)?;
    let series = map.remove(SERIES_FIELD).unwrap_or(Value::Null);
    let mut errors = Vec::new();
    let series = series_list(series, &mut errors);
    match DEVICE.read(map, &[]) {
        Ok(mut device) if errors.is_empty() => {
            let name = device["device"].as_str().unwrap_or_default().to_owned();
            device.insert(SERIES_FIELD.into(), Value::Array(series));
            Ok((name, Value::Object(device)))
        }
        Ok(_) => Err(ApiError::InvalidBody(errors)),
        Err(own) => {
            let errors = own.into_iter().chain(errors).collect();
            Err(ApiError::InvalidBody(errors))
        }
    }
}

/// The series of a cell.
pub(super) fn series_cell(text: &str) -> Value {
    let series = text.split(';').map(str::trim);
    let series = series.filter(|part| !part.is_empty());
    // One more than a device may have, which is then an error.
    series
        .take(MAX_SERIES + 1)
        .map(|part| match part.split_once(':') {
            Some((metric, unit)) => json!({ "metric": metric.trim(), "unit": unit.trim() }),
            None => json!({ "metric": part }),
        })
        .collect()
}

fn series_list(series: Value, errors: &mut Vec<FieldError>) -> Vec<Value> {
    let items = match series {
        Value::Null => return Vec::new(),
        Value::Array(items) if items.len() <= MAX_SERIES => items,
        other => {
            let value = fields::shorten(&other);
            let reason = format!("{value} is not a list of at most {MAX_SERIES} series");
            errors.push(error("/series", reason));
            return Vec::new();
        }
    };
    let mut list: Vec<Value> = Vec::with_capacity(items.len());
    // At most MAX_SERIES names.
    let mut metrics = HashSet::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let read = fields::object(item).and_then(|map: Map<String, Value>| SERIES.read(map, &[]));
        match read {
            Ok(series) if !metrics.insert(series["metric"].to_string()) => {
                let pointer = format!("/series/{index}/metric");
                errors.push(error(pointer, "this metric is listed twice"));
            }
            Ok(series) => list.push(Value::Object(series)),
            Err(own) => errors.extend(own.into_iter().map(|own| FieldError {
                pointer: format!("/series/{index}{}", own.pointer),
                ..own
            })),
        }
    }
    list
}
