//! The progress of a run on standard error: a progress bar on a terminal, otherwise a line every
//! five seconds.
//!
//! In: rows of the report. Out: text. Nothing can fail.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::harness::report::Row;
use crate::plural::plural;
use crate::recorder::Counts;

/// Seconds between two lines if there is no terminal.
const LINE_INTERVAL: f64 = 5.0;

/// See the module.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    seconds: f64,
    last_line: f64,
    is_quiet: bool,
}

impl Progress {
    /// The progress of a run with this duration.
    pub fn new(duration: Duration) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:30} {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(duration.as_millis() as u64).with_style(style)
        });
        Self {
            bar,
            seconds: duration.as_secs_f64(),
            last_line: 0.0,
            is_quiet: false,
        }
    }

    /// No output.
    pub fn quiet() -> Self {
        Self {
            bar: None,
            seconds: 0.0,
            last_line: 0.0,
            is_quiet: true,
        }
    }

    /// Shows a row of the report and the counts so far.
    pub(crate) fn row(&mut self, row: &Row, counts: &Counts, is_stopping: bool) {
        let backlog = row
            .backlog
            .map_or_else(String::new, |backlog| format!("  backlog {backlog:.0}"));
        let stopping = if is_stopping { "  stopping" } else { "" };
        let times = row.latency_ms.map_or_else(
            || "no latencies yet".to_owned(),
            |times| {
                format!(
                    "p50 {:.1} ms  p99 {:.1} ms  max {:.0} ms",
                    times.p50, times.p99, times.max
                )
            },
        );
        let text = format!(
            "{:>4.0}/{:.0} s  {:>9.0} readings/s  {times}  failed {}  late {}{backlog}{stopping}",
            row.at,
            self.seconds,
            row.accepted_per_second,
            counts.errors,
            counts.late + counts.dropped,
        );
        match &self.bar {
            Some(bar) => {
                bar.set_position((row.at * 1e3) as u64);
                bar.set_message(text);
            }
            None if !self.is_quiet && (row.at - self.last_line >= LINE_INTERVAL || is_stopping) => {
                self.last_line = row.at;
                // Nobody may read standard error any more; the run goes on.
                let _ = writeln!(std::io::stderr(), "{text}");
            }
            None => {}
        }
    }

    /// Shows that everything is sent, and how many readings are not stored yet; none if a process
    /// does not respond.
    pub(crate) fn draining(&mut self, backlog: Option<f64>) {
        if let Some(bar) = &self.bar {
            let backlog = backlog.map_or_else(
                || "a process does not respond".to_owned(),
                |backlog| format!("not stored yet: {}", plural(backlog as u64, "reading")),
            );
            bar.set_message(format!("all requests are sent; {backlog}"));
        }
    }

    /// Removes the progress bar.
    pub fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
