//! How batches travel: the interfaces [`Sink`] and [`Source`], and everything that implements them.
//!
//! | module | sink | source |
//! |---|---|---|
//! | [`amqp`] | publishes to RabbitMQ | consumes from RabbitMQ |
//! | [`spool`] | appends to a queue on disk | reads from it |
//! | [`direct`] | sends to the worker of this process | receives from its front end |
//! | [`failover`] | another sink, with the spool as fallback | – |
//! | [`synced`] | – | another source, whose acknowledgements wait for a disk |
//!
//! The front end knows only `Sink` and the worker only `Source`. `gridwatch` chooses which ones.

pub mod amqp;
pub mod direct;
pub mod failover;
pub mod sink;
pub mod source;
pub mod spool;
pub mod synced;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use sink::{Sink, SinkError};
pub use source::{Delivery, DeliveryTag, Payload, Source};
