//! The generated files are on the disk, and valid.

mod files;
mod metrics;
mod prometheus;
