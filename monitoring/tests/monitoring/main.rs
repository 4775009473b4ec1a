//! The generated files are on the disk, and valid.

mod files;
mod grafana;
mod metrics;
mod prometheus;
