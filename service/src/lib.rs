//! The chassis that every Gridwatch process shares.
//!
//! A process is: telemetry ([`telemetry`]), metrics ([`metrics`], [`histogram`]), health ([`health`]) served on an admin
//! port ([`admin`]), connections ([`postgres`], [`amqp`]), HTTP in ([`http`], [`problem`]) and out ([`client`]), and a
//! stop signal ([`shutdown`]). A durable queue on disk ([`spool`]) serves where there is no broker. The two seams between the parts, [`sink`] and [`source`], are here as well, so that nothing
//! but the composition root knows what stands behind them.

pub mod admin;
pub mod amqp;
pub mod client;
pub mod health;
pub mod histogram;
pub mod http;
pub mod metrics;
pub mod postgres;
pub mod problem;
pub mod shutdown;
pub mod sink;
pub mod source;
pub mod spool;
pub mod telemetry;
