//! Readings as a line in the terminal, drawn with Braille characters: 2 × 4 dots each.

use jiff::Timestamp;
use serde_json::Value;

use super::{Series, columns, local, time, title};
use crate::config::Readings;

/// The dots of a character, by column and row.
const DOTS: [[u32; 4]; 2] = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]];
/// The character without dots.
const BLANK: u32 = 0x2800;
/// The smallest useful width of the area with dots.
const MIN_COLUMNS: usize = 20;

/// The lines of a plot of the first column with values: the name of the series, the area with the
/// range of values on its left, and the range of times below.
pub(super) fn lines(
    series: &Series,
    arguments: &Readings,
    columns_of_terminal: usize,
    rows: usize,
) -> Vec<String> {
    let name = columns(series, arguments).into_iter().next();
    let name = name.unwrap_or_else(|| "count".into());
    let instant = |text: &str| {
        text.parse::<Timestamp>()
            .map_or(0, Timestamp::as_microsecond)
    };
    let points: Vec<(i64, Option<f64>)> = series
        .points
        .iter()
        .map(|point| {
            let value = point.get(&name).and_then(Value::as_f64);
            (instant(time(point)), value)
        })
        .collect();
    let mut lines = vec![format!("{}  {name}", title(series))];
    let values = points.iter().filter_map(|(_, value)| *value);
    let (least, greatest) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |range, value| {
        (range.0.min(value), range.1.max(value))
    });
    if least > greatest {
        lines.push("there are no values".into());
        return lines;
    }
    let labels = [short(greatest), short(least)];
    let width = labels.iter().map(String::len).max().unwrap_or_default();
    let columns = columns_of_terminal
        .saturating_sub(width + 2)
        .max(MIN_COLUMNS);
    let area = draw(&points, least, greatest, columns, rows);
    for (index, row) in area.iter().enumerate() {
        let label = match index {
            0 => labels[0].as_str(),
            _ if index + 1 == rows => labels[1].as_str(),
            _ => "",
        };
        lines.push(format!("{label:>width$} │{row}").trim_end().to_owned());
    }
    let ends = [series.points.first(), series.points.last()];
    let [first, last] =
        ends.map(|point| point.map_or(String::new(), |p| local(time(p), arguments)));
    let gap = columns.saturating_sub(first.len() + last.len()).max(1);
    lines.push(format!("{:width$} └{}", "", "─".repeat(columns)));
    lines.push(format!("{:width$}  {first}{:gap$}{last}", "", ""));
    lines
}

/// A value as a label of the axis.
fn short(value: f64) -> String {
    let text = value.to_string();
    match text.len() <= 10 {
        true => text,
        false => format!("{value:.3e}"),
    }
}

/// Draws points of increasing time as lines of characters. A point without a value interrupts the
/// line.
fn draw(
    points: &[(i64, Option<f64>)],
    least: f64,
    greatest: f64,
    columns: usize,
    rows: usize,
) -> Vec<String> {
    let (width, height) = (columns * 2 - 1, rows * 4 - 1);
    let start = points.first().map_or(0, |(time, _)| *time);
    let end = points.last().map_or(0, |(time, _)| *time);
    let scale = |share: f64, length: usize| (share * length as f64).round() as usize;
    let place = |time: i64, value: f64| {
        let length = (end - start).max(1) as f64;
        let x = scale((time - start) as f64 / length, width);
        // Halves, because the difference of two finite numbers may be infinite.
        let range = greatest / 2.0 - least / 2.0;
        let share = match range > 0.0 {
            true => (value / 2.0 - least / 2.0) / range,
            false => 0.5,
        };
        (x, height - scale(share, height))
    };
    let mut dots = vec![vec![BLANK; columns]; rows];
    let mut set = |x: usize, y: usize| dots[y / 4][x / 2] |= DOTS[x % 2][y % 4];
    let mut last = None;
    for &(time, value) in points {
        let here = value.map(|value| place(time, value));
        if let Some(here) = here {
            for (x, y) in line(last.unwrap_or(here), here) {
                set(x, y);
            }
        }
        last = here;
    }
    let text = |row: Vec<u32>| row.into_iter().filter_map(char::from_u32).collect();
    dots.into_iter().map(text).collect()
}

/// The dots between two dots, with both.
fn line(from: (usize, usize), to: (usize, usize)) -> Vec<(usize, usize)> {
    let steps = to.0.abs_diff(from.0).max(to.1.abs_diff(from.1));
    let between = |a: usize, b: usize, step: usize| {
        let share = step as f64 / steps.max(1) as f64;
        (a as f64 + (b as f64 - a as f64) * share).round() as usize
    };
    (0..=steps)
        .map(|step| (between(from.0, to.0, step), between(from.1, to.1, step)))
        .collect()
}

#[cfg(test)]
pub(super) mod tests {
    use clap::Parser as _;
    use serde_json::json;

    use super::*;
    use crate::config::{Command, Settings};

    /// The arguments of the command with these flags.
    pub(crate) fn arguments(flags: &[&str]) -> Readings {
        let all = [&["gridwatch", "readings", "m"], flags].concat();
        match Settings::try_parse_from(all).unwrap().command {
            Command::Readings(readings) => readings,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_rising_line_goes_from_the_lower_left_to_the_upper_right() {
        let points: Vec<(i64, Option<f64>)> = (0..8).map(|n| (n, Some(n as f64))).collect();
        assert_eq!(draw(&points, 0.0, 7.0, 4, 2), ["⠀⠀⡠⠊", "⡠⠊⠀⠀"]);
    }

    #[test]
    fn a_missing_value_interrupts_the_line_and_one_value_is_a_dot() {
        let points = [(0, Some(1.0)), (1, None), (2, Some(1.0))];
        assert_eq!(draw(&points, 1.0, 1.0, 3, 1), ["⠂⠀⠐"]);
        assert_eq!(
            draw(&[(5, Some(f64::MAX))], f64::MAX, f64::MAX, 2, 1),
            ["⠂⠀"]
        );
        let extremes = [(0, Some(f64::MIN)), (1, Some(f64::MAX))];
        assert_eq!(draw(&extremes, f64::MIN, f64::MAX, 1, 1).len(), 1);
    }

    #[test]
    fn a_plot_has_the_ranges_of_values_and_times_and_fits_the_terminal() {
        let point = |n: i64| json!({ "time": format!("2026-01-01T00:00:0{n}Z"), "value": n });
        let points: Vec<Value> = (0..9).map(point).collect();
        let series = json!({ "device": "m", "metric": "p", "unit": null, "points": points });
        let series = serde_json::from_value(series).unwrap();
        let lines = lines(&series, &arguments(&["--plot"]), 80, 4);
        assert_eq!(lines[0], "m  p  value");
        assert!(
            lines[1].starts_with("8 │") && lines[4].starts_with("0 │"),
            "{lines:#?}"
        );
        let last = lines.last().unwrap();
        assert!(last.contains("2026-01-01 00:00:00+00:00"), "{last}");
        assert!(last.ends_with("2026-01-01 00:00:08+00:00"), "{last}");
        assert!(
            lines.iter().all(|line| line.chars().count() <= 80),
            "{lines:#?}"
        );
    }
}
