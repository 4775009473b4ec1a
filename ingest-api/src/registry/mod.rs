//! The registry: which device and metric is which series.
//!
//! In: devices with their series, from refreshing ([`refresh`]) or registering ([`register`]). Out:
//! series ids by name, from memory. While PostgreSQL is unavailable the registry resolves the names
//! that it has, and reports that it is not up to date.

pub mod refresh;
pub mod register;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use schema::metric;
use schema::reading::SeriesId;
use store::registry::Device;

/// The result of looking up a device and a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// The series.
    Series(SeriesId),
    /// The device is inactive.
    Inactive,
    /// The device has no such metric.
    UnknownMetric,
    /// There is no such device.
    UnknownDevice,
}

/// Whether a name that is not in the registry is known to be unregistered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Freshness {
    /// The registry was never loaded.
    Empty,
    /// It was loaded, but the last refresh failed.
    Stale,
    /// It was up to date a second ago.
    Fresh,
}

/// The names, in memory.
#[derive(Debug, Default)]
pub struct Names {
    devices: HashMap<Box<str>, Entry>,
    /// The name of each `device.id`, to find the old name of a renamed device.
    by_id: HashMap<i32, Box<str>>,
    series: usize,
}

#[derive(Debug)]
struct Entry {
    id: i32,
    active: bool,
    /// Sorted by metric.
    series: Vec<(Box<str>, SeriesId)>,
}

impl Names {
    /// The series of a device and a metric, or why there is none.
    pub fn find(&self, device: &str, metric: &str) -> Lookup {
        let Some(entry) = self.devices.get(device) else {
            return Lookup::UnknownDevice;
        };
        if !entry.active {
            return Lookup::Inactive;
        }
        match entry
            .series
            .binary_search_by(|(name, _)| (**name).cmp(metric))
        {
            Ok(index) => Lookup::Series(entry.series[index].1),
            Err(_) => Lookup::UnknownMetric,
        }
    }

    /// Number of series of a device.
    pub fn series_of(&self, device: &str) -> usize {
        self.devices
            .get(device)
            .map_or(0, |entry| entry.series.len())
    }

    fn update(&mut self, device: Device) {
        let name: Box<str> = device.name.into();
        if let Some(old) = self.by_id.insert(device.id, name.clone())
            && old != name
            // Another device may have this name now.
            && self.devices.get(&old).is_some_and(|entry| entry.id == device.id)
            && let Some(removed) = self.devices.remove(&old)
        {
            self.series -= removed.series.len();
        }
        self.series += device.series.len();
        let mut series: Vec<(Box<str>, SeriesId)> = device
            .series
            .into_iter()
            .map(|(metric, id)| (metric.into(), id))
            .collect();
        series.sort_unstable();
        if let Some(old) = self.devices.insert(
            name,
            Entry {
                id: device.id,
                active: device.active,
                series,
            },
        ) {
            self.series -= old.series.len();
        }
    }
}

/// The names and whether they are up to date, shared by all requests.
#[derive(Debug)]
pub struct Registry {
    names: RwLock<Names>,
    freshness: AtomicU8,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            names: RwLock::default(),
            freshness: AtomicU8::new(Freshness::Empty as u8),
        }
    }
}

impl Registry {
    /// The names, locked for reading. Hold the guard for the lookups of one request.
    pub fn names(&self) -> RwLockReadGuard<'_, Names> {
        self.names.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of series.
    pub fn series(&self) -> usize {
        self.names().series
    }

    /// Whether the names are up to date.
    pub fn freshness(&self) -> Freshness {
        match self.freshness.load(Ordering::Acquire) {
            0 => Freshness::Empty,
            1 => Freshness::Stale,
            _ => Freshness::Fresh,
        }
    }

    /// Replaces these devices.
    pub(crate) fn update(&self, devices: Vec<Device>) {
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        for device in devices {
            names.update(device);
        }
        metrics::gauge!(metric::REGISTRY_SERIES.name).set(names.series as f64);
    }

    /// Records whether the last refresh reached PostgreSQL.
    pub(crate) fn set_reachable(&self, reachable: bool) {
        let freshness = match (reachable, self.freshness()) {
            (true, _) => Freshness::Fresh,
            (false, Freshness::Empty) => Freshness::Empty,
            (false, _) => Freshness::Stale,
        };
        self.freshness.store(freshness as u8, Ordering::Release);
        metrics::gauge!(metric::REGISTRY_FRESH.name).set(if reachable { 1.0 } else { 0.0 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(id: i32, name: &str, metrics: &[(&str, SeriesId)]) -> Device {
        let series = metrics
            .iter()
            .map(|&(metric, id)| (metric.to_owned(), id))
            .collect();
        Device {
            id,
            name: name.into(),
            active: true,
            series,
        }
    }

    #[test]
    fn a_device_is_found_renamed_and_deactivated() {
        let registry = Registry::default();
        registry.update(vec![
            device(1, "meter-1", &[("power", 10)]),
            device(2, "meter-2", &[]),
        ]);
        assert_eq!(
            registry.names().find("meter-1", "power"),
            Lookup::Series(10)
        );
        assert_eq!(
            registry.names().find("meter-1", "voltage"),
            Lookup::UnknownMetric
        );
        assert_eq!(
            registry.names().find("meter-2", "power"),
            Lookup::UnknownMetric
        );
        assert_eq!(
            registry.names().find("meter-3", "power"),
            Lookup::UnknownDevice
        );

        registry.update(vec![device(
            1,
            "meter-one",
            &[("power", 10), ("voltage", 11)],
        )]);
        assert_eq!(
            registry.names().find("meter-1", "power"),
            Lookup::UnknownDevice
        );
        assert_eq!(
            registry.names().find("meter-one", "voltage"),
            Lookup::Series(11)
        );
        assert_eq!(registry.series(), 2);

        registry.update(vec![Device {
            active: false,
            ..device(1, "meter-one", &[("power", 10)])
        }]);
        assert_eq!(
            registry.names().find("meter-one", "power"),
            Lookup::Inactive
        );
        assert_eq!(registry.series(), 1);
    }

    #[test]
    fn devices_that_swap_their_names_are_both_found() {
        let registry = Registry::default();
        registry.update(vec![
            device(1, "a", &[("power", 10)]),
            device(2, "b", &[("power", 20)]),
        ]);
        registry.update(vec![
            device(1, "b", &[("power", 10)]),
            device(2, "a", &[("power", 20)]),
        ]);
        assert_eq!(registry.names().find("b", "power"), Lookup::Series(10));
        assert_eq!(registry.names().find("a", "power"), Lookup::Series(20));
        assert_eq!(registry.series(), 2);
    }

    #[test]
    fn a_registry_that_was_never_loaded_is_empty_and_not_stale() {
        let registry = Registry::default();
        registry.set_reachable(false);
        assert_eq!(registry.freshness(), Freshness::Empty);
        registry.set_reachable(true);
        registry.set_reachable(false);
        assert_eq!(registry.freshness(), Freshness::Stale);
    }
}
