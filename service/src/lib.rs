//! What every Gridwatch process shares.
//!
//! A process has logs ([`telemetry`]), metrics ([`metrics`], [`histogram`]) and a health state
//! ([`health`]), which it serves on an admin port ([`admin`]). It accepts HTTP requests ([`http`]),
//! responds to bad ones with problem details ([`api_error`]), describes its operations
//! ([`openapi`]), sends requests of its own ([`client`]), repeats queries ([`poll`]), limits its
//! log lines ([`log_limit`]), quotes values in messages ([`quote`]), serves the [`runbook`], and
//! stops on a signal ([`shutdown`]). [`Context`] is what its stages share.

pub mod admin;
pub mod api_error;
pub mod client;
mod context;
mod error_chain;
pub mod health;
pub mod histogram;
pub mod http;
pub mod log_limit;
pub mod metrics;
pub mod openapi;
pub mod poll;
pub mod quote;
pub mod runbook;
pub mod shutdown;
pub mod telemetry;

pub use api_error::{ApiError, FieldError};
pub use context::Context;
pub use error_chain::{error_chain, root_cause};
