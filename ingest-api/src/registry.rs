//! The registry: which device and metric is which series.
//!
//! In: rows of `device` and `series`, from following PostgreSQL ([`follow`]) or from registering ([`register`]). Out: series
//! ids, by name, from memory. While PostgreSQL is away the registry answers for the names it knows, and says of others that
//! it cannot tell.

pub mod follow;
pub mod register;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use schema::metric;
use schema::reading::SeriesId;

/// One device with all of its series, as PostgreSQL has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// `device.id`.
    pub id: i32,
    /// `device.external_id`.
    pub name: String,
    /// `device.active`.
    pub active: bool,
    /// Metric and id of each of its series.
    pub series: Vec<(String, SeriesId)>,
}

/// What the registry knows of a pair of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// The series.
    Series(SeriesId),
    /// The device was switched off.
    Inactive,
    /// The device is there without this metric.
    NoMetric,
    /// No such device.
    NoDevice,
}

/// How far the registry can be trusted about names it does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Freshness {
    /// Never loaded: it knows nothing yet.
    Empty,
    /// Loaded, and PostgreSQL has not been reached since.
    Stale,
    /// As of the last second.
    Fresh,
}

/// The names in memory.
#[derive(Debug, Default)]
pub struct Names {
    devices: HashMap<Box<str>, Entry>,
    /// Name by `device.id`, to find the old name of a device that was renamed.
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
    pub fn find(&self, device: &str, metric: &str) -> Known {
        let Some(entry) = self.devices.get(device) else {
            return Known::NoDevice;
        };
        if !entry.active {
            return Known::Inactive;
        }
        match entry
            .series
            .binary_search_by(|(name, _)| (**name).cmp(metric))
        {
            Ok(index) => Known::Series(entry.series[index].1),
            Err(_) => Known::NoMetric,
        }
    }

    /// Number of series of a device.
    pub fn series_of(&self, device: &str) -> usize {
        self.devices
            .get(device)
            .map_or(0, |entry| entry.series.len())
    }

    fn put(&mut self, device: Device) {
        let name: Box<str> = device.name.into();
        if let Some(old) = self.by_id.insert(device.id, name.clone())
            && old != name
            // Another device may have taken the name over.
            && self.devices.get(&old).is_some_and(|entry| entry.id == device.id)
            && let Some(gone) = self.devices.remove(&old)
        {
            self.series -= gone.series.len();
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

/// The names and how fresh they are, shared by every request.
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
    /// The names, for as long as the guard lives; to be held for the look-ups of one request.
    pub fn names(&self) -> RwLockReadGuard<'_, Names> {
        self.names.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of series.
    pub fn series(&self) -> usize {
        self.names().series
    }

    /// How fresh the names are.
    pub fn freshness(&self) -> Freshness {
        match self.freshness.load(Ordering::Acquire) {
            0 => Freshness::Empty,
            1 => Freshness::Stale,
            _ => Freshness::Fresh,
        }
    }

    /// Takes over what PostgreSQL said of these devices.
    fn put(&self, devices: Vec<Device>) {
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        for device in devices {
            names.put(device);
        }
        metrics::gauge!(metric::REGISTRY_SERIES.name).set(names.series as f64);
    }

    fn mark(&self, reached: bool) {
        let freshness = match (reached, self.freshness()) {
            (true, _) => Freshness::Fresh,
            (false, Freshness::Empty) => Freshness::Empty,
            (false, _) => Freshness::Stale,
        };
        self.freshness.store(freshness as u8, Ordering::Release);
        metrics::gauge!(metric::REGISTRY_FRESH.name).set(if reached { 1.0 } else { 0.0 });
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
    fn a_device_is_found_renamed_and_switched_off() {
        let registry = Registry::default();
        registry.put(vec![
            device(1, "meter-1", &[("power", 10)]),
            device(2, "meter-2", &[]),
        ]);
        assert_eq!(registry.names().find("meter-1", "power"), Known::Series(10));
        assert_eq!(registry.names().find("meter-1", "voltage"), Known::NoMetric);
        assert_eq!(registry.names().find("meter-2", "power"), Known::NoMetric);
        assert_eq!(registry.names().find("meter-3", "power"), Known::NoDevice);

        registry.put(vec![device(
            1,
            "meter-one",
            &[("power", 10), ("voltage", 11)],
        )]);
        assert_eq!(registry.names().find("meter-1", "power"), Known::NoDevice);
        assert_eq!(
            registry.names().find("meter-one", "voltage"),
            Known::Series(11)
        );
        assert_eq!(registry.series(), 2);

        registry.put(vec![Device {
            active: false,
            ..device(1, "meter-one", &[("power", 10)])
        }]);
        assert_eq!(registry.names().find("meter-one", "power"), Known::Inactive);
        assert_eq!(registry.series(), 1);
    }

    #[test]
    fn devices_that_swap_their_names_are_both_found() {
        let registry = Registry::default();
        registry.put(vec![
            device(1, "a", &[("power", 10)]),
            device(2, "b", &[("power", 20)]),
        ]);
        registry.put(vec![
            device(1, "b", &[("power", 10)]),
            device(2, "a", &[("power", 20)]),
        ]);
        assert_eq!(registry.names().find("b", "power"), Known::Series(10));
        assert_eq!(registry.names().find("a", "power"), Known::Series(20));
        assert_eq!(registry.series(), 2);
    }

    #[test]
    fn a_registry_that_never_loaded_is_empty_and_not_stale() {
        let registry = Registry::default();
        registry.mark(false);
        assert_eq!(registry.freshness(), Freshness::Empty);
        registry.mark(true);
        registry.mark(false);
        assert_eq!(registry.freshness(), Freshness::Stale);
    }
}
