//! The interface at the start of the worker: where batches come from and are acknowledged.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use schema::Batch;

/// Identifies a delivery. Tags of one generation are handed out in ascending order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryTag {
    /// Number of the source's connection. What an earlier connection delivered is delivered again.
    pub generation: u64,
    /// Number of the delivery within its connection.
    pub tag: u64,
}

/// The content of a delivery.
#[derive(Debug, Clone)]
pub enum Payload {
    /// The bytes of a message, which are not known to be a valid batch.
    Message(Bytes),
    /// A batch that never left the process.
    Batch(Arc<Batch>),
}

/// One message.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// What to acknowledge it by.
    pub tag: DeliveryTag,
    /// Its content.
    pub payload: Payload,
}

/// Delivers messages, each at least once.
pub trait Source: Send + 'static {
    /// Waits for the next message, and reconnects for as long as that takes. Cancel-safe: a future
    /// that is dropped before it completes has received nothing.
    fn next(&mut self) -> BoxFuture<'_, Delivery>;

    /// A message that is already here, if there is one.
    fn try_next(&mut self) -> Option<Delivery>;

    /// Acknowledges everything up to and including this delivery. Does nothing for a delivery of an
    /// earlier connection: that message is delivered again, and the ledger skips it.
    fn acknowledge_through(&mut self, tag: DeliveryTag) -> BoxFuture<'_, ()>;

    /// Rejects a poison message: it is dead-lettered whole and not delivered again. Returns false
    /// when that failed; the message is then delivered again.
    fn reject(&mut self, tag: DeliveryTag) -> BoxFuture<'_, bool>;

    /// Stops receiving, flushes the acknowledgements, and returns to the queue what was not
    /// acknowledged.
    fn close(&mut self) -> BoxFuture<'_, ()>;
}
