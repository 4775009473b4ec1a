//! The contract between Gridwatch's parts.
//!
//! What is written here is what two processes, or a process and its store, must agree on: the [`reading`] and the
//! rules it is checked by, the [`batch`] on the queue, the [`topology`] of the queue, the tables ([`migrations`]),
//! the [`clock`] stages and the [`metric`] names. Nothing here does I/O but the migrations.

pub mod batch;
pub mod clock;
pub mod metric;
pub mod migrations;
pub mod partition;
pub mod reading;
pub mod topology;

pub use batch::Batch;
pub use reading::{Reading, Rejection};
