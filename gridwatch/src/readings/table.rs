//! Readings as a table.

use serde_json::Value;

use super::{Series, columns, local, time, title};
use crate::config::Readings;

/// What is printed for a bucket without a value.
const NOTHING: &str = "-";

/// The lines of a table: the name of the series, a header, and a line for each point.
pub(super) fn lines(series: &Series, arguments: &Readings) -> Vec<String> {
    let mut names = columns(series, arguments);
    if series
        .points
        .iter()
        .any(|point| point.contains_key("count"))
    {
        names.insert(0, "count".into());
    }
    let mut rows = vec![vec!["TIME".to_owned()]];
    rows[0].extend(names.iter().map(|name| name.to_uppercase()));
    for point in &series.points {
        let cell = |name: &String| match point.get(name) {
            None | Some(Value::Null) => NOTHING.to_owned(),
            Some(value) => value.to_string(),
        };
        let mut row = vec![local(time(point), arguments)];
        row.extend(names.iter().map(cell));
        rows.push(row);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max();
    let widths: Vec<usize> = (0..=names.len())
        .map(|column| width(column).unwrap_or_default())
        .collect();
    let line = |row: &Vec<String>| {
        let mut line = format!("{:<width$}", row[0], width = widths[0]);
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            line.push_str(&format!("  {cell:>width$}"));
        }
        line
    };
    let mut lines = vec![title(series)];
    lines.extend(rows.iter().map(line));
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::readings::plot::tests::arguments;

    #[test]
    fn buckets_are_lines_with_their_aggregates_in_the_order_of_the_request() {
        let series: Series = serde_json::from_value(json!({
            "device": "m", "metric": "p", "unit": "W", "points": [
                {"start": "2026-01-01T00:00:00Z", "end": "2026-01-01T00:15:00Z", "count": 2,
                 "max": 12.5, "min": 1.0},
                {"start": "2026-01-01T00:15:00Z", "end": "2026-01-01T00:30:00Z", "count": 0,
                 "max": null, "min": null},
            ]
        }))
        .unwrap();
        let flags = ["--aggregates", "min,max", "--time-zone", "Europe/Berlin"];
        let expected = [
            "m  p [W]",
            "TIME                       COUNT  MIN   MAX",
            "2026-01-01 01:00:00+01:00      2  1.0  12.5",
            "2026-01-01 01:15:00+01:00      0    -     -",
        ];
        assert_eq!(lines(&series, &arguments(&flags)), expected);
    }
}
