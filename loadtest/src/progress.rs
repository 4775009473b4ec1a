//! What a person sees of a run: a live line on a terminal, a plain one every few seconds elsewhere.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::meter::Counts;
use crate::report::Row;

/// Seconds between two plain lines.
const PLAIN: f64 = 5.0;

/// See the module. Goes to standard error.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    seconds: f64,
    last: f64,
    is_quiet: bool,
}

impl Progress {
    /// For a run of this length.
    pub fn new(length: Duration) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:30} {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(length.as_millis() as u64).with_style(style)
        });
        Self {
            bar,
            seconds: length.as_secs_f64(),
            last: 0.0,
            is_quiet: false,
        }
    }

    /// One that says nothing.
    pub fn quiet() -> Self {
        Self {
            bar: None,
            seconds: 0.0,
            last: 0.0,
            is_quiet: true,
        }
    }

    /// A second has gone by.
    pub fn row(&mut self, row: &Row, counts: &Counts, is_stopping: bool) {
        let backlog = row
            .backlog
            .map_or_else(String::new, |backlog| format!("  backlog {backlog:.0}"));
        let stopping = if is_stopping { "  stopping" } else { "" };
        let times = row.latency_ms.map_or_else(
            || "no times yet".to_owned(),
            |times| {
                format!(
                    "p50 {:.1} ms  p99 {:.1} ms  max {:.0} ms",
                    times.p50, times.p99, times.max
                )
            },
        );
        let text = format!(
            "{:>4.0}/{:.0} s  {:>9.0} readings/s  {times}  errors {}  late {}{backlog}{stopping}",
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
            None if !self.is_quiet && (row.at - self.last >= PLAIN || is_stopping) => {
                self.last = row.at;
                eprintln!("{text}");
            }
            None => {}
        }
    }

    /// Everything is sent; so many readings are not stored yet, as far as the processes tell.
    pub fn settling(&mut self, backlog: Option<f64>) {
        if let Some(bar) = &self.bar {
            let backlog = backlog.map_or_else(
                || "a process does not answer".to_owned(),
                |backlog| format!("{backlog:.0} readings are not stored yet"),
            );
            bar.set_message(format!("everything is sent; {backlog}"));
        }
    }

    /// Leaves the terminal as it was.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
