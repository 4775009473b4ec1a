//! The commands of `loadtest`: running a scenario while the processes are monitored, reporting it,
//! and verifying what was stored.
//!
//! In: scenarios, and the admin ports and the database of a deployment. Out: reports, pages and
//! verdicts. [`run`] uses [`scrape`] and [`progress`] and results in a [`report`] and a page
//! ([`html`], [`plot`]). [`verify`] compares the database with the ledger, [`compare`] compares
//! reports, and [`matrix`] loads Gridwatch in every deployment mode. [`idle_server`] measures the
//! generator itself.

pub mod compare;
pub mod html;
pub mod idle_server;
pub mod matrix;
pub mod plot;
mod postgres;
pub mod progress;
pub mod report;
pub mod run;
pub mod scrape;
pub mod verify;
