//! The figures of the benchmark, as JSON and as a table.

use loadtest::statistics::median;
use serde::Serialize;

/// What a figure should be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    /// At most this many times the limit.
    RatioAtMost(f64),
    /// At least this many times the limit.
    RatioAtLeast(f64),
    /// At most this much.
    AtMost(f64),
    /// There is none.
    None,
}

/// One figure: the values of its rounds, and the median of their ratios to the limit, if it has
/// one.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    pub what: String,
    pub unit: &'static str,
    /// What Gridwatch is compared with, round by round.
    pub limit: Vec<f64>,
    pub gridwatch: Vec<f64>,
    pub ratio: Option<f64>,
    pub goal: Goal,
}

impl Figure {
    /// A figure without values.
    pub(crate) fn new(what: impl Into<String>, unit: &'static str, goal: Goal) -> Self {
        Self {
            what: what.into(),
            unit,
            limit: Vec::new(),
            gridwatch: Vec::new(),
            ratio: None,
            goal,
        }
    }

    /// A figure with one value.
    pub(crate) fn of(what: impl Into<String>, unit: &'static str, goal: Goal, value: f64) -> Self {
        let mut figure = Self::new(what, unit, goal);
        figure.gridwatch.push(value);
        figure
    }

    /// Adds the values of a round.
    pub(crate) fn add_round(&mut self, limit: f64, gridwatch: f64) {
        self.limit.push(limit);
        self.gridwatch.push(gridwatch);
        let rounds = self.limit.iter().zip(&self.gridwatch);
        let ratios: Vec<f64> = rounds.map(|(limit, gridwatch)| gridwatch / limit).collect();
        self.ratio = Some(median(&ratios));
    }

    fn print(&self) {
        let limit = match self.limit.is_empty() {
            true => "–".to_owned(),
            false => format!("{:.2}", median(&self.limit)),
        };
        let ratio = self.ratio.map_or("–".into(), |ratio| format!("{ratio:.3}"));
        let value = median(&self.gridwatch);
        let (goal, is_met) = match self.goal {
            Goal::RatioAtMost(goal) => (format!("≤ {goal} x"), self.ratio <= Some(goal)),
            Goal::RatioAtLeast(goal) => (format!("≥ {goal} x"), self.ratio >= Some(goal)),
            Goal::AtMost(goal) => (format!("≤ {goal}"), value <= goal),
            Goal::None => ("–".into(), true),
        };
        println!(
            "{:<58} {limit:>11} {value:>11.2} {ratio:>7} {goal:>9} {}",
            format!("{} ({})", self.what, self.unit),
            if is_met { "" } else { "missed" }
        );
    }
}

/// All figures of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub machine: String,
    pub unix_time: u64,
    pub figures: Vec<Figure>,
}

impl Report {
    pub(crate) fn print(&self) {
        println!("\n{}", self.machine);
        println!(
            "{:<58} {:>11} {:>11} {:>7} {:>9}",
            "", "limit", "gridwatch", "ratio", "goal"
        );
        for figure in &self.figures {
            figure.print();
        }
    }
}
