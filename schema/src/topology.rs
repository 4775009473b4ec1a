//! The queue topology, as data: what both RabbitMQ 3.10 and 4.x accept.
//!
//! Batches go through the default exchange into one durable quorum queue. The broker moves what a
//! consumer rejects to the dead-letter queue, at least once: it removes a message from the first
//! queue only after the second has confirmed it.

/// The queue of batches.
pub const READINGS: &str = "gridwatch.readings";
/// The exchange that rejected messages go through.
pub const DEAD_LETTER_EXCHANGE: &str = "gridwatch.dead-letters";
/// The queue of rejected messages, which are kept whole.
pub const DEAD_LETTERS: &str = "gridwatch.dead-letters";

/// Upper bound on the queue of batches in bytes. At the limit the broker refuses messages and the
/// front end responds with 503. At 20 bytes per reading this is more than a day of the load that
/// Gridwatch is designed for (3,300 readings/s).
pub const MAX_QUEUE_BYTES: i64 = 8 * 1024 * 1024 * 1024;

/// Redeliveries after which the broker dead-letters a message. The default of RabbitMQ 4 is 20, so
/// that a worker that loses its connection 20 times would lose readings to the dead-letter queue.
/// Gridwatch finds poison messages by decoding them, not by counting deliveries.
const DELIVERY_LIMIT: i64 = 1_000_000;

/// Value of a queue argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Argument {
    /// A string.
    Text(&'static str),
    /// An integer.
    Integer(i64),
}

/// Arguments of [`READINGS`]. At-least-once dead-lettering needs `reject-publish`.
pub const READINGS_ARGUMENTS: &[(&str, Argument)] = &[
    ("x-queue-type", Argument::Text("quorum")),
    (
        "x-dead-letter-exchange",
        Argument::Text(DEAD_LETTER_EXCHANGE),
    ),
    ("x-dead-letter-routing-key", Argument::Text(DEAD_LETTERS)),
    ("x-dead-letter-strategy", Argument::Text("at-least-once")),
    ("x-overflow", Argument::Text("reject-publish")),
    ("x-max-length-bytes", Argument::Integer(MAX_QUEUE_BYTES)),
    ("x-delivery-limit", Argument::Integer(DELIVERY_LIMIT)),
];

/// Arguments of [`DEAD_LETTERS`].
pub const DEAD_LETTERS_ARGUMENTS: &[(&str, Argument)] = &[
    ("x-queue-type", Argument::Text("quorum")),
    ("x-overflow", Argument::Text("reject-publish")),
    ("x-max-length-bytes", Argument::Integer(MAX_QUEUE_BYTES)),
];
