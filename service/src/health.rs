//! Health: which parts of the process are ready, and why the others are not.
//!
//! In: each part says of itself that it is ready, or why not. Out: `/readyz`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

/// What every part has said last. Clones share everything.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    draining: bool,
    /// Name of a part, and why it is not ready.
    parts: BTreeMap<&'static str, Option<String>>,
    /// Parts that something stands in for while they are away.
    replaced: BTreeSet<&'static str>,
}

/// What a process is able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ability {
    /// Everything.
    Ready,
    /// Its work, with something standing in for a part that is away.
    Degraded,
    /// Not its work.
    Unready,
}

impl Ability {
    /// In one word.
    pub fn label(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Degraded => "degraded",
            Self::Unready => "unready",
        }
    }
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
        health.lock(|state| {
            state.parts = parts
                .iter()
                .map(|&name| (name, Some("starting".to_owned())))
                .collect()
        });
        health
    }

    /// Something stands in for this part while it is away: the process does its work without, degraded.
    pub fn replaced(&self, name: &'static str) {
        self.lock(|state| state.replaced.insert(name));
    }

    /// The side of one part.
    pub fn part(&self, name: &'static str) -> Part {
        Part {
            health: self.clone(),
            name,
        }
    }

    /// Says for good that the process is on its way out.
    pub fn drain(&self) {
        self.lock(|state| state.draining = true);
    }

    /// What the process is able to do, and each part's state in words.
    pub fn report(&self) -> (Ability, BTreeMap<&'static str, String>) {
        self.lock(|state| {
            let mut words: BTreeMap<_, _> = state
                .parts
                .iter()
                .map(|(&name, reason)| (name, reason.clone().unwrap_or_else(|| "ready".into())))
                .collect();
            if state.draining {
                words.insert("process", "draining".into());
            }
            (state.ability(), words)
        })
    }

    fn lock<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        // A thread that panicked while holding the lock leaves a state that is still one of the valid ones.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut state);
        metrics::gauge!(schema::metric::READY.name).set(if state.ability() == Ability::Unready {
            0.0
        } else {
            1.0
        });
        metrics::gauge!(schema::metric::DEGRADED.name).set(
            if state.ability() == Ability::Degraded {
                1.0
            } else {
                0.0
            },
        );
        result
    }
}

impl State {
    fn ability(&self) -> Ability {
        let away = || self.parts.iter().filter(|(_, reason)| reason.is_some());
        if self.draining
            || self.parts.is_empty()
            || away().any(|(name, _)| !self.replaced.contains(name))
        {
            Ability::Unready
        } else if away().next().is_some() {
            Ability::Degraded
        } else {
            Ability::Ready
        }
    }
}

impl Part {
    /// This part works. Said in the log when it did not before.
    pub fn ready(&self) {
        let was = self
            .health
            .lock(|state| state.parts.insert(self.name, None));
        if was != Some(None) {
            tracing::info!(part = self.name, "ready");
        }
    }

    /// This part does not work, for this reason. Said in the log when it is news.
    pub fn unready(&self, reason: impl Into<String>) {
        let reason = Some(reason.into());
        let was = self
            .health
            .lock(|state| state.parts.insert(self.name, reason.clone()));
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
        let ability = || health.report().0;
        assert_eq!(
            ability(),
            Ability::Unready,
            "ready before any part has said so"
        );
        let broker = health.part("broker");
        broker.ready();
        assert_eq!(ability(), Ability::Ready);
        broker.unready("cannot connect");
        assert_eq!(
            (ability(), health.report().1["broker"].as_str()),
            (Ability::Unready, "cannot connect")
        );
        broker.ready();
        health.drain();
        assert_eq!(
            (ability(), health.report().1["process"].as_str()),
            (Ability::Unready, "draining")
        );
    }

    #[test]
    fn a_part_that_is_replaced_degrades_and_no_other() {
        let health = Health::of(&["broker", "database"]);
        health.replaced("broker");
        health.part("database").ready();
        assert_eq!(health.report().0, Ability::Degraded);
        health.part("broker").ready();
        assert_eq!(health.report().0, Ability::Ready);
        health.part("database").unready("gone");
        assert_eq!(health.report().0, Ability::Unready);
    }
}
