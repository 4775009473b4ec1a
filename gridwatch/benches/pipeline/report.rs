//! The figures of the benchmark, as JSON and as a table.

use loadtest::statistics::median;
use serde::Serialize;

use crate::servers::Cpu;

/// One comparison: the rates of its rounds, and the median of their ratios.
#[derive(Debug, Serialize)]
pub(crate) struct Comparison {
    pub what: &'static str,
    pub unit: &'static str,
    pub limit: Vec<f64>,
    pub gridwatch: Vec<f64>,
    pub ratio: f64,
    pub goal: f64,
}

impl Comparison {
    pub(crate) fn new(what: &'static str, unit: &'static str, goal: f64) -> Self {
        Self {
            what,
            unit,
            limit: Vec::new(),
            gridwatch: Vec::new(),
            ratio: 0.0,
            goal,
        }
    }

    /// Adds the two rates of a round, and prints them.
    pub(crate) fn add_round(&mut self, limit: f64, gridwatch: f64) {
        println!(
            "  {}: limit {limit:.0} {}, gridwatch {gridwatch:.0}, ratio {:.2}",
            self.what,
            self.unit,
            gridwatch / limit
        );
        self.limit.push(limit);
        self.gridwatch.push(gridwatch);
        let rounds = self.limit.iter().zip(&self.gridwatch);
        let ratios: Vec<f64> = rounds.map(|(limit, gridwatch)| gridwatch / limit).collect();
        self.ratio = median(&ratios);
    }
}

/// More readings than the pipeline carries.
#[derive(Debug, Serialize)]
pub(crate) struct Overload {
    pub seconds: u64,
    pub offered_per_second: f64,
    /// Accepted readings.
    pub accepted: u64,
    /// Readings of requests that got 503.
    pub refused: u64,
    pub front_end_peak_mib: f64,
    pub worker_peak_mib: f64,
    /// Median of the last third minus median of the middle third.
    pub front_end_growth_mib: f64,
    pub worker_growth_mib: f64,
}

/// All figures of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub machine: String,
    pub unix_time: u64,
    pub end_to_end: Comparison,
    /// With 64 connections and a worker.
    pub singles: Comparison,
    /// The same while no worker empties the queue: front end and broker alone.
    pub singles_queued_only: Comparison,
    /// With many connections and a worker.
    pub singles_many: Comparison,
    pub singles_p50_ms: f64,
    pub singles_p99_ms: f64,
    pub cpu_seconds_per_million_readings: Cpu,
    pub overload: Overload,
}

impl Report {
    pub(crate) fn print(&self) {
        println!("\n{}", self.machine);
        println!(
            "{:<50} {:>12} {:>12} {:>7} {:>6}",
            "", "limit", "gridwatch", "ratio", "goal"
        );
        for comparison in [
            &self.end_to_end,
            &self.singles,
            &self.singles_queued_only,
            &self.singles_many,
        ] {
            let what = format!("{} ({})", comparison.what, comparison.unit);
            println!(
                "{what:<50} {:>12.0} {:>12.0} {:>7.2} {:>6.2}",
                median(&comparison.limit),
                median(&comparison.gridwatch),
                comparison.ratio,
                comparison.goal
            );
        }
        println!(
            "latency of single readings: p50 {:.1} ms, p99 {:.1} ms",
            self.singles_p50_ms, self.singles_p99_ms
        );
        let cpu = &self.cpu_seconds_per_million_readings;
        println!(
            "CPU-seconds per million readings, end to end: front end {:.2}, broker {:.2}, \
             worker {:.2}, PostgreSQL {:.2}",
            cpu.front_end, cpu.broker, cpu.worker, cpu.postgresql
        );
        let overload = &self.overload;
        println!(
            "overload: {} readings accepted, {} refused with 503",
            overload.accepted, overload.refused
        );
        println!(
            "peak memory under overload: front end {:.0} MiB, worker {:.0} MiB",
            overload.front_end_peak_mib, overload.worker_peak_mib
        );
        println!(
            "growth of memory from the middle third to the last third: front end {:.1} MiB, \
             worker {:.1} MiB",
            overload.front_end_growth_mib, overload.worker_growth_mib
        );
    }
}
