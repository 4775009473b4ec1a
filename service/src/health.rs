//! Health: which parts of the process are ready, and why the others are not.
//!
//! In: each part says of itself that it is ready, or why not. Out: `/readyz`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What every part has said last. Clones share everything.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    draining: bool,
    /// Name of a part, and why it is not ready.
    parts: BTreeMap<&'static str, Option<String>>,
}

/// One part's side of it.
#[derive(Clone, Debug)]
pub struct Part {
    health: Health,
    name: &'static str,
}

impl Health {
    /// The health of a process with these parts, none of which is ready before it says so. All are named here, before the
    /// admin port opens: a process that asked for its parts one by one would be ready before the first.
    pub fn of(parts: &[&'static str]) -> Self {
        let health = Self::default();
        health.lock(|state| state.parts = parts.iter().map(|&name| (name, Some("starting".to_owned()))).collect());
        health
    }

    /// The side of one part.
    pub fn part(&self, name: &'static str) -> Part {
        Part { health: self.clone(), name }
    }

    /// Says for good that the process is on its way out.
    pub fn drain(&self) {
        self.lock(|state| state.draining = true);
    }

    /// Whether everything is ready, and each part's state in words.
    pub fn report(&self) -> (bool, BTreeMap<&'static str, String>) {
        self.lock(|state| {
            let mut words: BTreeMap<_, _> = state
                .parts
                .iter()
                .map(|(&name, reason)| (name, reason.clone().unwrap_or_else(|| "ready".into())))
                .collect();
            if state.draining {
                words.insert("process", "draining".into());
            }
            (state.ready(), words)
        })
    }

    fn lock<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        // A thread that panicked while holding the lock leaves a state that is still one of the valid ones.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut state);
        metrics::gauge!(schema::metric::READY.name).set(if state.ready() { 1.0 } else { 0.0 });
        result
    }
}

impl State {
    fn ready(&self) -> bool {
        !self.draining && !self.parts.is_empty() && self.parts.values().all(Option::is_none)
    }
}

impl Part {
    /// This part works. Said in the log when it did not before.
    pub fn ready(&self) {
        let was = self.health.lock(|state| state.parts.insert(self.name, None));
        if was != Some(None) {
            tracing::info!(part = self.name, "ready");
        }
    }

    /// This part does not work, for this reason. Said in the log when it is news.
    pub fn unready(&self, reason: impl Into<String>) {
        let reason = Some(reason.into());
        let was = self.health.lock(|state| state.parts.insert(self.name, reason.clone()));
        if was.is_some_and(|was| was != reason) {
            tracing::warn!(part = self.name, reason = reason.as_deref(), "not ready");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_every_part_and_not_draining() {
        let health = Health::of(&["broker"]);
        assert!(!health.report().0, "ready before any part has said so");
        let broker = health.part("broker");
        assert!(!health.report().0);
        broker.ready();
        assert!(health.report().0);
        broker.unready("cannot connect");
        assert_eq!(health.report().1["broker"], "cannot connect");
        broker.ready();
        health.drain();
        assert_eq!((health.report().0, health.report().1["process"].as_str()), (false, "draining"));
    }
}
