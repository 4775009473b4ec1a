//! The seam at the start of the worker: where batches come from, and to whom they are acknowledged.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use schema::Batch;

/// Names one delivery. Tokens of one generation are handed out in ascending order of their tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    /// Counts the source's connections: what was delivered on an earlier one comes again.
    pub generation: u64,
    /// Counts the deliveries of one connection.
    pub tag: u64,
}

/// What a delivery holds.
#[derive(Debug, Clone)]
pub enum Payload {
    /// A message: a version byte and an encoded batch, if it is what it should be.
    Message(Bytes),
    /// A batch that never left the process.
    Batch(Arc<Batch>),
}

/// One message as it was taken.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// What to acknowledge it by.
    pub token: Token,
    /// What it holds.
    pub payload: Payload,
}

/// Hands out messages, at least once each.
pub trait Source: Send + 'static {
    /// The next message; waits for one, reconnecting as long as that takes. Cancel-safe: a future dropped before it is
    /// ready has taken nothing.
    fn next(&mut self) -> BoxFuture<'_, Delivery>;

    /// A message that is there already, if any.
    fn ready(&mut self) -> Option<Delivery>;

    /// Everything up to and with this token is done. A token of an earlier connection is ignored: its message comes again,
    /// and the ledger skips it.
    fn acknowledge_through(&mut self, token: Token) -> BoxFuture<'_, ()>;

    /// This message is poison: it is to be kept aside, whole, and never delivered again. Returns false where that could not
    /// be done, and it comes again.
    fn reject(&mut self, token: Token) -> BoxFuture<'_, bool>;

    /// Takes no further message, sees the acknowledgements off and gives back what was not acknowledged.
    fn close(&mut self) -> BoxFuture<'_, ()>;
}
