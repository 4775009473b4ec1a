//! The load-test harness: an open loop of requests whose contents follow from a scenario and a seed, a ledger of what was
//! answered, and proof of what was stored.
//!
//! `scenario` ▸ `schedule`, `traffic` ▸ `send` (`pace`) ▸ `meter`, `ledger` ▸ `run` (`observe`, `progress`) ▸ `report`, `html`;
//! `verify` reads the database against the ledger; `matrix` runs all that against every shape of Gridwatch. Nothing here knows the insides of a server: only its HTTP interface, its
//! metrics and its tables.

pub mod compare;
pub mod html;
pub mod ledger;
pub mod matrix;
pub mod meter;
pub mod nothing;
pub mod observe;
pub mod pace;
pub mod plot;
pub mod progress;
pub mod report;
pub mod run;
pub mod scenario;
pub mod schedule;
pub mod send;
pub mod traffic;
pub mod verify;
