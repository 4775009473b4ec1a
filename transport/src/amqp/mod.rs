//! RabbitMQ as the queue between front end and worker.

mod connection;
mod sink;
mod source;

pub use connection::Broker;
pub use sink::AmqpSink;
pub use source::AmqpSource;
