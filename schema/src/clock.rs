//! The stage clocks: measured ▸ received ▸ enqueued ▸ dequeued ▸ persisted.
//!
//! A stage is the time between two clocks. The front end and the worker may run on hosts whose clocks differ; a stage
//! that would be negative is taken as zero and counted ([`crate::metric::CLOCK_SKEW`]).

use std::time::{SystemTime, UNIX_EPOCH};

use crate::reading::Micros;

/// Now, in microseconds since the epoch.
pub fn now() -> Micros {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Micros::try_from(since.as_micros()).unwrap_or(Micros::MAX)
}

/// A part of the way between two clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// From the device's clock to the whole request being in the front end.
    MeasuredToReceived,
    /// From there to the batch being handed to the sink: waiting for room among the batches in flight.
    ReceivedToEnqueued,
    /// From there to the worker holding the message: the queue.
    EnqueuedToDequeued,
    /// From there to the commit.
    DequeuedToPersisted,
    /// From the request to the commit: what Gridwatch answers for.
    ReceivedToPersisted,
    /// From the device's clock to the commit: the total.
    MeasuredToPersisted,
}

impl Stage {
    /// Every stage, in the order of the way.
    pub const ALL: [Stage; 6] = [
        Self::MeasuredToReceived,
        Self::ReceivedToEnqueued,
        Self::EnqueuedToDequeued,
        Self::DequeuedToPersisted,
        Self::ReceivedToPersisted,
        Self::MeasuredToPersisted,
    ];

    /// The `stage` label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::MeasuredToReceived => "measured_to_received",
            Self::ReceivedToEnqueued => "received_to_enqueued",
            Self::EnqueuedToDequeued => "enqueued_to_dequeued",
            Self::DequeuedToPersisted => "dequeued_to_persisted",
            Self::ReceivedToPersisted => "received_to_persisted",
            Self::MeasuredToPersisted => "measured_to_persisted",
        }
    }
}
