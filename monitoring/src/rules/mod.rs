//! The recording rules and the alerts of Prometheus, and their tests.
//!
//! In: metrics. Out: the text of `gridwatch.yml`, and of `gridwatch.test.yml`, in which each alert
//! fires on its fault and no other does. Every alert has a section in `docs/runbook.md`.

pub mod alerts;
pub mod recorded;
mod series;
pub(crate) mod yaml;

/// The latency objective: this part of the readings is stored within [`OBJECTIVE_SECONDS`] of the
/// arrival of their request.
pub const OBJECTIVE: f64 = 0.999;
/// See [`OBJECTIVE`]. It is a bound of a bucket.
pub const OBJECTIVE_SECONDS: f64 = 5.0;

/// A recording rule.
#[derive(Debug, Clone)]
pub struct Recording {
    /// The name of the series that it writes.
    pub name: String,
    /// Its query.
    pub query: String,
}

/// Who is woken by an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Someone, now: devices are affected, or will be within hours.
    Page,
    /// Nobody: someone looks at it on the next working day.
    Ticket,
}

impl Severity {
    /// The label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Page => "page",
            Self::Ticket => "ticket",
        }
    }
}

/// An alert.
#[derive(Debug, Clone)]
pub struct Alert {
    /// Its name, and the heading of its section in the runbook.
    pub name: &'static str,
    /// Who is woken.
    pub severity: Severity,
    /// Its query; it fires for each series of the result.
    pub query: String,
    /// How long the query has a result before the alert fires.
    pub pending: &'static str,
    /// What is wrong, for a tired person. May use the labels of the series.
    pub summary: &'static str,
    /// The dashboard and the title of the panel that shows it.
    pub panel: (&'static str, &'static str),
    /// The labels of the series of the result, besides the deployment.
    pub labels: &'static [&'static str],
    /// What it is tested with.
    pub fault: Fault,
}

/// A fault, as the series of a test of a rule.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Series that replace those of a healthy deployment, one value a minute in the notation of
    /// `promtool`. The labels are as in `series.rs`.
    pub series: Vec<(String, String)>,
    /// When the alert fires.
    pub after: &'static str,
    /// The values of the labels of [`Alert::labels`], for each series that fires.
    pub fires: &'static [&'static [&'static str]],
    /// Other alerts that fire too, because the fault causes them.
    pub also: &'static [&'static str],
}
