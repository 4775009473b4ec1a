//! The contract between the parts of Gridwatch.
//!
//! Two processes, or a process and its database, must agree on what is defined here: the
//! [`reading`] and its validation rules, the [`batch`] on the queue, the [`topology`] of the queue,
//! the days by which the table is partitioned ([`partition`]), the [`clock`] stages, the
//! [`metric`] names and the text of `/metrics` ([`prometheus`]). The tables are a contract as
//! well; their SQL files are in `migrations/`. This crate does no I/O.

pub mod batch;
pub mod clock;
pub mod metric;
pub mod partition;
pub mod prometheus;
pub mod reading;
pub mod topology;

pub use batch::Batch;
pub use reading::{Reading, Rejection};
