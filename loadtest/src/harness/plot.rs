//! Plots as SVG, for a page that loads nothing from the network.
//!
//! In: points. Out: SVG and HTML. Names are escaped; values that are not finite are left out.

use std::fmt::Write as _;

use crate::plural::with_separators;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 240.0;
/// Space for the axes: left, right, top, bottom.
const MARGIN: (f64, f64, f64, f64) = (70.0, 20.0, 12.0, 36.0);
/// Colours that people with colour vision deficiency can distinguish (Okabe and Ito, 2008).
const COLOURS: [&str; 6] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9",
];

/// A line of a plot.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// The name in the legend.
    pub(crate) name: String,
    /// Points from left to right.
    pub(crate) points: Vec<(f64, f64)>,
}

/// The axes of a plot.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Axes<'a> {
    /// Label of the horizontal axis.
    pub(crate) x: &'a str,
    /// Label of the vertical axis.
    pub(crate) y: &'a str,
    /// Whether the vertical axis is logarithmic.
    pub(crate) is_log: bool,
    /// Labels at positions of the horizontal axis, instead of numbers.
    pub(crate) ticks: &'a [(f64, &'a str)],
}

/// Escapes text for HTML.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// Formats a number with three or more significant digits: 1,234,567, 12.3, 0.0120.
pub fn format_number(value: f64) -> String {
    if value.is_nan() {
        return "–".into();
    }
    let size = value.abs();
    if size >= 1_000.0 {
        let sign = if value < 0.0 { "-" } else { "" };
        return format!("{sign}{}", with_separators(size.round() as u64));
    }
    match size {
        _ if value.fract() == 0.0 => format!("{value:.0}"),
        _ if size >= 100.0 => format!("{value:.0}"),
        _ if size >= 10.0 => format!("{value:.1}"),
        _ if size >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// A step of 1, 2 or 5 times a power of ten that divides `range` into about five parts.
fn tick_step(range: f64) -> f64 {
    let rough = (range / 5.0).max(f64::MIN_POSITIVE);
    let power = 10_f64.powf(rough.log10().floor());
    let digit = rough / power;
    power
        * if digit > 5.0 {
            10.0
        } else if digit > 2.0 {
            5.0
        } else if digit > 1.0 {
            2.0
        } else {
            1.0
        }
}

/// A plot of lines with common axes, and its legend.
pub(crate) fn lines(axes: Axes<'_>, lines: &[Line]) -> String {
    let is_drawn = |value: &f64| value.is_finite() && (!axes.is_log || *value > 0.0);
    let points = || {
        lines
            .iter()
            .flat_map(|line| &line.points)
            .filter(|(_, y)| is_drawn(y))
    };
    let (mut left, mut right, mut low, mut high) = (f64::MAX, f64::MIN, f64::MAX, f64::MIN);
    for &(x, y) in points() {
        (left, right, low, high) = (left.min(x), right.max(x), low.min(y), high.max(y));
    }
    if left > right {
        return "<p>no data</p>".into();
    }
    right = right.max(left + 1e-9);
    let scale = |y: f64| if axes.is_log { y.log10() } else { y };
    let (bottom, top) = if axes.is_log {
        (
            low.log10().floor(),
            high.log10().ceil().max(low.log10().floor() + 1.0),
        )
    } else {
        (0.0, high.max(1e-9) * 1.05)
    };
    let (margin_left, margin_right, margin_top, margin_bottom) = MARGIN;
    let at_x =
        |x: f64| margin_left + (x - left) / (right - left) * (WIDTH - margin_left - margin_right);
    let at_y = |y: f64| {
        HEIGHT
            - margin_bottom
            - (scale(y) - bottom) / (top - bottom) * (HEIGHT - margin_top - margin_bottom)
    };
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
        escape(axes.y)
    );
    let mut y_ticks = Vec::new();
    if axes.is_log {
        let mut power = bottom;
        while power <= top + 1e-9 {
            y_ticks.push(10_f64.powf(power));
            power += 1.0;
        }
    } else {
        let step = tick_step(top);
        let mut tick = 0.0;
        while tick <= top {
            y_ticks.push(tick);
            tick += step;
        }
    }
    for tick in y_ticks {
        let y = at_y(tick);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{margin_left}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - margin_right,
            margin_left - 6.0,
            y + 4.0,
            format_number(tick)
        );
    }
    let mut x_ticks: Vec<(f64, String)> = axes
        .ticks
        .iter()
        .map(|&(x, name)| (x, name.to_owned()))
        .collect();
    if x_ticks.is_empty() {
        let step = tick_step(right - left);
        let mut tick = (left / step).ceil() * step;
        while tick <= right + 1e-9 {
            x_ticks.push((tick, format_number(tick)));
            tick += step;
        }
    }
    for (x, name) in x_ticks.iter().filter(|(x, _)| (left..=right).contains(x)) {
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            at_x(*x),
            HEIGHT - margin_bottom + 16.0,
            escape(name)
        );
    }
    let _ = write!(
        svg,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
        (margin_left + WIDTH - margin_right) / 2.0,
        HEIGHT - 4.0,
        escape(axes.x)
    );
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let positions: Vec<String> = line
            .points
            .iter()
            .filter(|(_, y)| is_drawn(y))
            .map(|&(x, y)| format!("{:.1},{:.1}", at_x(x), at_y(y)))
            .collect();
        let _ = write!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>",
            positions.join(" ")
        );
    }
    svg.push_str("</svg>");
    svg + &legend(lines.iter().map(|line| line.name.as_str()))
}

