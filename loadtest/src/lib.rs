//! The load test: it sends an open loop of requests whose contents follow from a scenario
//! and a seed, records the outcome of each request in a ledger, and verifies what was stored.
//!
//! The crate has two parts. The load generator, in the order of its stages: [`scenario`] ▸
//! `schedule`, [`traffic`] ▸ [`send`] (`timer`) ▸ [`recorder`], [`ledger`]; [`generator`] runs
//! them. The `harness` monitors, reports and verifies such a run; it is the feature of that name,
//! which is enabled by default and which `gridwatch demo` does not need. The crate uses Gridwatch's
//! HTTP interface, metrics and tables only.
//!
//! Tests, benchmarks and the demo use [`generator`] to send readings, and [`statistics`] for
//! medians:
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use std::sync::Arc;
//!
//! use loadtest::generator::{Generator, Pacing};
//! use loadtest::scenario::Scenario;
//! use loadtest::send::Target;
//! use loadtest::traffic::Traffic;
//! use tokio_util::sync::CancellationToken;
//!
//! // 300,000 readings of 10,000 series, one per second, in requests of 1,000.
//! let scenario = Scenario::parse(
//!     "name = 'example'\nrate = 10000\nduration = '30s'\nbatch = 1000\nconnections = 16\n",
//! )?;
//! let begin = schema::clock::now() - 30_000_000;
//! let generator = Generator {
//!     traffic: Arc::new(Traffic::new(&scenario, begin)),
//!     target: Target::new("http://127.0.0.1:8080")?,
//!     threads: 1,
//!     pacing: Pacing::AsFastAsPossible,
//! };
//! let sent = generator
//!     .send(CancellationToken::new(), |counts| println!("{}", counts.accepted))
//!     .await?
//!     .ensure_all_accepted()?;
//! println!("{:.0} readings/s", sent.accepted_per_second());
//! # Ok(())
//! # }
//! ```

pub mod generator;
#[cfg(feature = "harness")]
pub mod harness;
mod http;
pub mod ledger;
pub mod plural;
pub mod recorder;
pub mod scenario;
mod schedule;
pub mod send;
pub mod statistics;
mod timer;
pub mod traffic;
