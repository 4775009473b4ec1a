//! Everything that speaks SQL.
//!
//! [`Database`] knows the URL, TLS and timeouts, and hands out connections. [`migrations`] creates
//! the tables, whose SQL files are in `schema/migrations`. [`registry`] reads and registers devices
//! and series. [`model`] reads and writes components, devices and what belongs to them.
//! [`partitions`] creates the partitions of the reading table. [`transaction`] stores batches: it
//! inserts them into the [`ledger`], copies their [`rows`] into the table (`copy`), and resolves
//! keys that exist already (`staging`). [`rollups`] keeps summaries of days that have ended.
//! [`error`] tells transient failures from fatal ones.
//!
//! Callers retry by the class of an error. Only [`migrations::wait`] retries here.

mod copy;
mod database;
pub mod error;
pub mod ledger;
pub mod migrations;
pub mod model;
pub mod partitions;
pub mod probe;
pub mod reads;
pub mod registry;
mod rejects;
pub mod rollups;
pub mod rows;
mod staging;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod tls;
pub mod transaction;

pub use database::{Database, Pool, get, is_reachable};
pub use deadpool_postgres::Object;
pub use tokio_postgres::{Client, Error};