/// A bar chart; it is also valid as a file of its own.
pub(crate) fn bars(unit: &str, bars: &[(String, f64)]) -> String {
    let bars: Vec<_> = bars
        .iter()
        .map(|(name, value)| (name.clone(), vec![*value]))
        .collect();
    stacked(unit, &bars)
}

/// A chart of stacked bars, and its legend.
pub(crate) fn stacks(unit: &str, parts: &[&str], bars: &[(String, Vec<f64>)]) -> String {
    stacked(unit, bars) + &legend(parts.iter().copied())
}

fn stacked(unit: &str, bars: &[(String, Vec<f64>)]) -> String {
    let largest = bars
        .iter()
        .map(|(_, values)| values.iter().sum::<f64>())
        .fold(1e-9, f64::max);
    let (left, row) = (200.0, 26.0);
    let height = bars.len() as f64 * row + 6.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" font-family=\"sans-serif\" font-size=\"11\" \
         viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">",
        escape(unit)
    );
    for (at, (name, values)) in bars.iter().enumerate() {
        let y = at as f64 * row + 4.0;
        let _ = write!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            left - 8.0,
            y + 14.0,
            escape(name)
        );
        let mut x = left;
        for (value, colour) in values.iter().zip(COLOURS.iter().cycle()) {
            let width = value / largest * (WIDTH - left - 110.0);
            let _ = write!(
                svg,
                "<rect x=\"{x:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"18\" \
                 fill=\"{colour}\"/>"
            );
            x += width;
        }
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\">{} {}</text>",
            x + 6.0,
            y + 14.0,
            format_number(values.iter().sum()),
            escape(unit)
        );
    }
    svg + "</svg>"
}

fn legend<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut out = String::from("<p class=\"legend\">");
    for (name, colour) in names.zip(COLOURS.iter().cycle()) {
        let _ = write!(
            out,
            "<span><i style=\"background:{colour}\"></i>{}</span>",
            escape(name)
        );
    }
    out + "</p>"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_significant_digits_and_thousands_separators() {
        let formatted = [
            0.0,
            0.012,
            1.5,
            12.34,
            123.4,
            1_234.0,
            1_234_567.0,
            -4_000.0,
        ]
        .map(format_number);
        assert_eq!(
            formatted,
            [
                "0",
                "0.0120",
                "1.50",
                "12.3",
                "123",
                "1,234",
                "1,234,567",
                "-4,000"
            ]
        );
    }

    #[test]
    fn special_names_and_values_do_not_break_a_page() {
        let line = Line {
            name: "<script>".into(),
            points: vec![(0.0, f64::NAN), (1.0, f64::INFINITY), (2.0, 3.0)],
        };
        let svg = lines(
            Axes {
                x: "a",
                y: "b",
                ..Axes::default()
            },
            &[line],
        );
        assert!(
            !svg.contains("<script>") && !svg.contains("NaN") && !svg.contains("inf"),
            "{svg}"
        );
        assert!(lines(Axes::default(), &[]).contains("no data"));
    }
}
