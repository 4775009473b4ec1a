//! Progress on stderr: a bar on a terminal, otherwise a line from time to time.

use std::cell::Cell;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::output::note;

/// Pause between two lines when stderr is not a terminal.
const PAUSE: Duration = Duration::from_secs(10);

/// The progress of a command.
pub(crate) struct Progress {
    name: String,
    bar: ProgressBar,
    last_line: Cell<Instant>,
}

impl Progress {
    /// Progress of at most `length` steps.
    pub(crate) fn new(name: &str, length: u64) -> Self {
        let style = ProgressStyle::with_template("{wide_bar} {percent} %  {msg}  {eta}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        Self {
            name: name.to_owned(),
            bar: ProgressBar::new(length).with_style(style),
            last_line: Cell::new(Instant::now()),
        }
    }

    /// Shows how many steps are done, and what was done.
    pub(crate) fn set(&self, position: u64, done: &str) {
        if !self.bar.is_hidden() {
            self.bar.set_message(done.to_owned());
            self.bar.set_position(position);
        } else if let Some(line) = self.line(Instant::now(), done) {
            note(line);
        }
    }

    /// The line that is due at this time, if one is.
    fn line(&self, now: Instant, done: &str) -> Option<String> {
        let is_due = now.saturating_duration_since(self.last_line.get()) >= PAUSE;
        is_due.then(|| {
            self.last_line.set(now);
            format!("{}: so far {done}", self.name)
        })
    }

    /// Prints a sentence above the bar.
    pub(crate) fn notify(&self, sentence: &str) {
        self.bar.suspend(|| note(sentence));
    }

    /// Removes the bar.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_due_after_each_pause() {
        let progress = Progress::new("lv-grid", 100);
        let start = progress.last_line.get();
        assert_eq!(progress.line(start + PAUSE / 2, "1"), None);
        let line = progress.line(start + PAUSE, "2");
        assert_eq!(line.as_deref(), Some("lv-grid: so far 2"));
        assert_eq!(progress.line(start + PAUSE * 3 / 2, "3"), None);
        assert!(progress.line(start + PAUSE * 2, "4").is_some());
    }
}
