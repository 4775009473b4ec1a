//! The figures of the benchmark, as JSON and as a table.

use serde::Serialize;

/// The spool with payloads of one size; medians of the rounds.
#[derive(Debug, Serialize)]
pub(crate) struct Appends {
    pub payload_bytes: usize,
    /// Appends per sync.
    pub group: f64,
    pub limit_per_second: f64,
    pub spool_per_second: f64,
    pub spool_mb_per_second: f64,
    pub ratio: f64,
    pub goal: f64,
}

/// A front end with a spool, whose broker is unavailable for some seconds.
#[derive(Debug, Serialize)]
pub(crate) struct Outage {
    pub readings_per_second: f64,
    /// How long the broker was unavailable.
    #[serde(rename = "away_seconds")]
    pub seconds: f64,
    /// Accepted readings.
    pub accepted: u64,
    /// Readings of requests that got 503.
    pub refused: u64,
    /// Rows in the table.
    pub stored: i64,
    pub p99_ms: f64,
    pub worst_ms: f64,
    /// Readings that went through the spool.
    pub spooled: f64,
    /// From the return of the broker until the spool is empty and the front end is ready.
    pub drain_seconds: f64,
}

/// All of Gridwatch in one process.
#[derive(Debug, Serialize)]
pub(crate) struct Standalone {
    /// Readings stored per second.
    pub readings_per_second: f64,
    pub accepted_per_second: f64,
    /// Time until it is ready, on an empty directory.
    pub first_start_ms: f64,
    /// Time until it is ready, on the directory with all readings.
    pub start_ms: f64,
    pub binary_mb: f64,
}

/// All figures of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub appends: Vec<Appends>,
    pub outage: Outage,
    pub standalone: Standalone,
}

impl Report {
    pub(crate) fn print(&self) {
        println!(
            "\n{:<28} {:>10} {:>10} {:>9} {:>7} {:>6}",
            "spool, appends/s", "limit", "spool", "MB/s", "ratio", "goal"
        );
        for appends in &self.appends {
            println!(
                "{:<28} {:>10.0} {:>10.0} {:>9.1} {:>7.2} {:>6.2}",
                format!(
                    "{} bytes, {:.0} per sync",
                    appends.payload_bytes, appends.group
                ),
                appends.limit_per_second,
                appends.spool_per_second,
                appends.spool_mb_per_second,
                appends.ratio,
                appends.goal
            );
        }
        let Outage {
            readings_per_second,
            seconds,
            accepted,
            refused,
            stored,
            p99_ms,
            worst_ms,
            spooled,
            drain_seconds,
        } = &self.outage;
        println!(
            "broker unavailable for {seconds:.1} s at {readings_per_second:.0} readings/s: \
             {accepted} readings accepted, {refused} refused with 503, {stored} stored"
        );
        println!(
            "  latency p99 {p99_ms:.0} ms, highest {worst_ms:.0} ms; {spooled:.0} readings went \
             through the spool, which was empty {drain_seconds:.1} s after the broker's return"
        );
        let Standalone {
            readings_per_second,
            accepted_per_second,
            first_start_ms,
            start_ms,
            binary_mb,
        } = &self.standalone;
        println!(
            "standalone: {readings_per_second:.0} readings/s stored, {accepted_per_second:.0} \
             readings/s accepted"
        );
        println!(
            "  ready after {first_start_ms:.0} ms on an empty directory, after {start_ms:.0} ms on \
             one with readings; the binary has {binary_mb:.0} MB"
        );
    }
}
