//! Log lines about events that repeat: at most one in ten seconds, with the number of events.
//!
//! In: an event. Out: whether it is time for a line, and how many events it stands for. An outage
//! is one line in ten seconds then, and not one for each request, batch or attempt.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The shortest time between two lines.
const INTERVAL: Duration = Duration::from_secs(10);

/// Limits one log line.
#[derive(Debug, Default)]
pub struct LogLimit(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last_line: Option<Instant>,
    events: u64,
}

impl State {
    fn count(&mut self, now: Instant) -> Option<u64> {
        self.events += 1;
        if self.last_line.is_some_and(|last| now < last + INTERVAL) {
            return None;
        }
        self.last_line = Some(now);
        Some(std::mem::take(&mut self.events))
    }
}

impl LogLimit {
    /// A limit that no event has reached yet.
    pub const fn new() -> Self {
        Self(Mutex::new(State {
            last_line: None,
            events: 0,
        }))
    }

    /// Counts an event. Returns how many there were since the last line, this one included, if
    /// another line is due.
    pub fn count(&self) -> Option<u64> {
        // If a thread panicked while it held the lock, the state is still a valid one.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.count(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_event_is_logged_at_once_and_the_others_are_counted_for_the_next_line() {
        let mut state = State::default();
        let begin = Instant::now();
        assert_eq!(state.count(begin), Some(1));
        assert_eq!(state.count(begin), None);
        assert_eq!(state.count(begin + INTERVAL / 2), None);
        assert_eq!(state.count(begin + INTERVAL), Some(3));
        assert_eq!(state.count(begin + INTERVAL), None);
        assert_eq!(state.count(begin + INTERVAL * 9), Some(2));
    }
}
