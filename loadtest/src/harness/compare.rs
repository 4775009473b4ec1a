//! Comparison: whether one set of runs is worse than another, beyond the noise.
//!
//! In: reports or matrices of both sides, each of one run or of repeated runs. Out: each figure of
//! both sides with the change, the noise, and whether it is worse. A side without a report is an
//! error. The noise of a figure is the spread of the base's runs, so an unsteady new side does not
//! hide a regression. If the base has one run only, a noise is assumed.

mod figures;

use std::path::Path;

use anyhow::ensure;
use serde::Serialize;

use self::figures::{Figure, SideRun, read};
use crate::statistics::median;

/// Changes up to this share are never a regression.
const MIN_CHANGE: f64 = 0.05;

/// A figure of both sides.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// Name of the figure.
    pub figure: String,
    /// The median of the base.
    pub base: f64,
    /// The median of the new side.
    pub new: f64,
    /// The change as a share of the base: above 0 it is better, below 0 it is worse.
    pub better: f64,
    /// The spread of the base's runs, as a share of their median.
    pub noise: f64,
    /// Whether it is worse by more than the noise.
    pub is_regression: bool,
}

/// The result of a comparison.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Comparison {
    /// Each figure that both sides have.
    pub changes: Vec<Change>,
    /// Figures that only the base has, which cannot be compared.
    pub missing: Vec<String>,
    /// Reasons why the sides may not be comparable.
    pub warnings: Vec<String>,
}

/// Compares two sides. Each is a report, a matrix, a directory of one, or a directory of such
/// directories.
///
/// # Errors
/// A side has no report and no matrix, or the sides have no figure in common.
pub fn compare(base: &Path, new: &Path) -> anyhow::Result<Comparison> {
    let (base, new) = (read(base)?, read(new)?);
    let mut comparison = Comparison::default();
    let mut figures: Vec<&Figure> = Vec::new();
    for figure in base.iter().flat_map(|run| &run.figures) {
        if figures.iter().all(|known| known.name != figure.name) {
            figures.push(figure);
        }
    }
    for figure in figures {
        let (before, after) = (values(&base, &figure.name), values(&new, &figure.name));
        if after.len() < new.len() {
            comparison.missing.push(figure.name.clone());
        } else {
            comparison.changes.push(change(figure, &before, &after));
        }
    }
    ensure!(
        !comparison.changes.is_empty(),
        "the base and the new side have no figure in common, so there is nothing to compare"
    );
    let first = &base[0].description;
    for run in base.iter().chain(&new) {
        let warning = format!(
            "not every run is of the same load on the same machine, so the figures may not be \
             comparable: the first is {first}; another is {}",
            run.description
        );
        if run.description != *first && !comparison.warnings.contains(&warning) {
            comparison.warnings.push(warning);
        }
    }
    if base.iter().chain(&new).any(|run| run.is_interrupted) {
        let warning = "at least one of the runs was ended early".to_owned();
        comparison.warnings.push(warning);
    }
    Ok(comparison)
}

/// The values of a figure, from each run that has it.
fn values(side: &[SideRun], name: &str) -> Vec<f64> {
    let figures = side.iter().filter_map(|run| {
        let mut figures = run.figures.iter();
        figures.find(|figure| figure.name == name)
    });
    figures.map(|figure| figure.value).collect()
}

fn change(figure: &Figure, before: &[f64], after: &[f64]) -> Change {
    let summary = |values: &[f64]| {
        if figure.is_by_worst {
            values.iter().copied().fold(0.0, f64::max)
        } else {
            median(values)
        }
    };
    let (base, new) = (summary(before), summary(after));
    let noise = if figure.is_by_worst {
        0.0
    } else {
        spread(before).unwrap_or(figure.assumed_noise)
    };
    let difference = if figure.is_rate {
        new - base
    } else {
        base - new
    };
    let better = if base > 0.0 {
        difference / base
    } else {
        difference.signum() * f64::from(difference != 0.0)
    };
    Change {
        figure: figure.name.clone(),
        base,
        new,
        better,
        noise,
        is_regression: better < -noise.max(MIN_CHANGE) && difference.abs() > figure.min_difference,
    }
}

/// The difference between the largest and the smallest value, as a share of the median; none for a
/// single value.
fn spread(values: &[f64]) -> Option<f64> {
    let (min, max) = values
        .iter()
        .fold((f64::MAX, f64::MIN), |(min, max), &value| {
            (min.min(value), max.max(value))
        });
    let median = median(values);
    (values.len() > 1).then(|| {
        if median > 0.0 {
            (max - min) / median
        } else {
            0.0
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_regression(is_rate: bool, is_by_worst: bool, before: &[f64], after: &[f64]) -> bool {
        let figure = Figure {
            name: "x".into(),
            value: 0.0,
            is_rate,
            min_difference: 0.0,
            assumed_noise: figures::ONE_RUN,
            is_by_worst,
        };
        change(&figure, before, after).is_regression
    }

    #[test]
    fn a_lower_rate_is_a_regression_beyond_the_noise_of_the_base() {
        let rate = |before: &[f64], after: &[f64]| is_regression(true, false, before, after);
        assert!(rate(&[100.0, 101.0, 99.0], &[90.0, 91.0, 89.0]));
        assert!(!rate(&[100.0, 101.0, 99.0], &[97.0, 97.0, 97.0]));
        assert!(!rate(&[100.0, 101.0, 99.0], &[150.0, 150.0, 150.0]));
        // A noisy base hides the same change, and so does a single run; a noisy new side does not.
        assert!(!rate(&[100.0, 120.0, 90.0], &[90.0, 91.0, 89.0]));
        assert!(!rate(&[100.0], &[90.0]) && rate(&[100.0], &[80.0]));
        assert!(rate(&[100.0, 101.0, 99.0], &[50.0, 50.0, 100.0]));
    }

    #[test]
    fn a_higher_latency_is_a_regression_and_a_single_error_is_too() {
        let latency = |before: &[f64], after: &[f64]| is_regression(false, false, before, after);
        assert!(latency(&[1.0, 1.0], &[1.2, 1.2]) && !latency(&[1.2, 1.2], &[1.0, 1.0]));
        let errors = |before: &[f64], after: &[f64]| is_regression(false, true, before, after);
        assert!(errors(&[0.0, 0.0, 0.0], &[0.0, 0.0, 5.0]) && !errors(&[0.0], &[0.0]));
    }
}
