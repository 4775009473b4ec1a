//! Progress on stderr: a bar on a terminal, otherwise a line from time to time.

use std::cell::Cell;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::summary::Summary;

/// Pause between two lines when stderr is not a terminal.
const PAUSE: Duration = Duration::from_secs(10);

/// The progress of a file.
pub(super) struct Progress {
    name: String,
    bar: ProgressBar,
    last_line: Cell<Instant>,
}

impl Progress {
    /// Progress in a file of so many bytes.
    pub(super) fn new(name: &str, bytes: u64) -> Self {
        let style = ProgressStyle::with_template("{wide_bar} {percent} %  {msg}  {eta}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        Self {
            name: name.to_owned(),
            bar: ProgressBar::new(bytes).with_style(style),
            last_line: Cell::new(Instant::now()),
        }
    }

    /// Shows how many bytes were read and what became of the rows.
    pub(super) fn set(&self, position: u64, summary: &Summary) {
        let hidden = self.bar.is_hidden();
        if hidden && self.last_line.get().elapsed() < PAUSE {
            return;
        }
        let counts = format!(
            "{} accepted, {} rejected",
            summary.accepted, summary.rejected
        );
        if hidden {
            self.last_line.set(Instant::now());
            eprintln!("{}: so far {counts}", self.name);
        } else {
            self.bar.set_message(counts);
            self.bar.set_position(position);
        }
    }

    /// Prints a sentence above the bar.
    pub(super) fn notify(&self, sentence: &str) {
        self.bar.suspend(|| eprintln!("{sentence}"));
    }

    /// Removes the bar.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}
