//! Health: which components of the process are ready, and why the others are not.
//!
//! In: each component reports that it works, or why it does not. Out: `/readyz`, and two gauges.
//! Each component has one task that reports at a time. Components with the same name are one line
//! in `/readyz` and in the logs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

/// A part of a process that the process needs in order to work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// The connection to RabbitMQ.
    Broker,
    /// The connection to PostgreSQL, and the tables there: reported by the worker.
    Database,
    /// The devices and series there: reported by the front end.
    Registry,
    /// The queue on disk.
    Spool,
}

impl Component {
    /// Its name in `/readyz` and in the logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Broker => "broker",
            Self::Database | Self::Registry => "database",
            Self::Spool => "spool",
        }
    }
}

/// What a process is able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthState {
    /// Every component works.
    Ready,
    /// The process does its work, with a fallback for a component that is down.
    Degraded,
    /// The process cannot do its work.
    Unready,
}

impl HealthState {
    /// Its name in `/readyz`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Degraded => "degraded",
            Self::Unready => "unready",
        }
    }
}

/// The last report of every component. Clones share everything.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    draining: bool,
    /// Why each component is not ready; `None` when it is.
    components: BTreeMap<Component, Option<String>>,
    /// Components that have a fallback.
    with_fallback: BTreeSet<Component>,
}

/// The handle with which one component reports.
#[derive(Clone, Debug)]
pub struct ComponentHealth {
    health: Health,
    component: Component,
}

impl Health {
    /// The health of a process with these components, none of which is ready until it reports so.
    ///
    /// All of them are named here, before the admin port opens. If components were added one by
    /// one, the process would be ready before it knew of the first.
    pub fn new(components: &[Component]) -> Self {
        let health = Self::default();
        let starting = |&component| (component, Some("starting".to_owned()));
        health.update(|state| state.components = components.iter().map(starting).collect());
        health
    }

    /// Declares that this component has a fallback: without it the process is degraded, not
    /// unready.
    pub fn set_fallback(&self, component: Component) {
        self.update(|state| state.with_fallback.insert(component));
    }

    /// The handle of one component.
    pub fn component(&self, component: Component) -> ComponentHealth {
        ComponentHealth {
            health: self.clone(),
            component,
        }
    }

    /// Makes the process unready for the rest of its life, because it is shutting down.
    pub fn begin_drain(&self) {
        self.update(|state| state.draining = true);
    }

    /// The state of the process, and for each component `ready` or the reason why it is not.
    pub fn report(&self) -> (HealthState, BTreeMap<&'static str, String>) {
        self.update(|state| {
            let mut reasons: BTreeMap<_, _> = state
                .components
                .keys()
                .map(|component| {
                    let reason = state.reason(component.name());
                    (component.name(), reason.unwrap_or_else(|| "ready".into()))
                })
                .collect();
            if state.draining {
                reasons.insert("process", "draining".into());
            }
            (state.evaluate(), reasons)
        })
    }

    fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        // If a thread panicked while it held the lock, the state is still a valid one.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut state);
        let is = |expected| f64::from(u8::from(state.evaluate() == expected));
        metrics::gauge!(schema::metric::READY.name).set(1.0 - is(HealthState::Unready));
        metrics::gauge!(schema::metric::DEGRADED.name).set(is(HealthState::Degraded));
        result
    }
}

impl State {
    /// Why the components of this name are not ready: the reason of the first that is not.
    fn reason(&self, name: &str) -> Option<String> {
        let named = |component: &Component| component.name() == name;
        let mut components = self.components.iter();
        components.find_map(|(component, reason)| reason.clone().filter(|_| named(component)))
    }

    fn evaluate(&self) -> HealthState {
        let mut down = self
            .components
            .iter()
            .filter(|(_, reason)| reason.is_some())
            .map(|(component, _)| component)
            .peekable();
        if self.draining || self.components.is_empty() {
            HealthState::Unready
        } else if down.peek().is_none() {
            HealthState::Ready
        } else if down.all(|component| self.with_fallback.contains(component)) {
            HealthState::Degraded
        } else {
            HealthState::Unready
        }
    }
}

impl ComponentHealth {
    /// Reports that the component works. Logged when it did not before.
    pub fn ready(&self) {
        self.report(None);
    }

    /// Reports that the component does not work, and why. Logged when the reason is new.
    pub fn unready(&self, reason: impl Into<String>) {
        self.report(Some(reason.into()));
    }

    fn report(&self, reason: Option<String>) {
        let component = self.component.name();
        let (before, now) = self.health.update(|state| {
            let before = state.reason(component);
            state.components.insert(self.component, reason);
            (before, state.reason(component))
        });
        if before == now {
            return;
        }
        match now {
            None => tracing::info!(component, "ready"),
            Some(reason) => tracing::warn!(component, reason, "not ready"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_ready_when_every_component_is_and_it_is_not_draining() {
        let health = Health::new(&[Component::Broker]);
        let state = || health.report().0;
        assert_eq!(state(), HealthState::Unready, "ready before any report");
        let broker = health.component(Component::Broker);
        broker.ready();
        assert_eq!(state(), HealthState::Ready);
        broker.unready("cannot connect");
        let (state_now, reasons) = health.report();
        assert_eq!(state_now, HealthState::Unready);
        assert_eq!(reasons["broker"], "cannot connect");
        broker.ready();
        health.begin_drain();
        let (state_now, reasons) = health.report();
        assert_eq!(state_now, HealthState::Unready);
        assert_eq!(reasons["process"], "draining");
    }

    #[test]
    fn a_component_with_a_fallback_degrades_the_process_and_another_makes_it_unready() {
        let health = Health::new(&[Component::Broker, Component::Database]);
        health.set_fallback(Component::Broker);
        health.component(Component::Database).ready();
        assert_eq!(health.report().0, HealthState::Degraded);
        health.component(Component::Broker).ready();
        assert_eq!(health.report().0, HealthState::Ready);
        health.component(Component::Database).unready("down");
        assert_eq!(health.report().0, HealthState::Unready);
    }

    #[test]
    fn components_of_one_name_are_ready_when_each_is_and_one_report_does_not_hide_another() {
        let health = Health::new(&[Component::Database, Component::Registry]);
        let database = health.component(Component::Database);
        let registry = health.component(Component::Registry);
        let reason = || health.report().1["database"].clone();
        registry.ready();
        assert_eq!(reason(), "starting");
        // Both report every second, in any order.
        for _ in 0..2 {
            database.unready("permission denied");
            registry.unready("the tables are missing");
            assert_eq!(reason(), "permission denied");
            registry.ready();
            assert_eq!(reason(), "permission denied");
            assert_eq!(health.report().0, HealthState::Unready);
        }
        database.ready();
        assert_eq!(
            (health.report().0, reason()),
            (HealthState::Ready, "ready".into())
        );
        registry.unready("no response");
        database.ready();
        assert_eq!(
            (health.report().0, reason()),
            (HealthState::Unready, "no response".into())
        );
    }
}
